import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from tutorial_lib.data.birds import (
    BACKGROUNDS,
    KEYPOINTS,
    PAPER,
    POSE,
    SHAPES,
    STYLES,
    TEXTURES,
    PaperBirds,
    Scene,
    clip,
    render,
    sample_scene,
)

FLIP, X, Y, SCALE, ROTATION, HEAD, WING = range(7)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return sample_scene(seed=5, indices=range(12), tied=False)


def posed(**components: float) -> Scene:
    """One of each shape, in the middle of the picture, with some components of pose set."""
    pose = torch.zeros(len(SHAPES), 1, len(POSE))
    for name, value in components.items():
        pose[..., POSE.index(name)] = value
    return sample_scene(seed=1, indices=range(len(SHAPES))).replace(shape=torch.arange(len(SHAPES))[:, None], pose=pose)


def without_birds(scene: Scene) -> Scene:
    return scene.replace(room=torch.tensor([9.0, 9.0, 1.0]).expand(len(scene), 1, -1))  # far outside the picture


# ---- which picture


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 5))
def test_picture_is_the_same_whatever_the_batch(order, alone):
    birds = PaperBirds(size=32, length=6, seed=2)
    batch = birds.batch(order)
    for name, value in birds.batch([alone]).items():
        assert torch.equal(batch[name][order.index(alone)], value[0]), name


def test_item_is_a_row_of_the_batch_without_its_axis():
    birds = PaperBirds(size=32, length=4)
    batch, item = birds.batch(range(4)), birds[3]
    assert item.keys() == batch.keys()
    assert all(torch.equal(item[name].squeeze(0) if name == "box" else item[name], batch[name][3]) for name in batch)


def test_seeds_give_different_pictures():
    one, other = (PaperBirds(size=32, length=8, seed=seed).batch(range(8)) for seed in (0, 1))
    assert ((one["image"] - other["image"]).abs().mean((1, 2, 3)) > 0.05).all()


def test_batch_has_the_promised_shapes_and_ranges():
    batch = PaperBirds(size=48, length=5).batch(range(5))
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "image": (5, 3, 48, 48), "mask": (5, 1, 48, 48), "box": (5, 4), "keypoints": (5, 10, 2), "visible": (5, 10),
        "background": (5,), "shape": (5,), "texture": (5,), "pose": (5, 7),
    }  # fmt: skip
    assert isinstance(batch["box"], tv_tensors.BoundingBoxes) and batch["box"].canvas_size == (48, 48)
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1
    assert batch["mask"].min() >= 0 and batch["mask"].max() <= 1


def test_data_loader_fetches_whole_batches():
    birds = PaperBirds(size=32, length=10)
    batches = list(DataLoader(birds, batch_size=4, collate_fn=PaperBirds.collate))
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    assert torch.equal(batches[1]["image"], birds.batch(range(4, 8))["image"])


def test_stream_is_every_picture_in_order():
    birds = PaperBirds(size=32, length=10)
    streamed = torch.cat([batch["pose"] for batch in birds.stream(4, start=1)])
    assert torch.equal(streamed, birds.batch(range(1, 10))["pose"])


# ---- factors


