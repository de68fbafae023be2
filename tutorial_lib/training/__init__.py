"""Training: one loop for every method, presets, checkpoints."""
