"""Photographs on the command line: looked over, asked for, and trained on, from a folder of pictures to a panel of sliders."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "data"))

from photo_layouts import write_cub, write_folder, write_picture, write_rafd

from tutorial_lib.data.attribute_faces import RaFD
from tutorial_lib.data.photos import CUB
from tutorial_lib.training import checkpoints, presets

BOXES = [(40, 20, 30, 40), (5, 2, 20, 12), (80, 30, 40, 50), (20, 10, 90, 60)]
SHORT = ["--run.steps", "3", "--run.batch-size", "2", "--run.snapshot-every", "3", "--run.precision", "fp32"]


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("tutorial_lib.__main__").main


@pytest.fixture
def trained(command_line):
    """The command line, after the README's two lines on a folder `mine`, with the smoke preset."""
    write_folder(Path("mine"), BOXES)
    smoke = ["--preset", "smoke", "--photos", "mine", *SHORT]
    assert command_line(["train", "mixnmatch_code", *smoke]) == 0
    # Other presets start from there by themselves.
    assert command_line(["train", "mixnmatch", *smoke, "--start", "runs/mixnmatch_code/model.safetensors"]) == 0
    return command_line


def test_two_lines_from_a_folder_of_pictures_to_mixnmatch_and_its_sliders(trained):
    from tutorial_lib.data.photos import PhotoFolder
    from tutorial_lib.widgets.mixnmatch import mixnmatch_panel

    card = checkpoints.card("runs/mixnmatch/model.safetensors")
    assert card["data"] == {
        "name": "PhotoFolder", "length": 4, "size": 32, "split": "all", "augment": True, "scene": False, "partial": False,
        **PhotoFolder("mine", size=32).described,
    }  # fmt: skip
    model = checkpoints.load("runs/mixnmatch/model.safetensors", expect="mixnmatch")
    panel = mixnmatch_panel(model, PhotoFolder("mine", size=32).read(range(4)))
    assert panel.png.startswith(b"\x89PNG")
    # The second run went on from the first.
    codes = checkpoints.read_tensors(Path("runs/mixnmatch_code/model.safetensors"))[0]
    again = checkpoints.read_tensors(Path("runs/mixnmatch/model.safetensors"))[0]
    assert all(torch.equal(value, again[name]) for name, value in codes.items() if name.startswith("generator."))