def test_tied_textures_belong_to_their_shape():
    scene = sample_scene(0, range(2000))
    assert torch.equal(scene.texture // 4, scene.shape)
    assert len(scene.texture.unique()) == len(TEXTURES)


def test_untied_textures_cover_every_shape_evenly():
    scene = sample_scene(0, range(6000), tied=False)
    pairs = torch.bincount((scene.shape * len(TEXTURES) + scene.texture).flatten(), minlength=144)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_correlation_is_how_often_the_background_is_the_textures_favourite(correlation):
    scene = sample_scene(0, range(6000), correlation=correlation)
    share = (scene.background == scene.texture[:, 0] % 10).double().mean()
    assert share == pytest.approx(correlation + (1 - correlation) / 10, abs=0.02)


def test_pose_is_a_coin_and_six_uniform_numbers():
    pose = sample_scene(0, range(4000)).pose[:, 0]
    assert stats.binomtest(int(pose[:, FLIP].sum()), 4000).pvalue > 1e-4
    assert all(stats.kstest(pose[:, i].numpy(), "uniform", (-1, 2)).pvalue > 1e-4 for i in range(1, 7))


# ---- the picture


def test_same_scene_at_every_size(scene):
    fine, coarse, small = (render(scene, size) for size in (256, 64, 32))
    for batch, factor, tolerance in ((coarse, 4, 0.02), (small, 8, 0.03)):
        for name, scale in (("image", 2), ("mask", 1)):
            assert (F.avg_pool2d(fine[name], factor) - batch[name]).abs().mean() / scale < tolerance
        torch.testing.assert_close(fine["keypoints"] / factor, batch["keypoints"])
        assert (fine["box"] / factor - batch["box"]).abs().max() <= 1.5


def test_mask_is_the_alpha_of_the_composition(scene):
    other = scene.replace(background=(scene.background + 3) % len(BACKGROUNDS))
    (one, mask), (two, mask_again) = ((batch["image"], batch["mask"]) for batch in (render(scene), render(other)))
    assert torch.equal(mask, mask_again)
    grounds = [render(without_birds(s))["image"] for s in (scene, other)]
    torch.testing.assert_close(one - two, (grounds[0] - grounds[1]) * (1 - mask), atol=1e-5, rtol=0)
    foregrounds = [(x - ground * (1 - mask)) / mask.clamp(min=0.05) for x, ground in zip((one, two), grounds, strict=True)]
    seen = (mask > 0.05).expand_as(one)
    torch.testing.assert_close(foregrounds[0][seen], foregrounds[1][seen], atol=1e-4, rtol=0)
    assert foregrounds[0][seen].abs().max() <= 1 + 1e-4


def test_texture_changes_the_bird_and_nothing_else(scene):
    other = scene.replace(texture=(scene.texture + 5) % len(TEXTURES))
    one, two = render(scene), render(other)
    assert torch.equal(one["mask"], two["mask"])
    change = (one["image"] - two["image"]).abs().amax(1, keepdim=True)
    assert change[one["mask"] == 0].max() == 0
    assert ((change > 0.1) & (one["mask"] == 1)).sum((1, 2, 3)).min() > 50


def test_backgrounds_all_differ():
    scene = sample_scene(0, [0] * len(BACKGROUNDS)).replace(background=torch.arange(len(BACKGROUNDS)))
    pictures = render(without_birds(scene))["image"].flatten(1)
    assert torch.cdist(pictures, pictures, p=1).add(torch.eye(10) * 1e9).min() / pictures.shape[1] > 0.04


def test_box_encloses_what_is_more_than_half_covered(scene):
    batch = render(scene, 96)
    for mask, box in zip(batch["mask"].numpy(), batch["box"], strict=True):
        rows, columns = np.nonzero(mask[0] > 0.5)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_legs_belong_to_the_mask():
    mask = render(posed()[[SHAPES.index("duck")]], 256)["mask"][0, 0]
    column, row = (int((0.7 * value + 1) / 2 * 256) for value in (-0.14, 0.75))  # the middle of a leg
    assert mask[row, column] == 1


def test_picture_without_a_bird_has_an_empty_box(scene):
    batch = render(without_birds(scene))
    assert batch["mask"].max() == 0
    assert not batch["box"].any() and not batch["visible"].any()


def test_birds_fill_about_a_fifth_to_a_third_of_the_picture():
    area = PaperBirds(length=60).batch(range(60))["mask"].mean((1, 2, 3))
    assert 0.15 < area.mean() < 0.35
    assert area.min() > 0.05 and area.max() < 0.5


# ---- pose


def test_keypoints_lie_on_the_bird():
    batch = render(posed(), 128)
    near = F.max_pool2d(batch["mask"], 9, 1, 4)  # within four pixels of 128
    at = batch["keypoints"] / 128 * 2 - 1
    on_paper = F.grid_sample(near, at[:, :, None], align_corners=False)[:, 0, :, 0] > 0.5
    off = [(SHAPES[i], KEYPOINTS[k]) for i, k in (~on_paper).nonzero().tolist()]
    assert set(off) <= {("swallow", "tail")}  # between the two points of its fork


def test_flip_mirrors_the_bird_about_its_own_middle():
    right, left = (render(posed(flip=flip)) for flip in (0, 1))
    torch.testing.assert_close(left["mask"], right["mask"].flip(-1), atol=1e-4, rtol=0)
    mirrored = torch.stack([64 - right["keypoints"][..., 0], right["keypoints"][..., 1]], -1)
    torch.testing.assert_close(left["keypoints"], mirrored)


@pytest.mark.parametrize(("name", "axis"), [("x", 0), ("y", 1)])
def test_shift_moves_all_keypoints_alike(name, axis):
    moved = render(posed(**{name: 0.5}))["keypoints"] - render(posed())["keypoints"]
    expected = torch.zeros(2)
    expected[axis] = 0.5 * 0.2 * 32  # a fifth of half a picture of 64
    torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-4, rtol=0)


