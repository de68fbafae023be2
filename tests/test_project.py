"""The files around the library: what is installed, where it says so twice, and what setup says when it cannot."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tutorial_lib.training.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["dev"]]
CONDA_NAMES = {"pytorch": "torch", "pytorch-cpu": "torch"}


def pins(lines: list[str]) -> dict[str, str]:
    """`name==version ; marker` lines to name: version."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==") for requirement in requirements}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


def environment(path: str) -> dict[str, str]:
    """Packages a conda environment file pins, by conda or by pip, under their names on the package index."""
    entries = yaml.safe_load((ROOT / path).read_text())["dependencies"]
    by_conda = dict(entry.split("=") for entry in entries if isinstance(entry, str) and "=" in entry)
    by_conda.pop("python")
    by_pip = [line for entry in entries if isinstance(entry, dict) for line in entry["pip"]]
    return {CONDA_NAMES.get(name, name): version for name, version in by_conda.items()} | pins(by_pip)


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT, ids=lambda requirement: requirement.name)
def test_range_admits_locked_version(requirement):
    version = locked().get(canonicalize_name(requirement.name))
    assert version, f"requirements.lock has no {requirement.name}"
    assert requirement.specifier.contains(version), f"{requirement} does not admit the locked {version}"


def test_lock_names_exact_versions_only():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    loose = [line for line in lines if [s.operator for s in Requirement(line).specifier] != ["=="]]
    assert not loose


def test_lock_leaves_cuda_to_torch():
    cuda = [name for name in locked() if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert not cuda


@pytest.mark.parametrize(
    ("path", "requirements"),
    [("environment.yml", RUNTIME + DEVELOPMENT), ("binder/environment.yml", RUNTIME)],
)
def test_environment_has_locked_versions(path, requirements):
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    wanted = {name: version for name, version in locked().items() if name in names}
    assert environment(path) == wanted


@pytest.mark.parametrize("path", ["environment.yml", "binder/environment.yml"])
def test_environment_python_is_one_the_project_allows(path):
    entries = yaml.safe_load((ROOT / path).read_text())["dependencies"]
    python = next(entry for entry in entries if isinstance(entry, str) and entry.startswith("python="))
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python.removeprefix("python="))


def test_setup_asks_for_the_python_that_the_project_asks_for(setup):
    minimum = ".".join(map(str, setup.MINIMUM_PYTHON))
    assert PROJECT["project"]["requires-python"] == f">={minimum}"


def test_setup_names_a_python_that_is_too_old(setup):
    problem = setup.python_problem((3, 9, 18), "/usr/bin/python3")
    assert "3.11 or newer" in problem
    assert "/usr/bin/python3 is Python 3.9.18" in problem
    assert "PYTHON=" in problem


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1), (4, 0, 0)])
def test_setup_accepts_newer_pythons(setup, version):
    assert setup.python_problem(version, "python3") is None


def test_setup_names_a_disk_that_is_too_full(setup):
    problem = setup.disk_problem(3.21e9, 8, "/home/someone/course")
    assert "8 GB" in problem
    assert "2.5 GB of free disk space are needed; /x has 2.4 GB" in setup.disk_problem(2.4e9, 2.41, "/x")
    assert "/home/someone/course has 3.2 GB" in problem


def test_setup_accepts_enough_disk(setup):
    assert setup.disk_problem(8e9, 8, "/home/someone/course") is None


def test_setup_asks_for_no_more_than_is_missing(setup, tmp_path, monkeypatch):
    asked = []
    commands = record_commands(setup, repository(tmp_path), monkeypatch)
    monkeypatch.setattr(setup, "disk_problem", lambda free, needed, root: asked.append(needed))
    monkeypatch.setattr(setup, "NEEDED_GB", 8)
    monkeypatch.setattr(setup, "held_bytes", lambda folder: 6.5e9 * (folder / "bin").exists())
    setup.main()
    (tmp_path / ".venv" / "tutorial_lib.stamp").unlink()  # as if it had been cut short
    setup.main()
    assert asked == [8, setup.NEEDED_GB_UPDATE] and len(commands) == 5


