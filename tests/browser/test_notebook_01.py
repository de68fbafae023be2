"""Notebook 01 in a real browser: its sliders move and the picture follows."""

from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "01_finegan.ipynb"
TAGS = {"setup", "sliders"}  # of the cells that the panel needs; the others would take minutes
PICTURE = ".tl-panel .tl-picture"  # the first one; those after it are the stages and thumbnails
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"

pytestmark = pytest.mark.browser


class Panel:
    """The panel on the page, as a person uses it."""

    def __init__(self, page):
        self.page = page
        self.picture = page.locator(PICTURE).first

    def pixels(self) -> np.ndarray:
        script = "async img => [...new Uint8Array(await (await fetch(img.src)).arrayBuffer())]"
        return np.asarray(Image.open(BytesIO(bytes(self.picture.evaluate(script)))).convert("RGB")).astype(int)

    def slider(self, label: str):
        row = self.page.locator(".tl-panel .widget-slider").filter(has=self.page.get_by_text(label, exact=True))
        return row.get_by_role("slider")

    def press(self, label: str, key: str) -> None:
        """Press a key on a slider and wait for the next picture."""
        shown = self.picture.get_attribute("src")
        self.slider(label).focus()
        self.page.keyboard.press(key)
        self.page.wait_for_function("([css, shown]) => document.querySelector(css).src !== shown", arg=[PICTURE, shown])

    def drag(self, label: str, events: int) -> list[str]:
        """Drag a slider from where it is to its end; the pictures shown from its first event until none follows."""
        watch = """img => {
            window.shown = [];
            new MutationObserver(() => window.shown.push(img.src)).observe(img, {attributeFilter: ['src']});
        }"""
        self.picture.evaluate(watch)
        self.slider(label).scroll_into_view_if_needed()
        track = self.slider(label).locator("xpath=ancestor::*[contains(@class, 'noUi-target')]").bounding_box()
        handle = self.slider(label).bounding_box()
        y = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] + 5, y, steps=events)
        self.page.mouse.up()
        count = None
        while count != (count := self.page.evaluate("window.shown.length")):
            self.page.wait_for_timeout(1500)
        return self.page.evaluate("window.shown")


@pytest.fixture(scope="module")
def notebook(lab) -> str:
    """Serves the setup and slider cells of the notebook; returns the name they are served under."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if TAGS & set(cell.metadata.get("tags", []))]
    assert notebook.cells, f"{NOTEBOOK.name} has no cells tagged {sorted(TAGS)}"
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, lab.folder / NOTEBOOK.name)
    return NOTEBOOK.name


def test_slider_moves_and_picture_follows(lab, notebook, page, tmp_path):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    page.goto(f"{lab.url}/lab/tree/{notebook}?token={lab.token}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_function(f"{KERNEL}?.status === 'idle'")  # JupyterLab asks which kernel to run on if it is not there yet
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    panel = Panel(page)
    panel.picture.wait_for()
    page.screenshot(path=tmp_path / "lab.png")

    first = panel.pixels()
    panel.press("b  class", "ArrowRight" if panel.slider("b  class").get_attribute("aria-valuenow") != "9.0" else "ArrowLeft")
    assert (panel.pixels() != first).any(), "a key on a slider left the picture as it was"

    shown = panel.drag("z5", events=100)
    assert 0 < len(shown) <= 101, f"{len(shown)} pictures of a drag with 100 events"
    dragged = panel.pixels()
    panel.press("z5", "ArrowLeft")
    panel.press("z5", "ArrowRight")
    assert (panel.pixels() == dragged).all(), "the drag did not end on the picture of its last value"

    page.locator(".tl-panel").screenshot(path=tmp_path / "panel.png")
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr'], .tl-error span")
    assert errors.all_inner_texts() == []
    assert problems == []