def test_finegan_trains_on_a_published_layout_and_its_options(command_line, monkeypatch):
    monkeypatch.setattr(CUB, "counts", {})
    write_cub(Path("birds"))
    layout = ["--photos", "birds", "--layout", "cub", "--data.split", "train"]
    assert command_line(["train", "finegan", "--preset", "smoke", *layout, *SHORT]) == 0
    data = checkpoints.card("runs/finegan/model.safetensors")["data"]
    assert (data["name"], data["split"], data["length"], data["scene"]) == ("CUB", "train", 2, True)
    assert "birds" not in str(data)  # cards are published, paths are not


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--photos", "nowhere"], "there is no folder nowhere. Put your pictures into images/"),
        (["--layout", "cub"], "layout: cub needs --photos, the folder it lies in"),
        (["--photos", "mine", "--data.split", "test"], "split must be one of ('all',), got 'test'"),
        (["--photos", "mine", "--run.batch-size", "9"], "batch_size 9 is larger than the data set, which has 4 images"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(command_line, capsys, arguments, message):
    write_folder(Path("mine"), None)
    assert command_line(["train", "comgan", "--preset", "smoke", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_classes_that_do_not_fit_are_one_line_before_anything_is_decoded(command_line, capsys):
    train = ["train", "gmvae", "--preset", "smoke", *SHORT]
    write_folder(Path("mine"), None)
    assert command_line([*train, "--photos", "mine"]) == 2
    error = capsys.readouterr().err
    assert "folder has no 'label' of each picture" in error and "each class into a folder of their own" in error
    for i in range(3):
        write_picture(Path("sorted", "images", "abc"[i], f"{i}.png"), 40, 40)
    assert command_line([*train, "--photos", "sorted", "--config.n-classes", "2"]) == 2
    assert "label: 3 classes in sorted, 2 in the config" in capsys.readouterr().err
    assert not Path("cache").exists()
    assert command_line([*train, "--photos", "sorted", "--config.n-classes", "4"]) == 0
    assert "label: 3 classes in sorted, the model has 4" in capsys.readouterr().out


def test_attributes_of_faces_from_the_command_line_with_sheets_of_swaps(command_line, monkeypatch, capsys):
    monkeypatch.setattr(RaFD, "counts", {})
    write_rafd(Path("faces"))
    layout = ["--preset", "smoke", "--photos", "faces", "--layout", "rafd", *SHORT]
    assert command_line(["train", "uniform_posterior", *layout]) == 0
    assert "identity: 2 classes in faces, the model has 59" in capsys.readouterr().out
    with Image.open("runs/uniform_posterior/samples/000003.png") as sheet:
        assert sheet.size == (6 * 34 + 2, 5 * 34 + 2)  # pictures, drawn again, three swaps
    assert command_line(["train", "uniform_posterior", *layout, "--data.split", "all", "--folder", "all"]) == 0
    assert command_line(["evaluate", "uniform_posterior", "--checkpoint", "runs/uniform_posterior/model.safetensors"]) == 2
    assert "was trained on RaFD; figures are measured on rendered pictures only" in capsys.readouterr().err
    assert command_line(["train", "uniform_posterior", *layout, "--config.classifiers-first", "3", "--folder", "first"]) == 2
    assert "steps: the first 3 train a part of the method only" in capsys.readouterr().err


def test_nothing_may_be_missing_of_a_data_set_in_one_file(command_line, capsys):
    Path("cifar").mkdir()
    assert command_line(["data", "check", "cifar10", "cifar", "--partial"]) == 2
    assert "error: partial: of cifar10 nothing may be missing" in capsys.readouterr().err


def test_method_that_needs_factors_says_so(command_line, capsys):
    assert command_line(["train", "oracle", "--preset", "smoke", "--photos", "mine"]) == 2
    assert "error: oracle learns every factor of rendered pictures" in capsys.readouterr().err


def test_missing_stage_is_to_be_trained_on_the_same_photographs(command_line, capsys):
    start = "runs/finegan_second/model.safetensors"
    assert command_line(["train", "finegan_clusters", "--preset", "smoke", "--photos", "my own", "--start", start]) == 2
    command = "train finegan --preset second --folder runs/finegan_second --photos 'my own' --layout folder"
    assert capsys.readouterr().err.endswith(f"python -m tutorial_lib {command}\n")


def test_photographs_do_not_start_from_networks_of_other_pictures_unasked(command_line, capsys, monkeypatch):
    write_folder(Path("mine"), BOXES)
    smoke = presets.PRESETS["finegan"]["smoke"]
    start = "runs/finegan_first/model.safetensors"
    monkeypatch.setitem(presets.PRESETS["finegan"], "smoke", replace(smoke, start=start))
    checkpoints.save(presets.build(smoke.method), start, card={"data": {"name": "PaperBirds"}})
    train = ["train", "finegan", "--preset", "smoke", "--photos", "mine", *SHORT]
    assert command_line(train) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {start} was trained on PaperBirds, this run is on PhotoFolder. The stage before this one")
    assert error.endswith("train finegan --preset first --folder runs/finegan_first --photos mine --layout folder\n")
    assert not Path("runs/finegan").exists()
    Path("chosen.safetensors").write_bytes(Path(start).read_bytes())
    Path("chosen.json").write_bytes(Path(start).with_suffix(".json").read_bytes())
    assert command_line([*train, "--start", "chosen.safetensors"]) == 0


def test_check_says_that_a_copy_is_right_and_draws_samples(command_line, monkeypatch, capsys):
    monkeypatch.setattr(CUB, "counts", {"all": 3, "train": 2, "test": 1})
    write_cub(Path("birds"))
    assert command_line(["data", "check", "cub", "birds", "--sheet", "out/samples.png"]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[:3]] == [
        ["all", "3", "pictures"],
        ["train", "2", "pictures"],
        ["test", "1", "pictures"],
    ]
    assert "known     box, keypoints, mask, label, visible" in out and "right; samples in out/samples.png" in out
    with Image.open("out/samples.png") as sheet:
        assert sheet.size == (3 * 162 + 2, 2 * 162 + 2)
    assert not Path("cache").exists()  # nothing is decoded that is not drawn


def test_check_says_when_there_are_no_boxes(command_line, capsys):
    write_folder(Path("mine"), None)
    assert command_line(["data", "check", "folder", "mine"]) == 0
    assert "no boxes: the background is learned from what lies outside the middle" in capsys.readouterr().out


def test_check_says_what_it_leaves_out(command_line, capsys):
    write_folder(Path("mine"), None)
    for name in ("images/a.heic", "images/B.HEIC", "images/DSC0"):
        (Path("mine") / name).write_text("no picture")
    assert command_line(["data", "check", "folder", "mine"]) == 0
    assert "left out  2 .heic, 1 without an ending: of kinds that are not read" in capsys.readouterr().out


def test_check_counts_what_is_wrong_and_draws_nothing(command_line, capsys):
    write_folder(Path("mine"), [*BOXES, (100, 0, 50, 50), (0, 0, 200, 10)])
    assert command_line(["data", "check", "folder", "mine"]) == 2
    error = capsys.readouterr().err
    assert "e.png: x, y, width, height = 100, 0, 50, 50 reaches out of the picture of 120 x 80 pixels (and 1 more)" in error
    assert not Path("photos.png").exists()


@pytest.mark.parametrize("sheet", [[], ["--sheet", "new/sheet.png"]])
def test_sheet_does_not_go_among_the_pictures(command_line, capsys, monkeypatch, sheet):
    monkeypatch.chdir(write_folder(Path("mine"), None))
    assert command_line(["data", "check", "folder", ".", *sheet]) == 2
    assert "would lie among the pictures of .: --sheet PATH puts it elsewhere" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["images"]
    assert command_line(["data", "check", "folder", ".", "--sheet", "../sheet.png"]) == 0


def test_runs_do_not_lie_among_the_pictures(command_line, capsys, monkeypatch):
    monkeypatch.chdir(write_folder(Path("mine"), None))
    for path in Path("images").iterdir():
        path.rename(path.name)
    Path("images").rmdir()
    train = ["train", "comgan", "--preset", "smoke", "--photos", ".", *SHORT]
    assert command_line(train) == 2
    assert "runs/comgan would lie among the pictures of .: --folder PATH puts it elsewhere" in capsys.readouterr().err
    assert command_line([*train, "--folder", "../comgan"]) == 0
    monkeypatch.chdir(write_folder(Path("../other"), None))
    assert command_line(train) == 0  # beside images/
    monkeypatch.setattr(CUB, "counts", {})
    write_cub(Path("../birds"))
    monkeypatch.chdir("../birds")
    assert command_line([*train, "--layout", "cub"]) == 0  # whose pictures are listed


@pytest.mark.parametrize("small", ["images/b.png", "masks/b.png"])
def test_check_finds_the_sizes_that_training_refuses(command_line, capsys, small):
    write_folder(Path("mine"), BOXES * 6, masks=True)
    Path("mine/boxes.csv").unlink()
    write_picture(Path("mine") / small, 10, 10)  # not one of those that are drawn
    assert command_line(["data", "check", "folder", "mine"]) == 2
    assert f"mine/{small} is 10 x 10 pixels" in capsys.readouterr().err
    assert not Path("photos.png").exists()


def test_get_says_whom_to_ask_where_nothing_may_be_downloaded(command_line, capsys):
    assert command_line(["data", "get", "rafd"]) == 0
    assert "ask at https://rafd.socsci.ru.nl" in capsys.readouterr().out


def test_get_names_terms_and_place(command_line, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("tutorial_lib.data.download.get", lambda name, root: asked.append((name, root)))
    assert command_line(["data", "get", "cub"]) == 0
    assert command_line(["data", "get", "cub", "--to", "elsewhere"]) == 0
    assert asked == [("cub", Path("data/cub")), ("cub", Path("elsewhere"))]
    out = capsys.readouterr().out
    assert "not for commercial use" in out and "data check cub data/cub" in out


def test_help_lists_the_data_commands(command_line, capsys):
    for arguments, words in ((["data", "--help"], ("check", "get")), (["data", "check", "--help"], ("--sheet", "facescrub"))):
        with pytest.raises(SystemExit) as stop:
            command_line(arguments)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)