def test_scale_spreads_keypoints_about_the_middle():
    small, large = (render(posed(scale=scale))["keypoints"] - 32 for scale in (-1, 1))
    torch.testing.assert_close(large, small * 0.82 / 0.58)


def test_rotation_turns_keypoints_about_the_middle_clockwise():
    upright, turned = (torch.view_as_complex(render(posed(rotation=r))["keypoints"] - 32) for r in (0, 1))
    quarter = torch.polar(torch.ones(()), torch.deg2rad(torch.tensor(24.0)))  # y points down: counts as clockwise
    torch.testing.assert_close(turned, upright * quarter, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("joint", "moving"), [("head", ("beak", "eye", "crown", "nape")), ("wing", ("wing",))])
def test_joint_moves_its_own_keypoints_rigidly(joint, moving):
    still, bent = (render(posed(**{joint: value}))["keypoints"] for value in (0, 1))
    moves = torch.tensor([name in moving for name in KEYPOINTS])
    torch.testing.assert_close(bent[:, ~moves], still[:, ~moves])
    assert (bent - still)[:, moves].norm(dim=-1).min() > 1
    torch.testing.assert_close(torch.cdist(bent[:, moves], bent[:, moves]), torch.cdist(still[:, moves], still[:, moves]))


# ---- several birds


@pytest.mark.parametrize("n_birds", [2, 4])
def test_several_birds_have_an_axis_and_one_mask(n_birds):
    scene = sample_scene(3, range(5), n_birds=n_birds)
    batch = render(scene)
    assert batch["shape"].shape == batch["texture"].shape == (5, n_birds)
    assert batch["keypoints"].shape == (5, n_birds, 10, 2) and batch["pose"].shape == (5, n_birds, 7)
    singles = []
    for k in range(n_birds):
        only = {name: getattr(scene, name)[:, k : k + 1] for name in ("shape", "texture", "pose", "room")}
        singles.append(render(scene.replace(**only)))
    uncovered = torch.stack([1 - single["mask"] for single in singles]).prod(0)
    torch.testing.assert_close(batch["mask"], 1 - uncovered)
    torch.testing.assert_close(batch["keypoints"], torch.stack([single["keypoints"] for single in singles], 1))


def test_later_bird_hides_the_keypoints_behind_it():
    scene = sample_scene(3, range(6), n_birds=2)
    twice = {name: getattr(scene, name)[:, :1].expand_as(getattr(scene, name)) for name in ("shape", "texture", "pose")}
    visible = render(scene.replace(**twice, room=torch.tensor([0.0, 0.0, 1.0]).expand(6, 2, -1)))["visible"]
    inside = [KEYPOINTS.index(name) for name in ("eye", "shoulder")]
    assert visible[:, 1, inside].all()
    assert not visible[:, 0, inside].any()


def test_birds_apart_hide_nothing_of_each_other():
    scene = sample_scene(3, range(6), n_birds=2)
    pose = torch.zeros_like(scene.pose)
    pose[..., SCALE] = -1
    assert render(scene.replace(pose=pose))["visible"].all()


