from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_method import ToyConfig

from tutorial_lib.training import checkpoints, presets
from tutorial_lib.training.checkpoints import CheckpointError

pytestmark = pytest.mark.usefixtures("toy_registered")


@pytest.fixture
def saved(make_toy, tmp_path, monkeypatch):
    """A Toy shipped under the name `toy` in a data folder of its own: (method, path)."""
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    toy = make_toy(width=6)
    return toy, checkpoints.save(toy, tmp_path / "checkpoints" / "toy.safetensors", card={"steps": 3})


def rewrite_card(path, **entries):
    card = path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **entries}))


@pytest.mark.parametrize("by", ["name", "path"])
def test_load_gives_back_what_was_saved(saved, by):
    toy, path = saved
    loaded = checkpoints.load("toy" if by == "name" else path, expect="toy")
    assert not loaded.training
    assert loaded.config == ToyConfig(width=6)
    for name, value in toy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checkpoints.load("toy")
    assert torch.equal(torch.rand(3), expected)


def test_card_says_where_the_weights_come_from_but_not_from_whom(saved):
    toy, path = saved
    card = checkpoints.card("toy")
    assert (card["method"], card["steps"], card["figures"]) == ("toy", 3, {})
    assert card["config"] == {"width": 6, "betas": [0.5, 0.999]}
    assert torch.__version__.startswith(card["versions"]["torch"])
    assert card["parameters"] == sum(p.numel() for p in toy.parameters())
    assert str(path.parent) not in path.with_suffix(".json").read_text()


def test_commit_is_not_that_of_a_project_around_the_package(tmp_path, monkeypatch):
    for command in ("init", "-c user.name=me -c user.email=me@here commit --allow-empty --message first"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True, capture_output=True)
    monkeypatch.setattr(checkpoints, "REPOSITORY", tmp_path)
    assert len(checkpoints.commit()) == 40
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(checkpoints, "REPOSITORY", tmp_path / "site-packages")
    assert checkpoints.commit() is None


def test_channels_last_and_tied_weights_can_be_saved(make_toy, tmp_path):
    toy = make_toy().to(memory_format=torch.channels_last)
    toy.tied = toy.generator
    path = checkpoints.save(toy, tmp_path / "toy.safetensors", card={})
    tensors = checkpoints.read_tensors(path)[0]
    assert torch.equal(tensors["tied.3.weight"], toy.generator[3].weight)


def test_update_card_adds_figures(saved):
    checkpoints.update_card("toy", {"fid": 3.0, "kid": 1.0})
    checkpoints.update_card("toy", {"fid": 2.0})
    assert checkpoints.card("toy")["figures"] == {"fid": 2.0, "kid": 1.0}
    checkpoints.load("toy")


def test_missing_checkpoint_lists_what_is_shipped(saved):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing\.safetensors; shipped in .*: toy"):
        checkpoints.load("nothing")


def test_another_method_says_both(saved):
    with pytest.raises(CheckpointError, match=r"holds the method 'toy', expected 'finegan'"):
        checkpoints.load("toy", expect="finegan")


def test_unknown_method_is_named(saved):
    rewrite_card(saved[1], method="nogan")
    with pytest.raises(CheckpointError, match=r"holds the method 'nogan'; known methods are .*toy"):
        checkpoints.load("toy")


def test_config_entry_unknown_to_the_class_is_named(saved):
    rewrite_card(saved[1], config={"depth": 3})
    with pytest.raises(CheckpointError, match=r"does not fit ToyConfig: .*depth"):
        checkpoints.load("toy")


def test_another_config_says_both_shapes(saved):
    rewrite_card(saved[1], config={"width": 7})
    with pytest.raises(CheckpointError, match=r"0\.weight has shape \(96, 4\), this config expects \(112, 4\)"):
        checkpoints.load("toy")


@pytest.mark.parametrize(("rename", "problem"), [("extra", "has tensors unknown"), (None, "has no tensor for")])
def test_tensor_names_that_do_not_fit_are_named(saved, rename, problem):
    toy, path = saved
    tensors = dict(toy.state_dict())
    tensors = tensors | {rename: torch.ones(1)} if rename else dict(list(tensors.items())[1:])
    checkpoints.write_tensors(tensors, path)
    rewrite_card(path, sha256=checkpoints.sha256(path))
    with pytest.raises(CheckpointError, match=rf"toy\.safetensors {problem}.* {rename or r'generator.0.weight'}"):
        checkpoints.load("toy")


