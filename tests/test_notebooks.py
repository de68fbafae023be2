"""The stored notebooks, as files: what a reader, nbgrader and git find in them. nbval runs them."""

import ast
import inspect
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from tutorial_lib import widgets

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(request.param, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


def test_there_are_eight():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{i}" for i in range(8)]


def test_each_exercise_is_one_for_nbgrader(cells):
    def about(cell) -> dict:
        return cell.metadata.get("nbgrader", {})

    solved = [i for i, cell in enumerate(cells) if "### BEGIN SOLUTION" in cell.source]
    assert solved
    for i in solved:
        exercise, test = cells[i], cells[i + 1]
        assert "### END SOLUTION" in exercise.source and "assert" in test.source
        assert about(exercise)["solution"] and not about(exercise)["grade"]
        assert about(test)["grade"] and about(test)["locked"] and not about(test)["solution"]
        assert "exercise" in exercise.metadata.tags and "test" in test.metadata.tags
    graded = [about(cell)["grade_id"] for cell in cells if about(cell)]
    assert len(graded) == len(set(graded)) == 2 * len(solved)


def test_outputs_are_stored_whole_and_without_complaints(cells):
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run make notebooks"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    for cell in code:
        pairs = pairwise(cell.outputs)
        assert not [a for a, b in pairs if a.get("name") and a.get("name") == b.get("name")], "one text in two pieces"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_at_most_two_megabytes(path):
    assert path.stat().st_size <= 2 * 2**20


def test_code_that_a_panel_copies_finds_the_names_that_it_uses(cells):
    """It says `model` and `pictures`: a panel's own must be called so in its notebook, and until the end."""
    folder = Path(widgets.__file__).parent
    modules = [import_module(f"tutorial_lib.widgets.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    builders = {name: value for module in modules for name, value in vars(module).items() if name.endswith("_panel")}
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    for at, tree in enumerate(trees):
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") in builders):
                continue
            wanted = inspect.signature(builders[call.func.id]).parameters
            for name, given in zip(wanted, call.args, strict=False):
                if name in ("model", "pictures", "means"):
                    assert ast.unparse(given) == name
                    later = (node for tree in trees[at + 1 :] for node in ast.walk(tree))
                    names = (node for node in later if isinstance(node, ast.Name) and node.id == name)
                    assert not any(isinstance(node.ctx, ast.Store) for node in names)
