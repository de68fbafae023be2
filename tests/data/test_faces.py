import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as TF

from tutorial_lib.data import faces as module
from tutorial_lib.data.faces import (
    EXPRESSIONS,
    GAZES,
    HELD_OUT,
    ILLUMINATIONS,
    NUISANCE,
    PEOPLE,
    TRAINING,
    PaperFaces,
    Scene,
    render,
    sample_scene,
)

CAST = TRAINING + HELD_OUT
SCREAM, SQUINT, SURPRISE = 1, 2, 3
FRONTAL, LEFT, RIGHT, TOP, BELOW = range(5)
PLAIN = (1, 5, 21)  # neither glasses nor beard nor freckles


@pytest.fixture(scope="module")
def scene() -> Scene:
    return sample_scene(seed=5, indices=range(12), identities="all")


def of(identities, **factors: float) -> Scene:
    """Neutral faces that look straight ahead in frontal light, in the middle of the picture; some factors set."""
    n = len(identities)
    values = {"expression": 0, "strength": 0.0, "illumination": FRONTAL, "gaze": 1} | factors
    labels = {name: torch.full((n,), value) for name, value in values.items()}
    return Scene(torch.tensor(identities), **labels, nuisance=torch.zeros(n, 4), backdrop=torch.zeros(n, 2))


def nudged(scene: Scene, **components: float) -> Scene:
    nuisance = scene.nuisance.clone()
    for name, value in components.items():
        nuisance[:, NUISANCE.index(name)] = value
    return scene.replace(nuisance=nuisance)


def change(one: Scene, two: Scene, size: int = 64) -> torch.Tensor:
    """The largest difference over the colours of each pixel, (B, size, size)."""
    return (render(one, size)["image"] - render(two, size)["image"]).abs().amax(1)


# ---- which picture


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 5))
def test_picture_is_the_same_whatever_the_batch(order, alone):
    faces = PaperFaces(size=32, length=6, seed=2)
    batch = faces.batch(order)
    for name, value in faces.batch([alone]).items():
        assert torch.equal(batch[name][order.index(alone)], value[0]), name


def test_item_is_a_row_of_the_batch_without_its_axis():
    faces = PaperFaces(size=32, length=4)
    batch, item = faces.batch(range(4)), faces[3]
    assert item.keys() == batch.keys()
    assert all(torch.equal(item[name], batch[name][3]) for name in batch)


def test_seeds_give_different_pictures():
    one, other = (PaperFaces(size=32, length=8, seed=seed).batch(range(8)) for seed in (0, 1))
    assert ((one["image"] - other["image"]).abs().mean((1, 2, 3)) > 0.03).all()


def test_batch_has_the_promised_shapes_and_ranges():
    batch = PaperFaces(size=48, length=40, identities="all").batch(range(40))
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "image": (40, 3, 48, 48), "identity": (40,), "expression": (40,), "strength": (40,), "illumination": (40,),
        "gaze": (40,), "nuisance": (40, 4),
    }  # fmt: skip
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1  # NaN fails too


def test_labels_are_int64():
    batch = PaperFaces(size=32, length=2).batch(range(2))
    assert {batch[name].dtype for name in ("identity", "expression", "illumination", "gaze")} == {torch.int64}


def test_data_loader_fetches_whole_batches():
    faces = PaperFaces(size=32, length=10)
    batches = list(DataLoader(faces, batch_size=4, collate_fn=PaperFaces.collate))
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    assert torch.equal(batches[1]["image"], faces.batch(range(4, 8))["image"])


def test_stream_is_every_picture_in_order():
    faces = PaperFaces(size=32, length=10)
    streamed = torch.cat([batch["nuisance"] for batch in faces.stream(4, start=1)])
    assert torch.equal(streamed, faces.batch(range(1, 10))["nuisance"])


# ---- factors


def test_held_out_people_are_unknown_where_they_are_anonymous():
    named, anonymous = (PaperFaces(size=32, length=60, identities="all", anonymous=a).batch(range(60)) for a in (False, True))
    strangers = named["identity"] >= TRAINING
    assert 0 < strangers.sum() < 60
    assert (anonymous["identity"][strangers] == -1).all()
    assert torch.equal(anonymous["identity"][~strangers], named["identity"][~strangers])
    crowd = PaperFaces(size=32, length=60, identities="many", anonymous=True).batch(range(60))
    assert (crowd["identity"] >= 0).all() and (crowd["identity"] >= 48).any(), "the crowd is trained on"
    assert torch.equal(anonymous["image"], named["image"])