def test_setup_counts_what_is_there(setup, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    (tmp_path / "c").symlink_to(tmp_path / "a" / "b")
    assert 1000 <= setup.held_bytes(tmp_path) < 1000 + 200 and setup.held_bytes(tmp_path / "nowhere") == 0


def test_setup_changes_nothing_when_a_check_fails(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "ROOT", repository(tmp_path))
    monkeypatch.setattr(setup, "python_problem", lambda version, executable: "too old")
    monkeypatch.setattr(setup, "disk_problem", lambda *arguments: "too full")
    monkeypatch.setattr(setup, "run", lambda *command: pytest.fail(f"ran {command}"))
    with pytest.raises(SystemExit) as stopped:
        setup.main()
    assert "too full" in stopped.value.code
    assert "too old" in stopped.value.code
    assert not (tmp_path / ".venv").exists()


def test_setup_does_nothing_twice(setup, tmp_path, monkeypatch):
    commands = record_commands(setup, repository(tmp_path), monkeypatch)
    setup.main()
    assert [command[2] for command in commands] == ["venv", "pip", "pip"]
    commands.clear()
    setup.main()
    assert commands == []


def test_setup_updates_in_place_when_the_lock_changes(setup, tmp_path, monkeypatch):
    commands = record_commands(setup, repository(tmp_path), monkeypatch)
    setup.main()
    commands.clear()
    (tmp_path / "requirements.lock").write_text("torch==99\n")
    setup.main()
    assert [command[2] for command in commands] == ["pip", "pip"]


def test_setup_starts_afresh_when_the_repository_has_moved(setup, tmp_path, monkeypatch):
    commands = record_commands(setup, repository(tmp_path / "old"), monkeypatch)
    setup.main()
    commands.clear()
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setattr(setup, "ROOT", tmp_path / "new")
    setup.main()
    assert [command[2] for command in commands] == ["venv", "pip", "pip"]


def repository(folder: Path) -> Path:
    """A folder with the files that setup reads."""
    (folder / "scripts").mkdir(parents=True)
    jupyter = ("scripts/jupyterlab_settings.json", "scripts/jupyter_server_config.json")
    for name in ("requirements.lock", "pyproject.toml", *jupyter):
        (folder / name).write_text(name)
    return folder


def record_commands(setup, root: Path, monkeypatch) -> list[tuple[str, ...]]:
    """Let setup run in `root` without installing anything; the list fills with what it would have run."""
    commands = []

    def run(*command):
        commands.append(command)
        python = setup.ROOT / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(setup, "ROOT", root)
    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "works", lambda python: python.exists())
    monkeypatch.setattr(setup, "disk_problem", lambda *arguments: None)
    return commands


@pytest.mark.parametrize(
    ("system", "machine", "fits"), [("darwin", "x86_64", False), ("darwin", "arm64", True), ("linux", "x86_64", True)]
)
def test_setup_says_that_there_is_no_torch_for_intel_macs(setup, system, machine, fits):
    assert (setup.machine_problem(system, machine) is None) == fits


def test_environment_without_pip_or_of_an_old_python_is_made_anew(setup, tmp_path, monkeypatch):
    venv.create(tmp_path / "no pip", with_pip=False)
    assert setup.works(Path(sys.executable)) and not setup.works(tmp_path / "no pip" / "bin" / "python")
    monkeypatch.setattr(setup, "MINIMUM_PYTHON", (99, 0))
    assert not setup.works(Path(sys.executable))


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def empty_house(tmp_path):
    """A package with the modules that the import contract names, none of which imports anything."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "tutorial_lib").mkdir()
    (tmp_path / "tutorial_lib" / "__init__.py").touch()
    for layer in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]:
        for module in layer.split(" | "):
            (tmp_path / f"{module.replace('.', '/')}.py").touch()
    return tmp_path


def test_import_contract_allows_downward_imports(empty_house):
    (empty_house / "tutorial_lib" / "methods.py").write_text("import tutorial_lib.layers\n")
    result = lint_imports(empty_house)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("data", "methods"), ("methods", "training"), ("metrics", "plots"), ("metrics", "training")],
)
def test_import_contract_forbids(empty_house, importer, imported):
    (empty_house / "tutorial_lib" / f"{importer}.py").write_text(f"import tutorial_lib.{imported}\n")
    result = lint_imports(empty_house)
    assert result.returncode == 1
    assert f"tutorial_lib.{importer} is not allowed to import tutorial_lib.{imported}" in result.stdout


def test_the_readme_shows_the_figures_of_the_model_cards():
    spec = importlib.util.spec_from_file_location("readme_results", ROOT / "scripts" / "readme_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- results:") == len(module.TABLES)
    assert module.filled(readme) == readme, "run python scripts/readme_results.py"


def test_retraining_makes_each_stage_before_the_one_that_starts_from_it():
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    runs, shipped = (next(line for line in lines if line.startswith(f"{name} :=")).split()[2:] for name in ("RUNS", "SHIPPED"))
    made = set()
    for run in runs:
        name, _, preset = run.partition(":")
        assert PRESETS[name][preset or "laptop"].start in made | {None}
        made |= {f"runs/{name}_{preset}/model.safetensors"} if preset else {name, f"runs/{name}/model.safetensors"}
    assert set(shipped) == {path.stem for path in (ROOT / "data" / "checkpoints").glob("*.safetensors")} <= made


def test_presets_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"tutorial_lib (?:train|plan) (\w+) --preset (\w+)", readme)
    assert len(commands) > 6
    sketch = re.search(r"`--preset (\w+)` in the first and `(\w+)` in the second", readme).groups()
    commands += zip(("mixnmatch_code", "mixnmatch"), sketch, strict=True)
    assert [(method, name) for method, name in commands if name not in PRESETS[method]] == []
