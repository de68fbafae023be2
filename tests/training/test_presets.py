import dataclasses
import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from photo_layouts import write_picture, write_rafd

from tutorial_lib.methods.finegan import BackgroundCritic, patch_weights
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import RunSettings
from tutorial_lib.training.presets import DATA, PHOTOS, PRESETS, RENDERED, build, from_dict, head_start, on_photos

ALL = [(method, name) for method, presets in PRESETS.items() for name in presets]
SHIPPED = sorted(path.stem for path in checkpoints.folder().glob("*.safetensors"))


@cache
def shapes(method: str, name: str) -> nn.Module:
    """A preset's networks without their weights. Spectral norm takes seconds to make, on the meta device too."""
    with torch.device("meta"):
        return build(PRESETS[method][name].method)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("method", "name"), ALL)
def test_preset_builds_its_method(method, name):
    model = shapes(method, name)
    assert model.name == method
    assert all(hasattr(model, part) for part in model.averaged)
    assert model.optimizers


@pytest.mark.parametrize(("method", "name"), ALL)
def test_data_has_the_size_of_the_networks(method, name):
    preset = PRESETS[method][name]
    image, size = preset.dataset()[0]["image"], preset.method.image_size
    assert tuple(image.shape) in ((3, size, size), (size,))  # the three moons are vectors


@pytest.mark.parametrize(("method", "name"), ALL)
def test_config_survives_json(method, name):
    config = PRESETS[method][name].method
    again = from_dict(type(config), json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)  # lists instead of tuples would not hash


@pytest.mark.parametrize("method", [m for m, presets in PRESETS.items() if "laptop" in presets and m != "mixnmatch_code"])
def test_laptop_model_is_small_enough_to_ship(method):
    state = shapes(method, "laptop").state_dict()  # mixnmatch_code is shipped as a part of mixnmatch
    assert sum(value.numel() * value.element_size() for value in state.values()) < 12e6


def test_infogan_is_of_finegans_size():
    sizes = [size(shapes(method, "laptop").generator) for method in ("finegan", "infogan")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)


def test_infogans_judge_learns_as_often_as_finegans():
    def steps(method, *stages):
        presets = (PRESETS[method][stage] for stage in stages)
        return sum(preset.run.steps - head_start(preset.method) for preset in presets)

    assert steps("infogan", "first", "second", "laptop") == steps("finegan", "first", "second", "third", "laptop")


def test_stargan_is_of_uniform_posteriors_size_or_larger():
    ours, theirs = (shapes(method, "laptop") for method in ("uniform_posterior", "stargan"))
    assert 1 <= size(theirs.generator) / (size(ours.encoders) + size(ours.decoder)) < 2.1
    assert size(theirs.critic) == pytest.approx(size(ours.critic), rel=0.01)


@pytest.mark.parametrize("name", [name for name in PRESETS["finegan"] if name != "smoke"])
def test_finegans_data_show_its_background_critic_enough_background(name):
    preset = PRESETS["finegan"][name]
    with torch.device("meta"):
        critic = BackgroundCritic(preset.method)
        size = preset.method.background_size
        cells = critic(torch.empty(1, 3, size, size))[0].shape[-1]
    box = preset.dataset().batch(range(60))["scene_box"].as_subclass(torch.Tensor) * (size / preset.method.image_size)
    # Centred on the bird as `image` is, less than one cell in a hundred is free of the box. A cell of the laptop preset's
    # critic sees 34 of 64 pixels, more than of the others'.
    least = 0.1 if preset.method.image_size == 64 else 0.15
    assert patch_weights(box, cells, critic.receptive_field, critic.stride).mean() > least


def test_unknown_field_is_named():
    with pytest.raises(ValueError, match="FineGANConfig has no colour"):
        from_dict(type(PRESETS["finegan"]["smoke"].method), {"colour": 3})


def test_unknown_config_is_named():
    with pytest.raises(TypeError, match="no method for dict"):
        build({})


# ---- photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Four pictures in two folders, with boxes."""
    root = tmp_path_factory.mktemp("photographs")
    lines = ["file,x,y,width,height"]
    for i, name in enumerate(("cat/a", "cat/b", "dog/c", "dog/d")):
        write_picture(root / "images" / f"{name}.png", 90, 60, (20 + i, 10, 20, 20))
        lines.append(f"{name}.png,{20 + i},10,20,20")
    (root / "boxes.csv").write_text("\n".join(lines))
    return root


OF_FACES = ("uniform_posterior", "uniform_posterior_shallow", "stargan")  # of attributes that few data sets have
OF_PHOTOGRAPHS = [name for name in PRESETS if name not in ("oracle", "face_oracle", *OF_FACES)]


def test_photographs_bring_their_attributes():
    found = {layout: on_photos("uniform_posterior", "paper", layout).method.attributes for layout in ("rafd", "facescrub")}
    assert found == {"rafd": (("identity", 59), ("expression", 8), ("gaze", 3)), "facescrub": (("identity", 530),)}
    laptop = on_photos("uniform_posterior", "laptop", "rafd").method  # no photograph comes with a partner, or another frame
    assert (laptop.partner_attributes, laptop.rest_of_frame, laptop.augmentation) == ((), False, 0.0)
    assert on_photos("uniform_posterior_shallow", "smoke", "multipie").method.attributes == (
        ("expression", 4),
        ("illumination", 19),
    )
    assert on_photos("stargan", "paper", "bu3dfe").method.attributes == (("expression", 7),)


