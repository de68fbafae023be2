"""The panels of the course, a page for each notebook that has sliders, for a lecture hall: `make demo`.

Writes what a panel needs of every notebook that has one (its title and the cells tagged `setup` and `sliders`) to build/demo,
and serves that folder with Voilà. Options are Voilà's: make demo DEMO_FLAGS="--no-browser --port=9000 --theme=dark".
"""

import os
import sys
from pathlib import Path

import nbformat

from tutorial_lib.widgets.server import LARGEST_MESSAGE

ROOT = Path(__file__).resolve().parent.parent
TAGS = {"setup", "sliders"}


def tagged(notebook: Path) -> nbformat.NotebookNode | None:
    """A notebook's title and the cells that its panel needs, without outputs; None if it has no panel."""
    notebook = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in notebook.cells if TAGS & set(cell.metadata.get("tags", []))]
    if not any("sliders" in cell.metadata.tags for cell in cells):
        return None
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    title = next(line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("# "))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title), *cells], metadata={"kernelspec": kernel})


def write_pages(folder: Path) -> list[Path]:
    """One notebook for each panel of the course, and nothing else, in `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    pages = []
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if (page := tagged(notebook)) is not None:
            pages.append(folder / notebook.name)
            nbformat.write(page, pages[-1])
    return pages


def command(folder: Path, *options: str) -> list[str]:
    """What serves a folder of pages behind a plain list of links."""
    connection = "--Voila.kernel_websocket_connection_class=tutorial_lib.widgets.server.PromptConnection"
    uploads = f"--Voila.tornado_settings={{'websocket_max_message_size': {LARGEST_MESSAGE}}}"
    return [sys.executable, "-m", "voila", str(folder), "--VoilaConfiguration.classic_tree=True", connection, uploads, *options]


def main() -> None:
    folder = ROOT / "build" / "demo"
    for page in write_pages(folder):
        print(f"  {page.name}")
    os.execv(sys.executable, command(folder, *sys.argv[1:]))


if __name__ == "__main__":
    main()