@pytest.mark.parametrize("damage", ["truncated", "one byte changed", "not safetensors"])
def test_damaged_file_is_named(saved, damage):
    path = saved[1]
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "one byte changed":
        content[-5] ^= 1
    else:
        content = b"\x80\x04pickle"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"toy\.safetensors is damaged"):
        checkpoints.load("toy")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_card_is_named(saved, content):
    saved[1].with_suffix(".json").write_text(content)
    with pytest.raises(CheckpointError, match=r"toy\.json is damaged"):
        checkpoints.load("toy")


def test_file_without_a_card_is_refused(saved):
    saved[1].with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"toy\.json is missing"):
        checkpoints.load("toy")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(saved, monkeypatch):
    path = saved[1]
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("the disk went away")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="the disk went away"):
        checkpoints.write_tensors({"a": torch.ones(1)}, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy.json", "toy.safetensors"]


def test_what_a_killed_writer_left_goes_when_the_run_goes_on(make_toy, tmp_path):
    left, other = tmp_path / ".snapshot.safetensors.999999.tmp", tmp_path / "notes.tmp"
    for path in (left, other):
        path.write_bytes(b"half of it")
    checkpoints.remove_leftovers(tmp_path)
    assert not left.exists() and other.exists()


def test_what_safetensors_cannot_write_is_an_oserror(saved, monkeypatch):
    def fail(*args, **kwargs):
        raise checkpoints.SafetensorError("Disk quota exceeded")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match=r"toy\.safetensors could not be written: Disk quota exceeded"):
        checkpoints.write_tensors({"a": torch.ones(1)}, saved[1])