@pytest.mark.parametrize(
    ("identities", "people"),
    [
        ("train", range(TRAINING)),
        ("held_out", range(TRAINING, CAST)),
        ("all", range(CAST)),
        ("many", [*range(TRAINING), *range(CAST, PEOPLE)]),
    ],
)
def test_identities_are_the_ones_asked_for(identities, people):
    assert sample_scene(0, range(4000), identities=identities).identity.unique().tolist() == list(people)


@pytest.mark.parametrize(
    ("one", "other"),
    [("identity", "expression"), ("identity", "illumination"), ("expression", "illumination"), ("expression", "gaze")],
)
def test_labels_are_uniform_and_independent(one, other):
    scene = sample_scene(0, range(20_000))
    a, b = getattr(scene, one), getattr(scene, other)
    pairs = torch.bincount(a * int(b.max() + 1) + b)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("weakest", [0.0, 0.2, 0.7])
def test_strength_is_uniform_from_the_weakest_to_one(weakest):
    strength = sample_scene(0, range(4000), weakest=weakest).strength
    assert stats.kstest(strength.numpy(), "uniform", (weakest, 1 - weakest)).pvalue > 1e-4


# ---- identity


def test_all_people_differ():
    pictures = render(of(range(PEOPLE)))["image"].flatten(1)
    apart = torch.cdist(pictures, pictures, p=1) / pictures.shape[1]
    apart = apart.add(torch.eye(PEOPLE))
    assert apart[:CAST, :CAST].min() > 0.03
    assert apart.min() > 0.01


def test_crowd_has_no_likeness_of_a_stranger():
    """Nobody in it has the hair of a held-out person in its colour, so that strangers stay strangers."""
    strangers = {person[:2] for person in module._CAST[TRAINING:]}
    crowd = module._crowd()
    assert len(crowd) == PEOPLE - CAST
    assert not strangers & {person[:2] for person in crowd}


def test_faces_are_the_same_beside_the_crowd():
    alone, beside = (render(of(people))["image"] for people in ([3, 45], [3, 45, PEOPLE - 1]))
    assert torch.equal(alone, beside[:2])


def test_people_of_one_hair_style_have_faces_of_their_own():
    """No two who wear their hair alike could be a recolouring of each other: their faces are measured differently."""
    measures = torch.stack([m.argsort().argsort().double() / CAST for m in module._measures().values()], 1)
    apart = torch.cdist(measures, measures, p=1) / measures.shape[1]
    style = [person[0] for person in module._CAST]
    alike = [apart[i, j] for i in range(CAST) for j in range(i) if style[i] == style[j]]
    assert min(alike) > 0.15


# ---- the picture


def test_same_scene_at_every_size(scene):
    fine, coarse, small = (render(scene, size)["image"] for size in (256, 64, 32))
    for picture, factor, tolerance in ((coarse, 4, 0.02), (small, 8, 0.03)):
        assert (F.avg_pool2d(fine, factor) - picture).abs().mean() / 2 < tolerance


def test_features_are_drawn_whole(scene, monkeypatch):
    """Only the rows that a feature can lie in are worked on; all rows give the same picture, even at the extremes."""
    extreme = [
        nudged(of(range(CAST), expression=e, strength=1.0), y=y, roll=r, scale=y)
        for e in (SCREAM, SQUINT, SURPRISE)
        for y in (-1, 1)
        for r in (-1, 1)
    ]
    some = [render(s, 32)["image"] for s in extreme]
    monkeypatch.setattr(module, "_rows", lambda picture, top, bottom: slice(0, picture.shape[-1]))
    for one, scene in zip(some, extreme, strict=True):
        torch.testing.assert_close(render(scene, 32)["image"], one, atol=1e-6, rtol=0)


def test_backdrop_changes_wall_and_clothes_and_not_the_face(scene):
    other = scene.replace(backdrop=(scene.backdrop + 0.4) % 1)
    changed = change(scene, other)
    assert (changed[:, :4].amax((1, 2)) > 0.02).all()
    assert changed[:, 26:44, 26:38].max() == 0


# ---- expression


@pytest.mark.parametrize("expression", range(1, 4))
def test_strength_nought_is_the_neutral_face(scene, expression):
    still = scene.replace(expression=torch.full_like(scene.expression, expression), strength=torch.zeros(len(scene)))
    assert torch.equal(render(still)["image"], render(scene.replace(expression=torch.zeros_like(scene.expression)))["image"])


def test_strength_of_a_neutral_face_changes_nothing(scene):
    neutral = scene.replace(expression=torch.zeros_like(scene.expression))
    assert change(neutral, neutral.replace(strength=1 - neutral.strength)).max() == 0