@pytest.mark.parametrize(
    ("method", "layout", "message"),
    [
        ("uniform_posterior", "cub", r"faces \(identity, expression, .*\); cub has none. Layouts with some: multipie, rafd, "),
        ("stargan", "facescrub", r"stargan learns attributes of faces \(expression\); facescrub has identity"),
        ("uniform_posterior_shallow", "rafd", "attributes: disentangling needs at least 2"),
    ],
)
def test_a_layout_without_the_attributes_that_a_method_learns_is_refused(method, layout, message):
    with pytest.raises(ValueError, match=message):
        on_photos(method, "smoke", layout)


@pytest.mark.parametrize("method", ["uniform_posterior", "stargan"])
def test_a_method_of_several_attributes_trains_on_photographs(method, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(PHOTOS["rafd"], "counts", {})
    preset = on_photos(method, "smoke", "rafd")
    data = DATA[preset.source](root=write_rafd(tmp_path / "rafd"), **preset.data)
    torch.manual_seed(0)
    losses = build(preset.method).training_step(data.batch(range(4)))
    assert losses and all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("method", OF_PHOTOGRAPHS)
def test_every_method_trains_on_photographs(method, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path))
    preset = on_photos(method, "smoke", "folder")
    data = DATA[preset.source](root=photographs, **preset.data)
    torch.manual_seed(0)
    model = build(preset.method)
    for _ in range(2):
        losses = model.training_step(data.batch(range(4)))
    assert losses and all(loss.isfinite() for loss in losses.values())


def test_wide_photographs_without_boxes_show_the_background_critic_background(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "cache"))
    write_picture(tmp_path / "images" / "a.png", 150, 100)
    preset = on_photos("finegan", "paper", "folder")
    box = DATA["folder"](root=tmp_path, **preset.data).batch([0] * 60)["scene_box"].as_subclass(torch.Tensor)
    with torch.device("meta"):
        critic = BackgroundCritic(preset.method)
    weights = patch_weights(box * (preset.method.background_size / preset.method.image_size), 24, critic.receptive_field, 4)
    assert weights.mean() > 0.15


def test_photographs_bring_the_published_numbers_of_codes_to_the_paper_preset():
    codes = {}
    for layout in ("cub", "dogs", "cars"):
        config = on_photos("mixnmatch_code", "paper", layout).method
        codes[layout] = (config.n_backgrounds, config.n_parents, config.n_children)
    assert codes == {"cub": (200, 20, 200), "dogs": (120, 12, 120), "cars": (196, 20, 196)}
    ds_comgan = on_photos("ds_comgan", "paper", "dogs").method
    assert (ds_comgan.n_foregrounds, ds_comgan.n_backgrounds) == (120, 120)
    assert on_photos("infogan", "paper", "dogs").method.n_classes == 120
    assert on_photos("finegan", "laptop", "dogs").method == PRESETS["finegan"]["laptop"].method


@pytest.mark.parametrize("layout", PHOTOS)
def test_every_preset_fits_every_layout(layout):
    for method in OF_PHOTOGRAPHS:
        for name in PRESETS[method]:
            on_photos(method, name, layout)  # a config that contradicts itself raises


def test_photographs_bring_their_label():
    labels = {
        layout: on_photos("gmvae", "laptop", layout).method for layout in ("cub", "rafd", "facescrub", "cifar10", "folder")
    }
    assert {name: (config.label, config.n_classes) for name, config in labels.items()} == {
        "cub": ("label", 200),
        "rafd": ("expression", 8),
        "facescrub": ("identity", 530),
        "cifar10": ("label", 10),
        "folder": ("label", PRESETS["gmvae"]["laptop"].method.n_classes),
    }


def test_photographs_do_not_start_from_a_model_of_paper_birds():
    plain = on_photos("mixnmatch_code", "plain", "folder")
    assert PRESETS["mixnmatch_code"]["plain"].start == "runs/finegan/model.safetensors" and plain.start is None
    assert plain.method.background_first == PRESETS["finegan"]["first"].method.background_first > 0
    assert on_photos("finegan", "laptop", "folder").start == PRESETS["finegan"]["laptop"].start
    assert PRESETS["gmvae"]["unseen"].start == "gmvae" and on_photos("gmvae", "unseen", "folder").start is None
    assert on_photos("mixnmatch_code", "first", "folder").start == "runs/finegan/model.safetensors"
    assert on_photos("mixnmatch", "paper", "folder").start == "runs/mixnmatch_code/model.safetensors"


def test_data_sets_of_photographs_go_by_their_names():
    assert all(kind.name == name for name, kind in PHOTOS.items())
    assert len(PHOTOS) == 12 and not PHOTOS.keys() & RENDERED.keys()


def made_in(folder: str) -> tuple[str, str]:
    """Method and preset whose training leaves its model in a folder of runs/, as `make checkpoints` names them."""
    names = {method: (method, "laptop") for method in PRESETS} | {f"{m}_{preset}": (m, preset) for m, preset in ALL}
    return names[folder]


@pytest.mark.parametrize(("method", "preset"), [(m, p) for m, p in ALL if (PRESETS[m][p].start or "").startswith("runs/")])
def test_what_a_stage_starts_from_has_the_networks_that_it_needs(method, preset):
    maker, stage = made_in(Path(PRESETS[method][preset].start).parent.name)
    model, before = shapes(method, preset), shapes(maker, stage)
    assert set(getattr(model, "needs", model.averaged)) <= {name for name, _ in before.named_children()}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_checkpoints_are_of_the_laptop_presets(name):
    """Of the last stage they went through. What their cards do not know has its default."""
    about, preset = checkpoints.card(name), PRESETS[name]["laptop"]
    assert from_dict(type(preset.method), about["config"]) == preset.method
    assert from_dict(RunSettings, about["run"]) == preset.run and about["steps"] == preset.run.steps
