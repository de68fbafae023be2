"""The measurements behind each paper's tables: `evaluate(method) -> figures` and `table(figures) -> str`, one file a paper."""
