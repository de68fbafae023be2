"""A notebook as it lies in the repository, run from top to bottom in a real browser: nbval never sees one.

The first one in every run of the tests. All of them, which takes half an hour on one core: WHOLE_NOTEBOOKS=all.
"""

import os

import nbformat
import pytest
from driver import KERNEL, ROOT, PanelPage

pytestmark = pytest.mark.browser

EVERY = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = EVERY if os.environ.get("WHOLE_NOTEBOOKS") == "all" else EVERY[:1]
LAB = "window.jupyterapp.shell.currentWidget"
CELLS = f"""() => [...{LAB}.content.model.cells].map(cell => cell.toJSON()).filter(cell => cell.cell_type === 'code')"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_cells_run_in_the_page_and_the_sliders_move(notebook, lab, context, screenshots):
    whole = nbformat.read(notebook, 4)
    for cell in whole.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(whole, lab.folder / f"whole_{notebook.name}")
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{lab.url}/lab/workspaces/whole_{notebook.stem}/tree/whole_{notebook.name}?token={lab.token}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_function(f"{KERNEL}?.status === 'idle'")
    page.evaluate("async () => void await window.jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate(CELLS)
    errors = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert errors == [] and problems == []
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
    sliders = [i for i, cell in enumerate(whole.cells) if "sliders" in cell.metadata.get("tags", ())]
    for i in sliders:  # cells far from the window are not in the page
        page.evaluate(f"async i => {{ await {LAB}.content.scrollToItem(i, 'start'); }}", i)
        panel = PanelPage(page, within=f".jp-Cell[data-windowed-list-index='{i}']")
        panel.picture.wait_for()
        before = panel.look()
        panel.to_other_end(panel.free_slider())
        assert panel.look() != before and panel.error == ""
        page.screenshot(path=screenshots / f"whole_{notebook.stem}_{i}.png")
    page.evaluate(f"() => {LAB}.sessionContext.shutdown()")
    page.close()