@pytest.mark.parametrize("expression", [SCREAM, SQUINT, SURPRISE])
def test_strength_leads_away_from_the_neutral_face(expression):
    people = range(0, CAST, 3)
    still = render(of(people), 96)["image"]
    away = [
        (render(of(people, expression=expression, strength=strength), 96)["image"] - still).abs().mean((1, 2, 3))
        for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert (torch.stack(away).diff(dim=0) > 0).all()


def open_eyes(people, expression: int, strength: float) -> torch.Tensor:
    """Pixels in which a pupil is ever seen: those that change with the gaze, as far as the lids are open."""
    scene = of(people, expression=expression, strength=strength)
    left, right = (scene.replace(gaze=torch.full_like(scene.gaze, gaze)) for gaze in (0, 2))
    return (change(left, right, 128) > 0.05).sum((1, 2))


@pytest.mark.parametrize(("expression", "sign"), [(SQUINT, -1), (SURPRISE, 1)])
def test_squint_closes_and_surprise_opens_the_eyes(expression, sign):
    areas = torch.stack([open_eyes(PLAIN, expression, strength) for strength in (0.0, 0.33, 0.67, 1.0)])
    assert (sign * areas.diff(dim=0) > 0).all()


@pytest.mark.parametrize("expression", [SCREAM, SURPRISE])
def test_mouth_opens_with_strength(expression):
    def dark(strength: float) -> torch.Tensor:
        picture = render(of((5, 18, 23), expression=expression, strength=strength), 128)["image"]
        return (picture[:, :, 82:116, 44:84].amax(1) < -0.2).sum((1, 2))  # of fair people, below the nose

    areas = torch.stack([dark(strength) for strength in (0.25, 0.5, 0.75, 1.0)])
    assert (areas.diff(dim=0) > 0).all()


def test_expressions_leave_hair_and_shoulders_alone():
    still = of((2, 4, 18))
    for expression in (SCREAM, SQUINT, SURPRISE):
        changed = change(still, of((2, 4, 18), expression=expression, strength=1.0))
        assert changed[:, :8].max() < 0.02


# ---- gaze


def test_gaze_changes_pixels_of_the_eyes_only(scene):
    ahead, aside = (scene.replace(gaze=torch.full_like(scene.gaze, gaze)) for gaze in (1, 2))
    changed = change(ahead, aside) > 0
    assert (changed.sum((1, 2)) > 10).all()
    assert changed.double().mean((1, 2)).max() < 0.06
    assert not changed[:, :22].any() and not changed[:, 42:].any()


def test_pupils_go_where_the_gaze_goes():
    def middle(gaze: int) -> torch.Tensor:
        """Where the darkest pixels of the left eye lie, in pixels from the left."""
        eye = render(of((5, 18, 23), gaze=gaze), 128)["image"][:, :, 55:78, 36:58].amax(1)
        pupil = (eye < -0.6).double()
        return (pupil.sum(1) * torch.arange(eye.shape[-1])).sum(1) / pupil.sum((1, 2))

    left, straight, right = (middle(gaze) for gaze in range(3))
    assert (straight - left > 2).all() and (right - straight > 2).all()


# ---- light


def brightness(people, illumination: int, rows: slice, columns: slice) -> torch.Tensor:
    return render(of(people, illumination=illumination))["image"][:, :, rows, columns].mean((1, 2, 3))


@pytest.mark.parametrize(
    ("illumination", "bright", "dark"),
    [
        (LEFT, (slice(30, 44), slice(18, 26)), (slice(30, 44), slice(38, 46))),
        (RIGHT, (slice(30, 44), slice(38, 46)), (slice(30, 44), slice(18, 26))),
        (TOP, (slice(20, 24), slice(28, 36)), (slice(50, 54), slice(28, 36))),
        (BELOW, (slice(50, 54), slice(28, 36)), (slice(20, 24), slice(28, 36))),
    ],
)
def test_light_falls_on_the_side_it_comes_from(illumination, bright, dark):
    people = (4, 28, 41)  # nothing hangs into these faces
    lit, frontal = ([brightness(people, lamp, *window) for window in (bright, dark)] for lamp in (illumination, FRONTAL))
    assert (lit[0] - lit[1] > frontal[0] - frontal[1] + 0.1).all()


def test_light_is_no_tint():
    """A tint multiplies the whole face by one colour; form makes the ratio of two lights vary over it."""
    one, two = (render(of((4, 28), illumination=lamp))["image"][:, :, 24:52, 22:42] + 1.02 for lamp in (LEFT, RIGHT))
    assert (one / two).log().std((2, 3)).min() > 0.3


def test_contrast_is_what_sets_lights_apart():
    scenes = [of((4, 18), illumination=lamp) for lamp in (LEFT, RIGHT)]
    apart = [(render(scenes[0], 64, by)["image"] - render(scenes[1], 64, by)["image"]).abs().mean() for by in (0, 1, 2)]
    assert apart[0] == 0 and apart[2] > 1.3 * apart[1] > 0
    data = PaperFaces(size=32, length=4, contrast=2.0)
    torch.testing.assert_close(data.batch([1])["image"], render(data.scenes([1]), 32, 2.0)["image"])


def test_light_leaves_the_wall_alone():
    scene = of((4, 18, 39))
    for illumination in range(1, 5):
        lit = scene.replace(illumination=torch.full_like(scene.illumination, illumination))
        assert change(scene, lit)[:, :60, :5].max() == 0


# ---- nuisance


@pytest.mark.parametrize(("name", "axis"), [("x", -1), ("y", -2)])
def test_shift_moves_the_face(name, axis):
    here, there = (render(s, 160)["image"] for s in (of(PLAIN), nudged(of(PLAIN), **{name: 1.0})))
    # A twentieth of half a picture of 160: 4 pixels.
    window = (..., slice(60, 104), slice(60, 100))
    torch.testing.assert_close(there[window], here.roll(4, axis)[window], atol=2e-3, rtol=0)


def test_roll_turns_the_face_clockwise():
    upright, turned = (render(s, 160)["image"] for s in (of(PLAIN), nudged(of(PLAIN), roll=1.0)))
    window = (..., slice(50, 110), slice(60, 100))
    by_hand = TF.rotate(upright, -5.0, interpolation=TF.InterpolationMode.BILINEAR)
    error, motion = ((x - turned)[window].abs().mean() for x in (by_hand, upright))
    assert error < 0.5 * motion


def test_scale_enlarges_the_face():
    normal, large = (render(s, 160)["image"] for s in (of(PLAIN), nudged(of(PLAIN), scale=1.0)))
    by_hand = TF.center_crop(TF.resize(normal, [168, 168], antialias=False), [160, 160])
    window = (..., slice(50, 110), slice(60, 100))
    error, motion = ((x - large)[window].abs().mean() for x in (by_hand, normal))
    assert error < 0.5 * motion


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size .*16"),
        ({"size": 300}, "size .*300"),
        ({"length": 0}, "length .*0"),
        ({"identities": "both"}, "identities .*train.*held_out.*all.*both"),
        ({"weakest": 1.5}, "weakest .*1.5"),
        ({"weakest": -0.1}, "weakest .*-0.1"),
        ({"contrast": -1.0}, "contrast .*-1.0"),
    ],
)
def test_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        PaperFaces(**{"length": 10} | options)