# ---- another window on the scene


def test_camera_moves_the_whole_picture(scene):
    here, there = (render(s) for s in (scene, scene.replace(camera=torch.tensor([0.5, -0.25]).expand(len(scene), 2))))
    # Half of half a picture to the right, a quarter up: 16 and 8 of 64 pixels.
    for name in ("image", "mask"):
        torch.testing.assert_close(there[name][..., 8:, :48], here[name][..., :56, 16:], atol=2e-3, rtol=0)
    torch.testing.assert_close(there["keypoints"], here["keypoints"] + torch.tensor([-16.0, 8.0]), atol=1e-4, rtol=0)


def test_wandering_adds_a_second_window_and_changes_nothing_else():
    still, wandering = (PaperBirds(size=48, length=40, wander=wander).batch(range(40)) for wander in (None, 1.0))
    assert "scene" not in still
    assert all(torch.equal(still[name], wandering[name]) for name in still)
    assert wandering["scene"].shape == still["image"].shape
    assert isinstance(wandering["scene_box"], tv_tensors.BoundingBoxes)


def test_wandering_window_is_the_same_whatever_the_batch():
    birds = PaperBirds(size=32, length=6, wander=0.7)
    batch = birds.batch([4, 0, 2])
    assert all(torch.equal(birds.batch([2])[name][0], batch[name][2]) for name in ("scene", "scene_box"))


# ---- styles


def at_point(batch: dict, x: float, y: float) -> torch.Tensor:
    """Pixels (B, 3) at a point of a bird drawn by `posed()`, in the bird's own coordinates."""
    column, row = (int((0.7 * value + 1) / 2 * batch["image"].shape[-1]) for value in (x, y))
    return batch["image"][:, :, row, column]


@pytest.mark.parametrize("n_birds", [1, 3])
@pytest.mark.parametrize("style", STYLES[1:])
def test_style_changes_the_image_and_nothing_else(style, n_birds):
    scene = sample_scene(4, range(6), n_birds=n_birds)
    paper, styled = render(scene), render(scene, style=style)
    assert [name for name in paper if not torch.equal(paper[name], styled[name])] == ["image"]


def test_sketch_is_drawn_on_white_paper(scene):
    batch = render(scene, 96, style="sketch")
    assert (batch["image"][(batch["mask"] == 0).expand_as(batch["image"])] == 1).all()


def test_sketch_knows_neither_texture_nor_background(scene):
    other = scene.replace(texture=(scene.texture + 5) % 24, background=(scene.background + 3) % 10)
    assert torch.equal(*(render(s, style="sketch")["image"] for s in (scene, other)))


@pytest.mark.parametrize("size", [32, 64, 256])
def test_sketch_has_a_dark_line_all_along_the_outline(scene, size):
    batch = render(scene, size, style="sketch")
    beside_paper = -F.max_pool2d(-batch["mask"], 3, 1, 1) < 0.3
    dark = batch["image"].mean(1, keepdim=True)[(batch["mask"] == 1) & beside_paper] < 0.5
    assert dark.float().mean() > 0.97


def test_sketch_leaves_paper_between_the_lines(scene):
    batch = render(scene, 256, style="sketch")
    assert (batch["image"].amin(1, keepdim=True)[batch["mask"] == 1] == 1).float().mean() > 0.6


def test_sketch_line_is_as_wide_at_every_size(scene):
    fine, coarse = (render(scene, size, style="sketch")["image"] for size in (256, 128))
    torch.testing.assert_close((1 - fine).mean((1, 2, 3)), (1 - coarse).mean((1, 2, 3)), rtol=0.05, atol=0)


def test_sketch_hides_the_line_behind_a_part():
    toucan = render(posed()[[SHAPES.index("toucan")]], 256, style="sketch")
    assert at_point(toucan, 0.365, 0.2).max() < 0  # the breast's outline
    assert (at_point(toucan, 0.06, -0.48) == 1).all()  # the same outline where the head lies over it


