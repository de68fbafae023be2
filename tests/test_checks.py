import pytest
import torch

from tutorial_lib.checks import class_labels
from tutorial_lib.training.loop import RunSettings
from tutorial_lib.training.presets import METHODS

CONFIGS = sorted({kind for kind, _ in METHODS.values()}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", [*CONFIGS, RunSettings], ids=lambda kind: kind.__name__)
def test_no_number_of_any_config_is_negative_or_infinite(kind):
    made = kind() if kind is not RunSettings else kind(steps=1, batch_size=1)
    given = {name: getattr(made, name) for name in made.__dataclass_fields__}
    tried = 0
    for name, value in given.items():
        for wrong in (-1, float("nan"), float("inf")):
            for bad in _with(value, wrong):
                with pytest.raises(ValueError, match=name):
                    kind(**given | {name: bad})
                tried += 1
    assert tried >= 9


def _with(value, wrong):
    """The value with one of its numbers wrong, each in its turn."""
    if isinstance(value, tuple):
        for i, each in enumerate(value):
            yield from ((*value[:i], bad, *value[i + 1 :]) for bad in _with(each, wrong))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield wrong


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("finegan", "width", 0), ("finegan", "n_parents", 0), ("finegan", "object_widths", (64, 0, 256, 512, 512)),
        ("finegan", "background_critic", ((64, 0), (128, 2))), ("finegan_predictor", "widths", (0,)),
        ("mixnmatch", "extractor_down", (0, 64, 128, 256, 512, 512)), ("mixnmatch", "feature_size", 0),
        ("ds_comgan_segmenter", "unet_widths", (64, 0, 256)), ("gmvae", "encoder", ((0, 2),)), ("gmvae", "decoder_start", 0),
        ("cvaegan", "z_dim", 0), ("infogan", "n_classes", 0), ("stargan", "critic_widths", (0, 1)),
        ("uniform_posterior", "encoder_widths", (0, 1, 2)), ("uniform_posterior_shallow", "hidden", 0),
        ("oracle", "widths", (0,)), ("finegan_clusters", "confusion_batch", 0), ("comgan", "widths", [256, 0]),
    ],
)  # fmt: skip
def test_no_size_is_zero(method, name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got"):
        METHODS[method][0](**{name: value})


@pytest.mark.parametrize("value", [None, "3", (1.0,)])
def test_what_is_a_number_by_default_is_one(value):
    with pytest.raises(ValueError, match="background_weight must be a number, got"):
        METHODS["finegan"][0](background_weight=value)
    assert METHODS["finegan"][0](pose_cells=None).pose_cells is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_of_any_integer_type(dtype):
    label = class_labels("gaze", torch.tensor([2, 0, 1], dtype=dtype), 3, lowest=-1)
    assert label.dtype == torch.int64 and label.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "label",
    [
        torch.tensor([0, 3]), torch.tensor([0, -1]), torch.tensor([255], dtype=torch.uint8), torch.tensor([True]),
        torch.tensor([1.0]), torch.tensor([[0]]), torch.tensor(0),
    ],
)  # fmt: skip
def test_what_is_no_label_is_named(label):
    with pytest.raises(ValueError, match=r"gaze must be integers \(B,\) in 0 … 2, got torch"):
        class_labels("gaze", label, 3)


def test_no_labels_are_labels_too():
    assert class_labels("gaze", torch.zeros(0, dtype=torch.int64), 3).shape == (0,)
