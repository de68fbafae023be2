"""Presets: for each method a `smoke` (seconds; tests), a `laptop` (two CPU cores, what is shipped) and a `paper` one.

A preset is a method's config, the data and the settings of a run; the same code runs all three.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from tutorial_lib.data.birds import BACKGROUNDS, SHAPES, TEXTURES, PaperBirds
from tutorial_lib.methods.baselines import InfoGAN, InfoGANConfig
from tutorial_lib.methods.finegan import CodePredictor, CodePredictorConfig, FineGAN, FineGANConfig
from tutorial_lib.metrics.oracle import Oracle, OracleConfig
from tutorial_lib.training.loop import RunSettings

METHODS: dict[str, tuple[type, type[nn.Module]]] = {
    "finegan": (FineGANConfig, FineGAN),
    "finegan_predictor": (CodePredictorConfig, CodePredictor),
    "infogan": (InfoGANConfig, InfoGAN),
    "oracle": (OracleConfig, Oracle),
}


@dataclass(frozen=True)
class Preset:
    """A method's config, the arguments of its data set (`PaperBirds`), and how it is trained."""

    method: Any
    data: dict[str, Any] = field(default_factory=dict)
    run: RunSettings = field(default_factory=lambda: RunSettings(steps=1, batch_size=1))

    def dataset(self) -> Dataset:
        """The data set this preset trains on."""
        return PaperBirds(**self.data)


def build(config: Any) -> nn.Module:
    """The method that a config describes, with fresh weights from torch's random numbers."""
    for config_class, method_class in METHODS.values():
        if type(config) is config_class:
            return method_class(config)
    known = ", ".join(config_class.__name__ for config_class, _ in METHODS.values())
    raise TypeError(f"no method for {type(config).__name__}; there are {known}")


def from_dict(config_class: type, values: dict[str, Any]) -> Any:
    """A config from what JSON made of it: lists become the tuples they were."""
    known = {f.name for f in fields(config_class)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}")

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return config_class(**{name: tuples(value) for name, value in values.items()})


# ---- FineGAN --------------------------------------------------------------------------------------------------------------

_BIRDS = {"n_backgrounds": len(BACKGROUNDS), "n_parents": len(SHAPES), "n_children": len(TEXTURES)}

# What the laptop and smoke presets change in the training, and why.
_STEADY = {
    # Published losses, rates and BatchNorm discriminators let D win within 100 steps at this size.
    "spectral_norm": True,
    "hinge": True,
    "learning_rate": 4e-4,
    "betas": (0.0, 0.99),
    # A background critic of weight 10 drowns the others in a hinge loss; without a head start of the background stage, the
    # parent and child stages paint the whole picture.
    "background_weight": 3.0,
    "background_first": 1200,
    # PaperBirds' backgrounds are independent of the plumage, so b is drawn on its own. With b = c the texture could be told
    # by the background's colour.
    "tie_background": False,
    # Nothing in the published loss makes the generator use b: z alone chose the background. So the background stage sees
    # four components of z only, and b must be readable off B.
    "z_background": 4,
    "background_information": 1.0,
    # Colour would make p readable without any change of shape; a silhouette has no colour. And z must stay readable off
    # the silhouette as well, so that it moves something.
    "parent_from_mask": True,
    "pose_information": 0.3,
    # Masks that cover nothing or everything are a stable state; most birds cover 9 to 38 % of their pictures.
    "mask_area": (0.09, 0.38),
    "mask_area_weight": 10.0,
    "mask_match_weight": 4.0,
    "mask_entropy_weight": 0.5,
}