@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_files_are_readable_by_whom_the_umask_lets(saved, mask):
    before = os.umask(mask)
    try:
        checkpoints.write_tensors({"a": torch.ones(1)}, saved[1].with_name("a.safetensors"))
        checkpoints.write_text("text", saved[1].with_name("a.json"))
    finally:
        os.umask(before)
    for name in ("a.safetensors", "a.json"):
        assert saved[1].with_name(name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_that_may_not_be_read_is_not_called_missing(saved, monkeypatch):
    def refuse(self, *args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(saved[1]), "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        checkpoints.read_tensors(saved[1])


def test_a_run_is_found_by_its_folder(saved, tmp_path, monkeypatch):
    run = tmp_path / "runs" / "width_0.5"
    run.mkdir(parents=True)
    (run / "model.safetensors").touch()
    assert checkpoints.find(run) == run / "model.safetensors"
    monkeypatch.chdir(run.parent)
    assert checkpoints.find("width_0.5") == Path("width_0.5/model.safetensors")
    run.with_name("width_0.5.safetensors").touch()
    assert checkpoints.find(run) == run.with_name("width_0.5.safetensors")
    (run.parent / "width_0.6.safetensors").touch()
    assert checkpoints.find(run.parent / "width_0.6") == run.parent / "width_0.6.safetensors"


def test_name_of_a_checkpoint_must_end_in_safetensors(make_toy, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.safetensors, got .*toy\.pt"):
        checkpoints.save(make_toy(), tmp_path / "toy.pt", card={})


# ---- starting from another run


def test_start_takes_the_networks_that_both_have(tmp_path):
    torch.manual_seed(0)
    finegan, code_mode = (presets.build(presets.PRESETS[name]["smoke"].method) for name in ("finegan", "mixnmatch_code"))
    path = checkpoints.save(finegan, tmp_path / "finegan.safetensors", card={})
    encoders = {name: value.clone() for name, value in code_mode.encoders.state_dict().items()}
    about = checkpoints.start_from(code_mode, path)
    assert about == {"method": "finegan", "sha256": checkpoints.sha256(path)}
    for name, value in finegan.state_dict().items():
        if name != "step":
            assert torch.equal(code_mode.state_dict()[name], value)
    assert all(torch.equal(value, encoders[name]) for name, value in code_mode.encoders.state_dict().items())


def test_start_takes_only_what_it_is_told(tmp_path):
    first, second = (presets.build(presets.PRESETS["mixnmatch"]["smoke"].method) for _ in range(2))
    path = checkpoints.save(first, tmp_path / "first.safetensors", card={})
    before = [value.clone() for value in second.extractor.parameters()]
    checkpoints.start_from(second, path, only=("generator", "encoders"))
    assert all(torch.equal(a, b) for a, b in zip(second.encoders.parameters(), first.encoders.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second.extractor.parameters(), before, strict=True))


def test_start_leaves_networks_new(tmp_path):
    first, second = (presets.build(presets.PRESETS["ds_comgan"]["smoke"].method) for _ in range(2))
    path = checkpoints.save(first, tmp_path / "first.safetensors", card={})
    before = [value.clone() for value in second.discriminator.parameters()]
    checkpoints.start_from(second, path, anew=("discriminator",))
    assert all(torch.equal(a, b) for a, b in zip(second.generator.parameters(), first.generator.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second.discriminator.parameters(), before, strict=True))


def test_start_leaves_a_part_of_a_network_new_that_has_another_size(tmp_path):
    config = presets.PRESETS["uniform_posterior"]["smoke"].method
    more = replace(config, attributes=(("identity", 50), *config.attributes[1:]))
    first, second = presets.build(config), presets.build(more)
    path = checkpoints.save(first, tmp_path / "first.safetensors", card={})
    before = [value.clone() for value in second.classifiers["identity"].parameters()]
    with pytest.raises(checkpoints.CheckpointError, match=r"identity.* this config expects"):
        checkpoints.start_from(second, path)
    checkpoints.start_from(second, path, anew=("classifiers.identity",))
    assert all(map(torch.equal, second.classifiers["identity"].parameters(), before))
    for name in ("encoders", "decoder", "critic"):
        assert all(map(torch.equal, getattr(second, name).parameters(), getattr(first, name).parameters()))
    assert all(map(torch.equal, second.classifiers["gaze"].parameters(), first.classifiers["gaze"].parameters()))


def test_an_optional_part_is_taken_if_both_have_it(tmp_path):
    plain = presets.PRESETS["finegan"]["smoke"].method
    judged = replace(plain, segmenter_widths=(4, 8), child_judged=True)
    (one, other), without = (presets.build(judged) for _ in range(2)), presets.build(replace(judged, child_judged=False))
    path = checkpoints.save(one, tmp_path / "one.safetensors", card={})
    checkpoints.start_from(without, path)
    assert all(map(torch.equal, without.child_discriminator.parameters(), one.child_discriminator.trunk.parameters()))
    mixnmatch = presets.build(presets.PRESETS["mixnmatch_code"]["smoke"].method)
    checkpoints.start_from(mixnmatch, path)
    assert all(map(torch.equal, mixnmatch.generator.parameters(), one.generator.parameters()))

    before = other.child_discriminator.match.weight.detach().clone()
    checkpoints.start_from(other, checkpoints.save(without, tmp_path / "without.safetensors", card={}))
    assert torch.equal(other.child_discriminator.match.weight, before)
    checkpoints.start_from(other, path)
    assert torch.equal(other.child_discriminator.match.weight, one.child_discriminator.match.weight)


def test_what_should_start_anew_must_exist(tmp_path):
    method = presets.build(presets.PRESETS["uniform_posterior"]["smoke"].method)
    path = checkpoints.save(method, tmp_path / "first.safetensors", card={})
    with pytest.raises(ValueError, match="anew: uniform_posterior has no 'classifiers.age'"):
        checkpoints.start_from(method, path, anew=("classifiers.gaze", "classifiers.age"))


def test_start_without_what_the_method_needs_is_named(tmp_path):
    path = checkpoints.save(presets.build(presets.PRESETS["finegan"]["smoke"].method), tmp_path / "f.safetensors", card={})
    with pytest.raises(checkpoints.CheckpointError, match="holds the method 'finegan': mixnmatch needs its encoders"):
        checkpoints.start_from(presets.build(presets.PRESETS["mixnmatch"]["smoke"].method), path)


def test_a_start_tells_the_whole_line_of_descent(tmp_path):
    finegan = presets.build(presets.PRESETS["finegan"]["smoke"].method)
    first = checkpoints.save(finegan, tmp_path / "first.safetensors", card={"steps": 3, "seconds": 1.5})
    code_mode = presets.build(presets.PRESETS["mixnmatch_code"]["smoke"].method)
    start = checkpoints.start_from(code_mode, first)
    assert (start["method"], start["steps"], start["seconds"]) == ("finegan", 3, 1.5)
    second = checkpoints.save(code_mode, tmp_path / "second.safetensors", card={"steps": 5, "start": start})
    whole = checkpoints.start_from(presets.build(presets.PRESETS["mixnmatch"]["smoke"].method), second)
    assert whole["steps"] == 5 and whole["start"] == start
    assert checkpoints.lineage({"steps": 7, "start": whole}) == [start, whole, {"steps": 7, "start": whole}]
    assert checkpoints.lineage(start) == [start]


def test_start_from_other_sizes_says_both(tmp_path):
    path = checkpoints.save(presets.build(presets.PRESETS["finegan"]["live"].method), tmp_path / "f.safetensors", card={})
    with pytest.raises(checkpoints.CheckpointError, match="has shape .* this config expects"):
        checkpoints.start_from(presets.build(presets.PRESETS["mixnmatch_code"]["smoke"].method), path)
