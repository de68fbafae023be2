"""Real pictures sorted without labels: the pieces, the stage between two of FineGAN's, and what the next one learns from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods import finegan
from tutorial_lib.methods.clusters import ObjectClusters, families, in_order, k_means, segmentation_loss
from tutorial_lib.methods.finegan import (
    FineGAN,
    FineGANClusters,
    Stages,
    child_to_parent,
    judge_loss,
    palette_loss,
)
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import train
from tutorial_lib.training.presets import PRESETS, build

STAGE = PRESETS["finegan_clusters"]["smoke"].method
SORTED = replace(
    PRESETS["finegan"]["smoke"].method, background_first=0, segmenter_widths=(4, 8), real_information=0.5, child_judged=True
)
RED, GREEN, BLUE, WHITE = ((1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0), (1.0, 1.0, 1.0))


def painted(colours: list[tuple[float, float, float]], size: int = 32) -> torch.Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, size, size).clone()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return PaperBirds(size=32, length=4).batch(range(4))


@pytest.fixture
def model() -> FineGAN:
    torch.manual_seed(0)
    model = FineGAN(SORTED)
    model.clusters.centres.copy_(torch.rand_like(model.clusters.centres))
    model.clusters.segmenter.mask[0].bias.data.fill_(5.0)  # it finds objects everywhere
    return model.train()


# ---- colours and clusters


def test_colours_are_roots_of_shares_inside_the_mask():
    clusters = ObjectClusters(2, (4, 8), bins=2)
    image = painted([RED])
    image[:, :, :8] = torch.tensor(BLUE)[:, None, None]  # a quarter of the picture
    image[:, :, 24:] = torch.tensor(GREEN)[:, None, None]  # a quarter that the mask leaves out
    mask = torch.ones(1, 1, 32, 32)
    mask[:, :, 24:] = 0.6
    expected = torch.zeros(8)
    expected[0b100], expected[0b001] = (2 / 3) ** 0.5, (1 / 3) ** 0.5  # bins of red, green and blue in this order
    torch.testing.assert_close(clusters.colours(image, mask)[0], expected)


def test_an_empty_mask_has_no_colours():
    assert not ObjectClusters(2, (4, 8)).colours(painted([RED, BLUE]), torch.zeros(2, 1, 32, 32)).any()


def test_an_object_belongs_to_the_nearest_centre():
    clusters, whole = ObjectClusters(3, (4, 8)), torch.ones(3, 1, 32, 32)
    clusters.centres.copy_(clusters.colours(painted([BLUE, RED, GREEN]), whole))
    mixed = painted([RED, GREEN, BLUE])
    mixed[:, :, :10] = torch.tensor(WHITE)[:, None, None]
    assert clusters.child(mixed, whole).tolist() == [1, 2, 0]


def test_k_means_finds_what_is_far_apart():
    truth = torch.arange(5).repeat_interleave(40)
    places = 10 * torch.eye(5)[truth] + 0.1 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    centres, label = k_means(places, 5)
    assert centres.shape == (5, 5) and centres.dtype == torch.float32
    pairs = set(zip(truth.tolist(), label.tolist(), strict=True))
    assert len(pairs) == 5
    for true, found in pairs:
        torch.testing.assert_close(centres[found], places[truth == true].mean(0))


def confused(family: np.ndarray, alike: float = 0.6) -> np.ndarray:
    """Each class is read as itself and, in `alike` of the cases, as any of its family."""
    same = family[:, None] == family
    return (1 - alike) * np.eye(len(family)) + alike * same / same.sum(1, keepdims=True)


@pytest.mark.parametrize("sizes", [[4, 4, 4], [2, 2, 2, 2, 2, 2], [2, 4, 6]])
def test_families_are_the_classes_that_are_taken_for_each_other(sizes):
    random = np.random.default_rng(0)
    truth = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    noisy = confused(truth) + 0.02 * random.random((len(truth), len(truth)))
    found = families(noisy / noisy.sum(1, keepdims=True), sizes=sizes)
    assert np.bincount(found).tolist() == sizes
    assert len(set(zip(truth, found, strict=True))) == len(sizes)


def test_families_have_the_sizes_that_are_asked_for():
    truth = np.array([0, 0, 0, 0, 0, 1, 1, 1])  # five that look alike, and three
    found = families(confused(truth), sizes=[4, 4])
    assert np.bincount(found).tolist() == [4, 4]
    assert len(set(found[truth == 1])) == 1 and (found[truth == 0] == found[-1]).sum() == 1


def test_sizes_that_do_not_add_up_are_named():
    with pytest.raises(ValueError, match=r"sizes must sum to the number of classes, 4, got \[2, 3\]"):
        families(np.eye(4), sizes=[2, 3])


def test_order_that_agrees_best_over_all_rows():
    # Row 0 likes column 0 best, but row 1 has nothing else.
    assert in_order(np.array([[9.0, 8.0, 0.0], [9.0, 0.0, 0.0], [0.0, 7.0, 6.0]])).tolist() == [1, 0, 2]


class Says(nn.Module):
    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(images), -1, -1, -1)


def test_segmentation_loss_is_the_cross_entropy_of_the_mask():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :1] = 0.9  # a quarter is object
    said = torch.full((1, 1, 4, 4), 0.2)
    expected = -(0.25 * np.log(0.2) + 0.75 * np.log(0.8))
    loss = segmentation_loss(Says(said), torch.zeros(2, 3, 4, 4), mask.expand(2, -1, -1, -1))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


# ---- the stage


class Palette(nn.Module):
    """A generator whose child c is a picture of one colour, wholly object."""

    def __init__(self, colours: torch.Tensor):
        super().__init__()
        self.colours = colours

    def forward(self, codes: Codes) -> Stages:
        image = (codes.c @ self.colours)[:, :, None, None].expand(-1, -1, 32, 32)
        mask = torch.ones_like(image[:, :1])
        return Stages(image, image, mask, image, image, mask, image, image)


class NotBlack(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.amax(1, keepdim=True) > -0.9).float()


FOUR = torch.tensor([RED, GREEN, BLUE, WHITE])


def stage(**changes) -> FineGANClusters:
    torch.manual_seed(0)
    model = FineGANClusters(replace(STAGE, n_parents=2, n_children=4, **changes))
    model.generator = Palette(FOUR)
    model.clusters.segmenter = NotBlack()
    return model.eval()


def test_children_and_parents_are_called_what_the_generator_calls_them():
    model, shuffled = stage(), torch.tensor([2, 0, 3, 1])
    centres = model.clusters.colours(painted(FOUR.tolist()), torch.ones(4, 1, 32, 32))[shuffled]
    parent = child_to_parent(shuffled, 2, 4)
    order = model.ordered(torch.from_numpy(confused(parent.numpy())), centres, n=200)
    assert shuffled[order].tolist() == [0, 1, 2, 3]


def test_silhouettes_decide_who_is_whose_sibling():
    """Whatever the generator calls them: here its families are the other way round for two of the children."""
    model = stage()
    centres = model.clusters.colours(painted(FOUR.tolist()), torch.ones(4, 1, 32, 32))
    order = model.ordered(torch.from_numpy(confused(np.array([0, 1, 0, 1]))), centres, n=200)
    assert {frozenset(order[:2].tolist()), frozenset(order[2:].tolist())} == {frozenset({0, 2}), frozenset({1, 3})}


def test_stage_sorts_pictures_by_colour_and_silhouette():
    model = stage(n_sorted=240, confusion_steps=60, confusion_batch=32)

    def batches():
        while True:
            child = torch.randint(4, (40,))
            image = torch.full((40, 3, 32, 32), -1.0)
            for row, c in enumerate(child.tolist()):
                # Red and blue objects are squares, green and white ones lines.
                rows, columns = ((8, 24), (8, 24)) if c in (0, 2) else ((14, 17), (2, 30))
                image[row, :, slice(*rows), slice(*columns)] = FOUR[c][:, None, None]
            yield {"image": image}

    figures = model.finish(batches())
    assert figures["sorted"] == 240 and figures["empty"] == 0
    assert 0.15 < figures["smallest"] <= 0.25 <= figures["largest"] < 0.35
    assert 0.3 < figures["told"] < 0.8 and figures["siblings"] > 0.9  # siblings' silhouettes are the same
    own = model.clusters.child(painted(FOUR.tolist()), torch.ones(4, 1, 32, 32))
    assert sorted(own.tolist()) == [0, 1, 2, 3]
    parent = child_to_parent(own, 2, 4).tolist()
    assert parent[0] == parent[2] != parent[1] == parent[3]


def squares(n: int, empty: int) -> dict[str, torch.Tensor]:
    """n pictures of squares in the four colours, with an edge in one of the others, and `empty` more without any."""
    image = torch.full((n + empty, 3, 32, 32), -1.0)
    for row in range(n):
        image[row, :, 8:24, 8:24] = FOUR[row % 4][:, None, None]
        image[row, :, 8 : 8 + row // 4 % 3, 8:24] = FOUR[(row + 1) % 4][:, None, None]
    return {"image": image}


def test_pictures_without_an_object_are_left_out():
    model = stage(n_sorted=240, confusion_steps=2, confusion_batch=8)
    figures = model.finish([squares(72, 8)])  # all there are
    assert figures["sorted"] == 72 and figures["empty"] == pytest.approx(0.1)
    assert figures["smallest"] == figures["largest"] == 0.25
    assert (model.clusters.centres.square().sum(1) > 0.7).all()  # none of them is that of no colours, zeros


@pytest.mark.parametrize(("n", "empty", "said"), [(80, 20, "80 of 100"), (7, 0, "7 of 7")])
def test_too_few_objects_to_sort_are_named(n, empty, said):
    model = stage(n_sorted=240)
    with pytest.raises(ValueError, match=f"an object was found in {said} pictures, which is too few to sort into 4"):
        model.finish([squares(n, empty)])
    assert not model.clusters.centres.any()


def test_stage_ends_with_what_the_next_one_starts_from(tmp_path):
    """Through the loop: trained, sorted, saved, and taken up by a FineGAN that judges by child."""
    torch.manual_seed(0)
    preset = PRESETS["finegan_clusters"]["smoke"]
    model = FineGANClusters(preset.method)
    train(model, preset.dataset(), preset.run, tmp_path, progress=False)
    assert 0.8 * preset.method.n_sorted < checkpoints.card(tmp_path / "model.safetensors")["finished"]["sorted"]
    following = FineGAN(SORTED)
    assert "finished" in checkpoints.start_from(following, tmp_path / "model.safetensors")
    batch = preset.dataset().batch(range(40))
    _, child = following.sort(batch["image"])
    assert child.argmax(1).unique().numel() > 5


def test_stage_trains_the_segmenter_alone(batch):
    torch.manual_seed(0)
    model = FineGANClusters(STAGE).train()
    assert not model.generator.training and model.clusters.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model.training_step(batch)
    assert losses.keys() == {"segmentation"}
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"clusters", "step"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"segmenter_widths": None}, "segmenter_widths must be given"), ({"n_sorted": 47}, "at least 2 n_children = 48, got 47")],
)
def test_wrong_stage_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(STAGE, **changes)


# ---- FineGAN with sorted pictures


def sorted_from_real(**changes) -> FineGAN:
    torch.manual_seed(0)
    model = FineGAN(replace(SORTED, child_from_real=True, **changes))
    model.clusters.centres.copy_(torch.rand_like(model.clusters.centres))
    model.clusters.segmenter.mask[0].bias.data.fill_(5.0)  # it finds objects everywhere
    return model.train()


def test_reader_of_children_needs_something_to_learn_from():
    with pytest.raises(ValueError, match="child_from_real needs real_information"):
        replace(SORTED, real_information=0.0, child_from_real=True)


def test_reader_of_children_from_real_pictures_alone_does_not_learn_from_generated_ones(batch):
    model = sorted_from_real()
    codes = model.sample_codes(4)
    terms, reader = model.object_losses(model.generate(codes), codes), model.child_discriminator
    terms["c_information"].backward(retain_graph=True)
    assert all(p.grad is None for network in (reader.code_features, reader.code) for p in network.parameters())
    assert any(p.grad is not None for p in model.generator.child.parameters())
    mask, c = model.sort(batch["image"])
    model.real_losses(batch["image"] * mask, mask, c)["c_real"].backward()
    assert all(p.grad is not None for network in (reader.code_features, reader.code) for p in network.parameters())


def test_every_second_real_object_is_cut_along_another_ones_outline(batch, monkeypatch):
    model = sorted_from_real()
    seen = []
    monkeypatch.setattr(model.child_discriminator, "read", lambda x: seen.append(x) or [x.mean((2, 3)) @ torch.ones(3, 24)])
    monkeypatch.setattr(finegan, "moved", lambda masks, **_: masks.flip(-1))  # a move that can be told
    n = 64
    cut, mask = torch.ones(n, 3, 32, 32), torch.zeros(n, 1, 32, 32)
    for row in range(n):
        mask[row, :, row % 32] = 1  # each object has a row of its own among its neighbours
        mask[row, ..., 16:] = 0
    model.real_losses(cut, mask, F.one_hot(torch.arange(n) % 24, 24).float())
    whole = (seen[0] == 1).flatten(1).all(1)
    assert 0.25 * n < int(whole.sum()) < 0.75 * n
    for row in (~whole).nonzero()[:, 0].tolist():
        assert torch.equal(seen[0][row], mask[row - 1].flip(-1).expand(3, -1, -1))


def test_pictures_without_an_object_tell_nothing(model, batch, monkeypatch):
    """Neither readers nor judge are told a child, and no palette is asked for."""
    empty = batch["image"].as_subclass(torch.Tensor).clone()
    found = torch.ones(4, 1, 32, 32)
    found[1] = 0.5
    monkeypatch.setattr(ObjectClusters, "cut_out", lambda self, images: found)
    mask, c = model.sort(empty)
    assert c.sum(1).tolist() == model.parent_of(c).sum(1).tolist() == mask.amax((1, 2, 3)).tolist() == [1, 0, 1, 1]
    some = [0, 2, 3]
    model.eval()
    monkeypatch.setattr(model, "read_parent", lambda mask: mask.mean((2, 3)) @ torch.ones(1, 6))
    all_four, three = (model.real_losses(empty[rows] * mask[rows], mask[rows], c[rows]) for rows in ([0, 1, 2, 3], some))
    for name, value in all_four.items():
        torch.testing.assert_close(4 * value, 3 * three[name])
    drawn, whole = torch.rand(4, 3, 32, 32), torch.ones(4, 1, 32, 32)
    whole[2] = 0  # a bird that is not drawn
    drawn[1:3] = 1e4  # if they counted, it would show
    assert 0 < palette_loss(drawn, whole, empty, mask) < 2 < palette_loss(drawn, torch.ones_like(whole), empty, mask)


def test_palettes_are_as_far_apart_as_what_must_be_moved():
    """Along an axis, colours d apart are d |cos| apart; |cos| of a random axis in space is 1/2 on average."""
    whole, both = torch.ones(1, 1, 32, 32), painted([RED])
    both[..., :8] = torch.tensor(BLUE)[:, None, None]  # a quarter
    apart = float((torch.tensor(RED) - torch.tensor(BLUE)).norm()) / 2
    far = {"points": 1000, "directions": 1000}
    assert float(palette_loss(painted([RED]), whole, painted([RED]), whole)) == 0
    assert float(palette_loss(painted([RED]), whole, painted([BLUE]), whole, **far)) == pytest.approx(apart, rel=0.1)
    assert float(palette_loss(both, whole, painted([RED]), whole, **far)) == pytest.approx(apart / 4, rel=0.2)


def test_palettes_do_not_care_where_a_colour_is_nor_what_is_beyond_the_mask():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    one, other = painted([RED]), painted([RED])
    one[..., 16:24] = other[..., 24:] = torch.tensor(BLUE)[:, None, None]
    other[..., :16] = torch.tensor(GREEN)[:, None, None]
    assert float(palette_loss(one, mask, other, mask, points=4000)) < 0.05
    assert float(palette_loss(one, mask, other, torch.ones(1, 1, 32, 32))) > 0.3


def test_palettes_pull_from_any_colour_to_any_other():
    drawn, whole = painted([BLUE]).requires_grad_(), torch.ones(1, 1, 32, 32)
    target = painted([RED])
    palette_loss(drawn, whole, target, whole, points=4096, directions=100).backward()
    towards = ((target - drawn) * -drawn.grad).sum(1)
    assert (towards >= 0).all() and float((towards > 0).float().mean()) > 0.5


def test_a_mask_that_is_no_number_raises_nothing():
    """The loop looks at the losses of a run that diverges, and says which."""
    whole, unknown = torch.ones(1, 1, 32, 32), torch.full((1, 1, 32, 32), float("nan"))
    assert palette_loss(painted([RED]), unknown, painted([RED]), whole) == 0
    assert palette_loss(painted([RED]) * float("nan"), unknown, painted([RED]), whole).isnan()


def test_palettes_are_compared_in_full_precision():
    pictures, mask = painted([RED]) * torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(palette_loss(pictures, mask, pictures.flip(1), mask))
    assert torch.equal(*losses) and losses[0] > 0


def test_objects_are_repainted_as_the_children_of_the_real_pictures(batch, monkeypatch):
    model = sorted_from_real(palette_weight=3.0)
    codes = model.sample_codes(4)
    fake = model.generate(codes)
    mask, c = model.sort(batch["image"])
    monkeypatch.setattr(model.child_discriminator, "read", lambda x: [x.mean((2, 3)) @ torch.ones(3, 24)])
    compared = []

    def compare(*given):
        compared.extend((*given, palette_loss(*given)))
        return compared[-1]

    monkeypatch.setattr(finegan, "palette_loss", compare)
    terms = model.object_losses(fake, codes, batch["image"], mask, c)
    foreground, drawn = model.generator.draw_child(fake.feature, fake.parent_mask, c.float())
    for given, expected in zip(compared, (foreground, drawn, batch["image"], mask, terms["palette"] / 3), strict=True):
        torch.testing.assert_close(given, expected)
    logits = (foreground * drawn).mean((2, 3)) @ torch.ones(3, 24)
    torch.testing.assert_close(terms["c_information"], F.cross_entropy(logits, c.float()))
    model.zero_grad()
    terms["palette"].backward()
    assert model.generator.child_painter.mask.weight.grad is None  # colours do not move the outline


def test_palette_needs_objects_that_are_repainted():
    with pytest.raises(ValueError, match="palette_weight needs child_untied, got 1.0"):
        replace(SORTED, palette_weight=1.0, child_untied=False)


@pytest.mark.parametrize("change", [{"real_information": 1.0}, {"child_judged": True}, {"palette_weight": 1.0}])
def test_what_is_learnt_from_sorted_pictures_needs_them_sorted(change):
    with pytest.raises(ValueError, match="real_information, child_judged and palette_weight need segmenter_widths"):
        replace(PRESETS["finegan"]["smoke"].method, **change)


def test_a_start_without_sorted_pictures_is_named(model, tmp_path):
    plain = checkpoints.save(build(PRESETS["finegan"]["smoke"].method), tmp_path / "plain.safetensors", card={})
    with pytest.raises(checkpoints.CheckpointError, match="holds the method 'finegan': finegan needs its clusters"):
        checkpoints.start_from(model, plain)
    done = FineGANClusters(STAGE)
    done.clusters.centres.copy_(torch.rand_like(done.clusters.centres))
    checkpoints.start_from(model, checkpoints.save(done, tmp_path / "sorted.safetensors", card={}))
    assert torch.equal(model.clusters.centres, done.clusters.centres)


def test_pictures_that_nobody_has_sorted_are_named(batch):
    """Without a start, or from a stage that did not reach its end, every picture would be child 0."""
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="no pictures were sorted yet: train finegan_clusters to its end"):
        FineGAN(SORTED).train().training_step(batch)


def test_sorting_is_finished(model, batch):
    before = {name: value.clone() for name, value in model.clusters.state_dict().items()}
    losses = model.training_step(batch)
    assert {"p_real", "c_real"} <= losses.keys()
    assert not model.clusters.training and not any(p.requires_grad for p in model.clusters.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.clusters.state_dict().items())


def test_readers_learn_from_real_objects_what_they_are_sorted_into(model, batch):
    mask, c = model.sort(batch["image"])
    torch.testing.assert_close(c.argmax(1), model.clusters.child(batch["image"], mask))
    model.eval()
    moves = torch.random.get_rng_state()
    losses = model.real_losses(batch["image"] * mask, mask, c)
    torch.random.set_rng_state(moves)
    parent = child_to_parent(c.argmax(1), model.config.n_parents, model.config.n_children)
    expected = -0.5 * model.read_parent(mask).log_softmax(1)[range(4), parent].mean()
    torch.testing.assert_close(losses["p_real"], expected)
    (logits,) = model.child_discriminator.read(batch["image"] * mask)
    torch.testing.assert_close(losses["c_real"], -0.5 * (logits.log_softmax(1) * c).sum(1).mean())
    sum(losses.values()).backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.parent_reader.parameters())


def test_judge_of_children_adds_the_logit_of_the_child(model, batch):
    judge = model.eval().child_discriminator
    features = judge.trunk(batch["image"])
    c = F.one_hot(torch.tensor([0, 5, 5, 23]), 24).float()
    expected = judge.real(features)[:, 0, 0, 0] + judge.match(features)[range(4), c.argmax(1), 0, 0]
    torch.testing.assert_close(judge.judge(batch["image"], c), expected)


def test_judge_of_children_learns_which_child_a_real_picture_is(model, batch):
    """Pictures and their children in the wrong order are told from those in the right one."""
    judge, image = model.child_discriminator, batch["image"]
    right, wrong = torch.eye(24)[[0, 1, 2, 3]], torch.eye(24)[[1, 0, 3, 2]]
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        judge_loss(model.config, torch.tensor(1), judge, image, [image], right, wrong).backward()
        optimizer.step()
    with torch.no_grad():
        assert (judge.judge(image, right) > judge.judge(image, wrong)).all()


def test_generators_update_leaves_the_judge_of_children_alone(model, batch):
    codes = model.sample_codes(4)
    fake = model.generate(codes)
    before = model.child_discriminator.match.weight.detach().clone()
    model.update_generator(model.object_losses(fake, codes))
    assert torch.equal(model.child_discriminator.match.weight, before)
    model.update_child_discriminator(batch["image"], fake.image.detach(), codes.c, codes.c)
    assert not torch.equal(model.child_discriminator.match.weight, before)