_FINEGAN = {
    "smoke": Preset(
        FineGANConfig(
            image_size=32, z_dim=8, **_BIRDS, width=8, background_widths=(8, 8, 4), parent_width=8, parent_widths=(8, 8, 4),
            child_width=4, parent_residuals=1, child_residuals=1, background_size=32, background_critic=((4, 2), (8, 2)),
            object_widths=(4, 8, 8), head_width=8, **{**_STEADY, "background_first": 2},
        ),
        data={"size": 32, "length": 200, "wander": 1.0},
        run=RunSettings(steps=6, batch_size=4, log_every=2, snapshot_every=3),
    ),
    # What notebook 01 trains in front of the reader, and the ablations: 32 x 32, little more than a minute.
    "live": Preset(
        FineGANConfig(
            image_size=32, z_dim=12, **_BIRDS, width=32, background_widths=(32, 16, 8), parent_width=64,
            parent_widths=(48, 32, 8), child_width=12, parent_residuals=1, child_residuals=1, background_size=32,
            background_critic=((24, 2), (48, 1)), object_widths=(24, 48, 96), head_width=96, reader_widths=(12, 24, 48),
            **{**_STEADY, "background_first": 250},
        ),
        data={"size": 32, "length": 50_000, "wander": 1.0},
        run=RunSettings(steps=500, batch_size=16, ema_decay=0.99, decay_from=0.8, log_every=25, snapshot_every=500),
    ),
    "laptop": Preset(
        FineGANConfig(
            # 64 x 64 in one to two hours on two cores: a 20th of the published generator's work a picture.
            image_size=64, z_dim=12, **_BIRDS, width=48, background_widths=(40, 32, 16, 8), parent_width=96,
            parent_widths=(64, 40, 24, 8), child_width=12, parent_residuals=1, child_residuals=1, background_size=64,
            background_critic=((24, 2), (48, 2)), object_widths=(24, 48, 96, 96), head_width=96,
            reader_widths=(12, 24, 48, 64), **_STEADY,
        ),
        data={"size": 64, "length": 50_000, "wander": 1.0},
        run=RunSettings(steps=5000, batch_size=16, ema_decay=0.998, decay_from=0.6, log_every=50, snapshot_every=250),
    ),
    "paper": Preset(
        FineGANConfig(),
        data={"size": 128, "length": 12_000, "wander": 1.0},
        run=RunSettings(steps=450_000, batch_size=16, ema_decay=0.999),  # 600 epochs
    ),
}  # fmt: skip

# ---- InfoGAN, of FineGAN's size and budget --------------------------------------------------------------------------------


def _infogan(preset: str, width: int, widths: tuple[int, ...]) -> Preset:
    base = _FINEGAN[preset]
    names = ("image_size", "z_dim", "object_widths", "head_width", "learning_rate", "betas", "spectral_norm", "hinge")
    same = {name: getattr(base.method, name) for name in names}
    config = InfoGANConfig(n_classes=base.method.n_children, width=width, widths=widths, **same)
    # As many updates of the discriminator as FineGAN's D_c gets.
    run = replace(base.run, steps=base.run.steps - base.method.background_first)
    return Preset(config, data={k: v for k, v in base.data.items() if k != "wander"}, run=run)


_INFOGAN = {
    "smoke": _infogan("smoke", 16, (8, 8, 4)),
    "laptop": _infogan("laptop", 112, (80, 48, 16, 8)),
    "paper": _infogan("paper", 1024, (512, 256, 128, 64, 32)),
}

# ---- the oracle -----------------------------------------------------------------------------------------------------------

_ORACLE = {
    "smoke": Preset(
        OracleConfig(image_size=32, widths=(4, 4, 8, 8, 8)),
        data={"size": 32, "length": 200, "tied": False},
        run=RunSettings(steps=4, batch_size=8, log_every=2, snapshot_every=2),
    ),
    "laptop": Preset(
        OracleConfig(),
        data={"size": 64, "length": 200_000, "seed": 1, "tied": False},
        run=RunSettings(steps=3000, batch_size=32, ema_decay=0.99, decay_from=0.3, log_every=50, snapshot_every=200),
    ),
}

PRESETS: dict[str, dict[str, Preset]] = {"finegan": _FINEGAN, "infogan": _INFOGAN, "oracle": _ORACLE}
