"""The command line, on the toy method of the training tests."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "training"))

from toy_method import Pictures, Toy, ToyConfig

from tutorial_lib.training import checkpoints, presets
from tutorial_lib.training.loop import RunSettings


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """`main` with the toy method and its two presets, in an empty folder that is also where checkpoints are shipped."""
    run = RunSettings(steps=4, batch_size=4, log_every=2, snapshot_every=2, precision="fp32")
    both = {
        "smoke": presets.Preset(ToyConfig(width=4), {"length": 12, "seed": 0}, run=run),
        "laptop": presets.Preset(ToyConfig(), {"length": 20, "seed": 0}, run=run),
    }
    monkeypatch.setitem(presets.METHODS, "toy", (ToyConfig, Toy))
    monkeypatch.setitem(presets.PRESETS, "toy", both)
    monkeypatch.setitem(presets.DATA, "birds", Pictures)
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("tutorial_lib.__main__")
    importlib.reload(module)  # its choices are those of the registry when it is imported
    return module.main


@pytest.fixture
def trained(command_line, capsys):
    """The command line, after `train toy --preset smoke`; the model is shipped as `toy`."""
    assert command_line(["train", "toy", "--preset", "smoke"]) == 0
    for suffix in (".safetensors", ".json"):
        target = checkpoints.folder() / f"toy{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(Path("runs/toy/model").with_suffix(suffix).read_bytes())
    capsys.readouterr()  # what training said
    return command_line


def test_train_leaves_model_log_and_sample_sheets(command_line, capsys):
    assert command_line(["train", "toy", "--preset", "smoke"]) == 0
    names = {str(path.relative_to("runs/toy")) for path in Path("runs/toy").rglob("*.*")}
    assert names == {
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "snapshot.safetensors",
        "samples/000002.png",
        "samples/000004.png",
    }
    assert "runs/toy/model.safetensors" in capsys.readouterr().out
    assert checkpoints.card("runs/toy/model.safetensors")["config"]["width"] == 4


def test_settings_of_the_preset_can_be_changed(command_line):
    changes = ["--run.steps", "2", "--config.width", "3", "--data.length", "8", "--folder", "elsewhere"]
    assert command_line(["train", "toy", "--preset=smoke", *changes]) == 0
    card = checkpoints.card("elsewhere/model.safetensors")
    assert (card["steps"], card["config"]["width"], card["data"]["length"]) == (2, 3, 8)


def test_resume_makes_a_run_longer(trained):
    assert trained(["train", "toy", "--preset", "smoke", "--run.steps", "6", "--resume"]) == 0
    assert checkpoints.card("runs/toy/model.safetensors")["steps"] == 6


def test_interrupted_training_says_how_to_go_on_and_exits_with_status_130(command_line, capsys, monkeypatch):
    step = Toy.training_step

    def interrupted(self, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Toy, "training_step", interrupted)
    assert command_line(["train", "toy", "--preset", "smoke"]) == 130
    assert "step 1 of 4; --resume --folder runs/toy goes on from there" in capsys.readouterr().out
    monkeypatch.setattr(Toy, "training_step", step)
    assert command_line(["train", "toy", "--preset", "smoke", "--resume"]) == 0


def test_train_again_into_the_same_folder_is_one_line_and_status_2(trained, capsys):
    assert trained(["train", "toy", "--preset", "smoke"]) == 2
    message = capsys.readouterr().err.strip()
    assert message == "error: runs/toy holds a run already: resume it, remove it, or choose another folder"


def test_bad_setting_is_named_and_exits_with_status_2(command_line, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line(["train", "toy", "--run.steps", "0"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "run: steps must be at least 1, got 0" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("arguments", [["train", "nogan"], ["train", "toy", "--preset", "huge"], ["paint"], []])
def test_unknown_words_exit_with_status_2(command_line, arguments):
    with pytest.raises(SystemExit) as stop:
        command_line(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(("arguments", "words"), [([], "train"), (["train", "toy"], "--run.batch-size")])
def test_help_can_be_read(command_line, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        command_line([*arguments, "--help"])
    assert stop.value.code == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--start", "finegan", "mixnmatch_code"],
        ["--folder", "toy", "finegan"],
        ["toy", "--preset", "smoke", "--preset", "laptop"],
        ["finegan", "--photos", ".", "--layout", "cub", "--layout", "folder"],
    ],
)
def test_what_could_be_read_in_two_ways_is_one_line_and_status_2(command_line, capsys, arguments):
    assert command_line(["train", *arguments]) == 2
    assert capsys.readouterr().err == "error: name the method first, and --preset and --layout once\n"
    assert not Path("runs").exists()


def test_networks_that_a_preset_begins_anew_are_named(trained, capsys, monkeypatch):
    from_toy = dataclasses.replace(presets.PRESETS["toy"]["smoke"], start="toy", anew=("generator.3", "discriminator"))
    monkeypatch.setitem(presets.PRESETS["toy"], "smoke", from_toy)
    assert trained(["train", "toy", "--preset", "smoke", "--folder", "on"]) == 0
    assert "from toy, but for generator.3 and discriminator, which the preset begins anew\n" in capsys.readouterr().out


def test_a_run_goes_on_when_the_checkpoint_it_started_from_is_gone(trained, monkeypatch):
    start = ["train", "toy", "--preset", "smoke", "--folder", "on", "--start", "first/model.safetensors"]
    assert trained(["train", "toy", "--preset", "smoke", "--folder", "first"]) == 0
    assert trained(start) == 0
    before = checkpoints.card("on/model.safetensors")["start"]
    shutil.rmtree("first")
    assert trained([*start, "--run.steps", "6", "--resume"]) == 0
    assert checkpoints.card("on/model.safetensors")["start"] == before
    assert trained([*start[:5], "anew", *start[6:], "--resume"]) == 2  # there is nothing to go on with


def test_sample_writes_the_same_sheet_for_the_same_seed(trained):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert trained(["sample", "toy", "--n", "4", "--out", f"{name}.png", "--seed", str(seed)]) == 0
    with Image.open("a.png") as sheet:
        assert sheet.size == (14, 14)  # 2 x 2 pictures of 4 x 4, 2 pixels around each
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("c.png").read_bytes()


def test_points_are_no_pictures(command_line, capsys):
    """The three moons of notebook 06: no sheets of them, and none to ask for."""
    few = ["--run.steps", "2", "--run.snapshot-every", "1", "--data.length", "96", "--folder", "moons"]
    assert command_line(["train", "gmvae", "--preset", "moons", *few]) == 0
    assert not Path("moons/samples").exists() and "sheets" not in capsys.readouterr().out
    assert command_line(["sample", "gmvae", "--checkpoint", "moons/model.safetensors", "--out", "sheet.png"]) == 2
    assert "this gmvae draws points, no pictures" in capsys.readouterr().err and not Path("sheet.png").exists()


def test_missing_checkpoint_is_one_line_and_status_2(trained, capsys):
    assert trained(["sample", "toy", "--checkpoint", "tyo"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no checkpoint at")
    assert message.endswith(": toy\n")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("runs/stargan_first/model.safetensors",
         "makes it: python -m tutorial_lib train stargan --preset first --folder runs/stargan_first\n"),
        ("runs/mixnmatch_code/model.safetensors",
         "makes it: python -m tutorial_lib train mixnmatch_code, with a preset of the same size\n"),
        ("runs/elsewhere/model.safetensors", ": none\n"),
    ],
)  # fmt: skip
def test_missing_stage_is_named_with_the_command_that_makes_it(command_line, capsys, tmp_path, monkeypatch, start, said):
    monkeypatch.chdir(tmp_path)
    assert command_line(["train", "uniform_posterior", "--preset", "smoke", "--start", start]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: no checkpoint at {start}") and message.endswith(said)


def test_evaluate_prints_one_json_object_and_nothing_else(trained, capsys, monkeypatch):
    def evaluate(method, card):
        print("a study that talks")
        return {"fid": 1.5, "steps": card["steps"]}

    main = sys.modules["tutorial_lib.__main__"]
    monkeypatch.setattr(main, "find_study", lambda name: SimpleNamespace(evaluate=evaluate, table=str))
    assert trained(["evaluate", "toy", "--json", "--save"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == checkpoints.card("toy")["figures"]
    assert printed.pop("seconds") >= 0
    assert printed == {"fid": 1.5, "steps": 4}


def test_evaluate_on_fewer_samples_says_what_all_of_them_take_and_is_not_saved(trained, capsys, monkeypatch):
    def evaluate(method, card, *, samples=5000):
        return {"fid": 1.5, "samples": samples}

    main = sys.modules["tutorial_lib.__main__"]
    monkeypatch.setattr(main, "find_study", lambda name: SimpleNamespace(evaluate=evaluate, table=str))
    assert trained(["evaluate", "toy", "--json", "--samples", "500"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 500
    assert trained(["evaluate", "toy", "--json", "--save"]) == 0
    assert "minutes" not in capsys.readouterr().err  # nothing was stored before
    checkpoints.update_card("toy", {"seconds": 130.0})
    assert trained(["evaluate", "toy", "--json"]) == 0
    assert capsys.readouterr().err == "The stored figures took 3 minutes; --samples 500 is quicker and less exact\n"
    for refused in (["--samples", "99"], ["--samples", "500", "--save"]):
        assert trained(["evaluate", "toy", *refused]) == 2
        assert "samples must be at least 100 and goes without --save" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "steps"), [([], 7), (["--steps", "3"], 3)])
def test_ablate_leaves_the_number_of_steps_to_the_study(trained, monkeypatch, capsys, arguments, steps):
    def ablate(folder, *, steps=7, seed):
        return {f"{steps} steps, seed {seed}": {}}

    main = sys.modules["tutorial_lib.__main__"]
    monkeypatch.setattr(main, "find_study", lambda name: SimpleNamespace(ablate=ablate))
    assert trained(["ablate", "toy", "--seed", "2", *arguments]) == 0
    assert capsys.readouterr().out.startswith(f"{steps} steps, seed 2 in ")


def test_method_without_a_study_is_named(trained, capsys):
    assert trained(["evaluate", "toy"]) == 2
    assert "there is no study of 'toy'" in capsys.readouterr().err


def test_doctor_says_what_is_intact(trained, capsys):
    assert trained(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "toy: " in out
    assert "intact" in out
    assert "auto is" in out


def test_doctor_finds_a_damaged_checkpoint(trained, capsys):
    path = checkpoints.folder() / "toy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert trained(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "toy: DAMAGED" in captured.out
    assert captured.err.startswith("error: damaged: toy;")
