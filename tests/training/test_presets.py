import dataclasses
import json

import pytest
import torch
from torch import nn

from tutorial_lib.methods.finegan import BackgroundCritic, patch_weights
from tutorial_lib.training.presets import PRESETS, build, from_dict

ALL = [(method, name) for method, presets in PRESETS.items() for name in presets]


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("method", "name"), ALL)
def test_preset_builds_its_method(method, name):
    with torch.device("meta"):  # shapes only
        model = build(PRESETS[method][name].method)
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
    with torch.device("meta"):  # mixnmatch_code is shipped as a part of mixnmatch
        model = build(PRESETS[method]["laptop"].method)
    assert sum(value.numel() * value.element_size() for value in model.state_dict().values()) < 12e6


def test_infogan_is_of_finegans_size():
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in build(PRESETS[m]["laptop"].method).generator.parameters()) for m in ("finegan", "infogan")
        ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)


def test_stargan_is_of_uniform_posteriors_size():
    with torch.device("meta"):
        ours, theirs = (build(PRESETS[m]["laptop"].method) for m in ("uniform_posterior", "stargan"))
    assert size(theirs.generator) == pytest.approx(size(ours.encoders) + size(ours.decoder), rel=0.25)
    assert size(theirs.critic) == pytest.approx(size(ours.critic), rel=0.01)


@pytest.mark.parametrize("name", [name for name in PRESETS["finegan"] if name != "smoke"])
def test_finegans_data_show_its_background_critic_enough_background(name):
    preset = PRESETS["finegan"][name]
    with torch.device("meta"):
        critic = BackgroundCritic(preset.method)
        size = preset.method.background_size
        cells = critic(torch.empty(1, 3, size, size))[0].shape[-1]
    box = preset.dataset().batch(range(60))["scene_box"].as_subclass(torch.Tensor) * (size / preset.method.image_size)
    # Centred on the bird as `image` is, less than one cell in a hundred is free of the box.
    assert patch_weights(box, cells, critic.receptive_field, critic.stride).mean() > 0.15


def test_unknown_field_is_named():
    with pytest.raises(ValueError, match="FineGANConfig has no colour"):
        from_dict(type(PRESETS["finegan"]["smoke"].method), {"colour": 3})


def test_unknown_config_is_named():
    with pytest.raises(TypeError, match="no method for dict"):
        build({})