@pytest.mark.parametrize("style", STYLES)
def test_bird_in_front_is_drawn_as_if_alone(style):
    scene = sample_scene(3, range(6), n_birds=2)
    scene = scene.replace(room=torch.tensor([0.0, 0.0, 1.0]).expand(6, 2, -1))
    front = scene.replace(**{name: getattr(scene, name)[:, 1:] for name in ("shape", "texture", "pose", "room")})
    both, alone = render(scene, style=style), render(front, style=style)
    solid = (alone["mask"] == 1).expand_as(alone["image"])
    torch.testing.assert_close(both["image"][solid], alone["image"][solid])


def test_cartoon_stands_on_one_colour_of_its_background():
    scene = sample_scene(1, range(len(BACKGROUNDS))).replace(background=torch.arange(len(BACKGROUNDS)))
    cartoon, paper = render(scene, style="cartoon"), render(without_birds(scene))["image"].flatten(2)
    for image, mask, ground in zip(cartoon["image"].flatten(2), cartoon["mask"].flatten(1), paper, strict=True):
        around = image[:, mask == 0]
        assert (around == around[:, :1]).all()
        assert ((ground - around[:, :1]).abs().amax(0) < 1e-4).float().mean() > 0.1


def test_cartoon_has_no_marks():
    duck = posed()[[SHAPES.index("duck")]].replace(texture=torch.tensor([[TEXTURES.index("orange spots")]]))
    cream = torch.tensor([int(PAPER["cream"][i : i + 2], 16) for i in (1, 3, 5)])[:, None, None] / 127.5 - 1
    spots = {s: int(((render(duck, 128, style=s)["image"] - cream).abs().amax(1) < 0.02).sum()) for s in ("paper", "cartoon")}
    assert spots["paper"] > 50
    assert spots["cartoon"] == 0


def test_cartoon_is_flat():
    batch = render(posed(), 256, style="cartoon")
    image, inside = batch["image"], batch["mask"][..., 1:] == 1
    same = (image[..., 1:] == image[..., :-1]).all(1, keepdim=True)
    assert same[inside].float().mean() > 0.8


def test_cartoon_has_a_dark_line_all_along_the_outline(scene):
    batch = render(scene, 128, style="cartoon")
    beside_ground = -F.max_pool2d(-batch["mask"], 3, 1, 1) < 0.3
    dark = batch["image"].amax(1, keepdim=True)[(batch["mask"] == 1) & beside_ground] < 0
    assert dark.float().mean() > 0.97


# ---- clips


