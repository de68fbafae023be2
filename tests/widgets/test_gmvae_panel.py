from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.methods.gmvae import GMVAE
from tutorial_lib.studies.gmvae import REGIONS, hole
from tutorial_lib.training.presets import PRESETS
from tutorial_lib.widgets.gmvae import OWN, PRIOR, STRIP, gmvae_panel

SMOKE = PRESETS["gmvae"]["smoke"].method
DIRECTIONS = {"gaze": torch.tensor([0.0, 3.0, 0.0, 0.0]), "light x": torch.tensor([3.0, 0.0, -3.0, 0.0])}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return PaperFaces(size=32, length=4).batch(range(4))["image"]


@pytest.fixture(scope="module")
def model(pictures) -> GMVAE:
    torch.manual_seed(0)
    model = GMVAE(SMOKE)
    with torch.no_grad():
        for _ in range(20):  # so that BatchNorm knows its statistics, and codes show
            model.reconstruct(pictures)
        model.mixture.means.mul_(5)
    return model.eval()


@pytest.fixture
def panel(model, pictures):
    return gmvae_panel(model, pictures, DIRECTIONS)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data))).astype(int)


def assert_shows(data: bytes, picture: torch.Tensor) -> None:
    expected = ((picture[0].permute(1, 2, 0) + 1) * 127.5).detach().numpy()
    assert np.abs(decode(data) - expected).max() <= 1


def noise(seed: int, dim: int) -> torch.Tensor:
    return torch.randn(1, dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_picture_is_the_models_swap(panel, model, pictures):
    panel.set(label=1, rest=3)
    assert_shows(panel.png, model.swap(pictures[1:2], pictures[3:]))


@torch.no_grad()
def test_walk_stays_inside_the_class(panel, model):
    panel.set(label=PRIOR, c=7, way=5, walk=0.5, rest=PRIOR, z=11)
    z_s = model.mixture.place(0.5 * noise(5, SMOKE.z_s_dim), torch.tensor([7]))
    assert_shows(panel.png, model.decode(z_s, noise(11, SMOKE.z_u_dim)))


@torch.no_grad()
def test_walk_from_a_picture_goes_along_its_class(panel, model, pictures):
    panel.set(label=2, rest=0, way=3, walk=-1.0)
    label, codes = model.classify(pictures[2:3]), model.encode(pictures)
    assert panel.state["c"] == int(label) and panel.controls["c"].disabled
    step = model.mixture.place(-noise(3, SMOKE.z_s_dim), label) - model.mixture.means[label]
    assert_shows(panel.png, model.decode(codes.z_s[2:3] + step, codes.mu_u[:1]))
    panel.set(label=PRIOR)
    assert not panel.controls["c"].disabled


@torch.no_grad()
def test_directions_are_added_to_the_rest(panel, model, pictures):
    panel.set(label=0, rest=1, **{"gaze": 1.0, "light x": -0.5})
    codes = model.encode(pictures)
    z_u = codes.mu_u[1:2] + DIRECTIONS["gaze"] - 0.5 * DIRECTIONS["light x"]
    assert_shows(panel.png, model.decode(codes.z_s[:1], z_u))


@torch.no_grad()
def test_strip_shows_what_is_seen_and_what_is_made_of_it(panel, model, pictures):
    for region in REGIONS:
        panel.set(picture=2, region=region)
        mask = hole(region, 32)
        tiles = pictures[2:3], pictures[2:3].masked_fill(mask, 0), model.inpaint(pictures[2:3], mask)
        for caption, tile in zip(STRIP, tiles, strict=True):
            assert_shows(panel.strip[caption], tile)


@torch.no_grad()
def test_a_rectangle_of_ones_own_is_inpainted(panel, model, pictures):
    panel.set(picture=1, region=OWN, rows=(3, 20), columns=(8, 9))
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 3:20, 8:9] = True
    assert_shows(panel.strip["what is seen of it"], pictures[1:2].masked_fill(mask, 0))
    assert_shows(panel.strip["inpainted"], model.inpaint(pictures[1:2], mask))


def test_a_named_region_moves_the_rectangle_and_holds_it(panel):
    panel.set(region="bottom half")
    assert (panel.state["rows"], panel.state["columns"]) == ((16, 32), (0, 32))
    assert panel.controls["rows"].disabled and panel.controls["columns"].disabled
    panel.set(region=OWN)
    assert panel.state["rows"] == (16, 32) and not panel.controls["rows"].disabled


@torch.no_grad()
def test_an_empty_rectangle_leaves_the_picture_whole(panel, pictures):
    panel.set(picture=2, region=OWN, rows=(5, 5))
    assert panel.error == ""
    assert_shows(panel.strip["inpainted"], pictures[2:3])


@torch.no_grad()
def test_upload_takes_the_last_place_everywhere(panel, model, pictures):
    panel.set(label=4, picture=4)
    before = panel.png, panel.strip["inpainted"]
    written = BytesIO()
    Image.fromarray(decode(panel.strip["the picture"]).astype(np.uint8)[:, ::-1]).save(written, "PNG")
    panel.upload(written.getvalue())
    assert panel.error == "" and panel.png != before[0] and panel.strip["inpainted"] != before[1]
    flipped = (((pictures[:1].flip(3) + 1) * 127.5).round() / 127.5) - 1
    assert_shows(panel.strip["inpainted"], model.inpaint(flipped, hole(panel.state["region"], 32)))


def test_dragging_does_not_inpaint_again(panel, model, monkeypatch):
    panel.set(picture=1, region="eyes")
    monkeypatch.setattr(model, "inpaint", lambda *_: pytest.fail("inpainted again"))
    panel.set(walk=0.5)
    assert panel.error == ""


def test_shuffle_and_reset(panel):
    first = panel.png
    panel.shuffle()
    assert all(0 <= panel.state[name] < 4 for name in ("label", "rest"))
    panel.reset()
    assert panel.png == first


def test_panel_without_directions_has_no_sliders_of_them(model, pictures):
    names = {"label", "c", "way", "walk", "rest", "z", "picture", "region", "rows", "columns"}
    assert set(gmvae_panel(model, pictures).controls) == names


@pytest.mark.parametrize(("n", "message"), [(0, "pictures must be 1 … 7, got 0"), (8, "got 8")])
def test_wrong_number_of_pictures_is_named(model, pictures, n, message):
    with pytest.raises(ValueError, match=message):
        gmvae_panel(model, pictures[:1].expand(n, -1, -1, -1))


def test_direction_of_another_size_is_named(model, pictures):
    with pytest.raises(ValueError, match=r"direction 'gaze' must be \(4,\), got \(7,\)"):
        gmvae_panel(model, pictures, {"gaze": torch.zeros(7)})


def test_model_in_training_mode_is_refused(pictures):
    with pytest.raises(ValueError, match="eval"):
        gmvae_panel(GMVAE(SMOKE), pictures)
