from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods.mixnmatch import CodeMode, MixNMatch, stitch
from tutorial_lib.training.presets import PRESETS
from tutorial_lib.widgets.mixnmatch import CODE, FACTORS, mixnmatch_panel


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return PaperBirds(size=32, length=4).batch(range(4))["image"].as_subclass(torch.Tensor)


@pytest.fixture(scope="module")
def model() -> MixNMatch:
    torch.manual_seed(0)
    return MixNMatch(PRESETS["mixnmatch"]["smoke"].method).eval()


@pytest.fixture
def panel(model, pictures):
    return mixnmatch_panel(model, pictures)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data))).astype(int)


def as_image(picture: torch.Tensor) -> np.ndarray:
    return ((picture[0].permute(1, 2, 0) + 1) * 127.5).detach().numpy()


def file(picture: np.ndarray, kind: str = "PNG") -> bytes:
    written = BytesIO()
    Image.fromarray(picture).save(written, kind)
    return written.getvalue()


def test_picture_is_the_models_mix(panel, model, pictures):
    panel.set(background=0, shape=1, pose=2, texture=3)
    a, b, c, d = pictures.split(1)
    with torch.no_grad():
        expected = model.mix(background=a, shape=b, pose=c, texture=d).image
    assert np.abs(decode(panel.png) - as_image(expected)).max() <= 1


def test_codes_stand_in_for_pictures(panel, model):
    panel.set(background=CODE, b=3, shape=CODE, p=2, texture=CODE, c=7, pose=CODE, z=5)
    z = torch.randn(1, model.config.z_dim, generator=torch.Generator().manual_seed(5))
    codes = Codes.from_indices(z, *(torch.tensor([i]) for i in (3, 2, 7)), model.code_sizes)
    with torch.no_grad():
        assert np.abs(decode(panel.png) - as_image(model.generate(codes).image)).max() <= 1


def test_sliders_of_codes_show_what_was_read_and_move_where_no_picture_is_chosen(panel, model, pictures):
    panel.set(background=1, texture=CODE)
    with torch.no_grad():
        read = int(model.encode(pictures[1:2]).index("b"))
    assert panel.state["b"] == read
    assert panel.controls["b"].disabled and not panel.controls["c"].disabled


def test_feature_mode_takes_shape_and_pose_from_one_picture(panel, model, pictures):
    panel.set(background=0, shape=1, pose=2, texture=3, feature=True)
    assert panel.state["pose"] == 1 and panel.controls["pose"].disabled
    with torch.no_grad():
        expected = model.mix(background=pictures[:1], shape=pictures[1:2], texture=pictures[3:], mode="feature").image
    assert np.abs(decode(panel.png) - as_image(expected)).max() <= 1


@pytest.mark.parametrize(
    ("values", "keep"), [({"background": 1, "texture": 3}, "background"), ({"background": 0, "texture": 1}, "object")]
)
def test_stitching_keeps_what_the_mix_shares_with_the_shape(panel, model, pictures, values, keep):
    panel.set(shape=1, feature=True, stitch=True, **values)
    with torch.no_grad():
        stages = model.mix(
            background=pictures[values["background"]], shape=pictures[1], texture=pictures[values["texture"]], mode="feature"
        )
        expected = stitch(stages, pictures[1:2], keep)
    assert np.abs(decode(panel.png) - as_image(expected)).max() <= 1


def test_stitching_a_mix_of_one_picture_keeps_all_of_it(panel, pictures):
    panel.set(background=2, shape=2, texture=2, feature=True, stitch=True)
    assert np.abs(decode(panel.png) - as_image(pictures[2:3])).max() <= 1


def test_upload_takes_the_last_place(panel, model):
    own = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    panel.set(texture=4)
    before = panel.png, panel.thumbnails[-1].value
    panel.upload(file(own, "JPEG"))
    assert panel.error == "" and panel.png != before[0] and panel.thumbnails[-1].value != before[1]


def test_upload_that_is_no_picture_is_one_line_and_changes_nothing(panel):
    before = panel.png
    panel.upload(b"hello")
    assert "not an image" in panel.error and "\n" not in panel.error and panel.png == before
    panel.set(background=1)
    assert panel.error == ""


def test_shuffle_and_reset(panel):
    first = panel.png
    panel.shuffle()
    assert all(0 <= panel.state[factor] < 4 for factor in FACTORS)
    panel.reset()
    assert panel.png == first


def test_code_mode_alone_has_no_feature_mode(pictures):
    torch.manual_seed(0)
    model = CodeMode(PRESETS["mixnmatch_code"]["smoke"].method).eval()
    assert "feature" not in mixnmatch_panel(model, pictures).controls
    with pytest.raises(ValueError, match="mode must be code: the model has no other, got 'feature'"):
        mixnmatch_panel(model, pictures, mode="feature")


@pytest.mark.parametrize(("n", "message"), [(0, "pictures must be 1 … 7, got 0"), (8, "got 8")])
def test_wrong_number_of_pictures_is_named(model, pictures, n, message):
    with pytest.raises(ValueError, match=message):
        mixnmatch_panel(model, pictures[:1].expand(n, -1, -1, -1))


def test_model_in_training_mode_is_refused(pictures):
    with pytest.raises(ValueError, match="eval"):
        mixnmatch_panel(CodeMode(PRESETS["mixnmatch_code"]["smoke"].method), pictures)