@pytest.mark.parametrize("index", [10, -1])
def test_index_outside_the_set_is_named(index):
    with pytest.raises(IndexError, match=str(index)):
        PaperFaces(size=32, length=10)[index]


@pytest.mark.parametrize(
    ("factor", "value"),
    [
        ("identity", PEOPLE),
        ("identity", -1),
        ("expression", len(EXPRESSIONS)),
        ("illumination", len(ILLUMINATIONS)),
        ("gaze", len(GAZES)),
        ("strength", 1.5),
        ("strength", -0.5),
        ("strength", float("nan")),
        ("nuisance", 2.0),
        ("backdrop", -1.0),
    ],
)
def test_factor_that_does_not_exist_is_named(scene, factor, value):
    with pytest.raises(ValueError, match=f"{factor} must lie in .*{value:g}"):
        render(scene.replace(**{factor: torch.full_like(getattr(scene, factor), value)}))


def test_partner_is_another_picture_of_the_person_in_the_same_light_and_with_the_same_gaze_and_frame_a_moment_later():
    data = PaperFaces(size=32, length=40, seed=3, identities="many", partner=True)
    alone, scenes = PaperFaces(size=32, length=40, seed=3, identities="many"), data.scenes(range(40))
    batch = data.batch(range(40))
    assert torch.equal(batch["image"], alone.batch(range(40))["image"])
    other = PaperFaces(size=32, length=80, seed=3, identities="many").scenes(range(40, 80))
    kept = {name: getattr(scenes, name) for name in ("identity", "illumination", "gaze")}
    assert torch.equal(batch["partner"], render(other.replace(**kept), 32)["image"])
    assert not torch.equal(other.expression, scenes.expression) and not torch.equal(other.nuisance, scenes.nuisance)
    later = scenes.replace(expression=other.expression, strength=other.strength)
    assert torch.equal(batch["frame"], render(later, 32)["image"])
    for name in ("partner", "frame"):
        assert torch.equal(batch[name][[7, 3]], data.batch([7, 3])[name])