@pytest.mark.parametrize("reach", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("own", [-1.0, 1.0])
def test_clip_stays_in_the_range_of_poses(own, reach):
    scene = sample_scene(0, [0])
    pose = torch.full_like(scene.pose, own)
    pose[..., FLIP] = (own + 1) / 2
    moved = clip(scene.replace(pose=pose), 60, reach=reach).pose
    assert moved.abs().max() <= 1
    assert set(moved[..., FLIP].unique().tolist()) == {0, 1}


def test_clip_keeps_all_factors_but_pose(scene):
    frames = clip(scene[3:4], 5)
    assert len(frames) == 5 and frames.pose.shape == (5, 1, 7)
    for name in ("background", "ground", "shape", "texture", "room", "camera"):
        assert torch.equal(getattr(frames, name), getattr(scene[[3] * 5], name)), name
    assert torch.equal(frames.pose[..., SCALE], scene[[3] * 5].pose[..., SCALE])


def test_clip_moves_smoothly_and_closes(scene):
    pose = clip(scene[:1], 240, hops=2, reach=1.0).pose[:, 0, 1:]
    steps = (pose.roll(-1, 0) - pose).abs()  # the last one leads back to frame 0
    assert steps.max() < 2 * 2 * 2 * np.pi / 240  # a sine that swings four times in a clip is nowhere steeper


def test_clip_is_the_same_film_at_every_frame_rate(scene):
    torch.testing.assert_close(clip(scene[:1], 48).pose[::2], clip(scene[:1], 24).pose, atol=1e-5, rtol=0)


@pytest.mark.parametrize("flip", [0, 1])
def test_clip_turns_at_the_top_of_a_hop_in_the_middle_and_at_the_end(scene, flip):
    own = scene[:1].pose.clone()
    own[..., FLIP] = flip
    pose = clip(scene[:1].replace(pose=own), 48).pose[:, 0]
    turned = (pose[:, FLIP] != pose[:, FLIP].roll(1)).nonzero().flatten()
    assert turned.tolist() == [0, 24]
    assert pose[0, FLIP] == flip
    torch.testing.assert_close(pose[turned, Y], pose[:, Y].min().expand(2))  # y points down


def test_clip_moves_where_the_beak_points(scene):
    pose = clip(scene[:1], 48).pose[:, 0]
    step = pose.roll(-1, 0)[:, X] - pose[:, X]
    assert (step * (1 - 2 * pose[:, FLIP]) > 0).all()


def test_clip_moves_every_joint(scene):
    assert (clip(scene[:1], 48).pose[:, 0, [X, Y, ROTATION, HEAD, WING]].std(0) > 0.3).all()


# ---- bad input


@pytest.mark.parametrize("style", ["oil", "Sketch", None])
def test_unknown_style_is_named_with_the_options(scene, style):
    with pytest.raises(ValueError, match=f"{STYLES[0]}.*{STYLES[1]}.*{STYLES[2]}.*{style}"):
        render(scene, style=style)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, "frames .*1"),
        ({"frames": 8, "hops": 0}, "hops .*0"),
        ({"frames": 8, "reach": 1.5}, "reach .*1.5"),
        ({"frames": 8, "reach": -0.5}, "reach .*-0.5"),
    ],
)
def test_wrong_option_of_a_clip_is_named(scene, options, message):
    with pytest.raises(ValueError, match=message):
        clip(scene[:1], **options)


@pytest.mark.parametrize(("n_pictures", "n_birds"), [(2, 1), (0, 1), (1, 2)])
def test_clip_of_anything_but_one_bird_is_refused(n_pictures, n_birds):
    with pytest.raises(ValueError, match=f"one bird, got {n_pictures} with {n_birds}"):
        clip(sample_scene(0, range(n_pictures), n_birds=n_birds), 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size .*16"),
        ({"size": 300}, "size .*300"),
        ({"length": 0}, "length .*0"),
        ({"correlation": 2.0}, "correlation .*2.0"),
        ({"correlation": -0.1}, "correlation .*-0.1"),
        ({"wander": 1.5}, "wander .*1.5"),
        ({"n_birds": 9}, "n_birds .*9"),
        ({"n_birds": 0}, "n_birds .*0"),
    ],
)
def test_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        PaperBirds(**{"length": 10} | options)


@pytest.mark.parametrize("index", [10, -1])
def test_index_outside_the_set_is_named(index):
    with pytest.raises(IndexError, match=str(index)):
        PaperBirds(size=32, length=10)[index]


@pytest.mark.parametrize(("factor", "value"), [("background", 10), ("shape", 6), ("texture", 24), ("texture", -1)])
def test_factor_that_does_not_exist_is_named(scene, factor, value):
    with pytest.raises(ValueError, match=f"{factor} .*{value}"):
        render(scene.replace(**{factor: torch.full_like(getattr(scene, factor), value)}))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(0, 0.5, "flip must be 0 or 1"), (3, -8.0, r"must lie in \[-1, 1\], got -8"), (1, float("nan"), "got nan")],
)
def test_a_pose_out_of_range_is_named(scene, at, value, message):
    pose = scene.pose.clone()
    pose[0, 0, at] = value
    with pytest.raises(ValueError, match=f"pose: .*{message}"):
        render(scene.replace(pose=pose))


def test_small_birds_leave_nothing_beside_them():
    birds = PaperBirds(size=32, length=300, n_birds=4, seed=1)
    for batch in birds.stream(100):
        mask = batch["mask"][:, 0]
        streak = (mask > 0.02) & (mask < 0.2)
        assert not streak[:, :, :12].all(-1).any() and not streak[:, :, -12:].all(-1).any()
