import copy
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods import mixnmatch
from tutorial_lib.methods.finegan import child_to_parent
from tutorial_lib.methods.mixnmatch import (
    CodeMode,
    CodeModeConfig,
    FeatureExtractor,
    MixNMatch,
    MixNMatchConfig,
    PairDiscriminator,
    dice_loss,
    gradient_penalty,
    stitch,
)
from tutorial_lib.training import checkpoints
from tutorial_lib.training.distributed import convert_batch_norm
from tutorial_lib.training.presets import PRESETS

CODE = PRESETS["mixnmatch_code"]["smoke"].method
BOTH = PRESETS["mixnmatch"]["smoke"].method


def code_mode(**changes) -> CodeMode:
    torch.manual_seed(0)
    return CodeMode(replace(CODE, **changes))


def both_modes(**changes) -> MixNMatch:
    torch.manual_seed(0)
    return MixNMatch(replace(BOTH, **changes))


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return PaperBirds(size=32, length=8, wander=1.0).batch(range(8))


@pytest.fixture(scope="module")
def pictures(batch) -> torch.Tensor:
    return batch["image"].as_subclass(torch.Tensor)


# ---- the published sizes


def test_published_parameter_counts():
    with torch.device("meta"):
        model = CodeMode(CodeModeConfig())
    counts = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("generator", "encoders", "pairs")}
    assert {name: round(n / 1e6, 2) for name, n in counts.items()} == {"generator": 13.50, "encoders": 77.17, "pairs": 17.75}


def test_published_step_runs_on_a_processor_and_trains_every_network():
    torch.manual_seed(0)
    model = CodeMode(CodeModeConfig()).train()
    before = {name: weights(network) for name, network in model.named_children()}
    batch = PaperBirds(size=128, length=2, wander=1.0).batch(range(2))
    losses = model.training_step(batch)
    assert all(loss.isfinite() for loss in losses.values())
    unchanged = [name for name, network in model.named_children() if same(before[name], weights(network))]
    assert unchanged == []


def test_published_extractor_has_the_size_of_the_parent_feature():
    with torch.device("meta"):
        assert FeatureExtractor(MixNMatchConfig())(torch.empty(1, 3, 128, 128)).shape == (1, 16, 128, 128)


# ---- config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_widths": (4,) * 6}, "encoder_widths halves a picture of 32 pixels 6 times"),
        ({"reprediction": "some"}, "reprediction must be .* got 'some'"),
        ({"paired": False, "reprediction": "none"}, "nothing gives the codes a meaning"),
        ({"redraw_weight": -1.0}, "redraw_weight must not be negative, got -1.0"),
        ({"silhouette_weight": -1.0}, "silhouette_weight must not be negative, got -1.0"),
        ({"silhouette_weight": 1.0}, "silhouette_weight and pose_weight need segmenter_widths"),
        ({"pose_weight": -1.0}, "pose_weight must not be negative, got -1.0"),
        ({"pose_weight": 1.0}, "silhouette_weight and pose_weight need segmenter_widths"),
        ({"gradient_penalty": -10.0}, "gradient_penalty must not be negative, got -10.0"),
        ({"reprediction_weights": (5.0, 5.0, 10.0)}, "reprediction_weights are those of z, b, p and c, got"),
        ({"hard_negatives_from": 5}, "hard_negatives_from: the last steps of FineGAN's training"),
    ],
)
def test_wrong_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CODE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractor_up": (8,)}, "one entry less than extractor_down"),
        ({"feature_l1_weight": 0, "feature_adversarial_weight": 0}, "S needs one of"),
        ({"feature_l1_weight": -1.0}, "feature_l1_weight must not be negative, got -1.0"),
        ({"soft_parent_every": 0}, "soft_parent_every must be at least 1, got 0"),
        ({"feature_redraw_weight": -1.0}, "feature_redraw_weight must not be negative, got -1.0"),
    ],
)
def test_wrong_config_of_feature_mode_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(BOTH, **changes)


# ---- encoders and pairs


def test_encoded_codes_are_like_sampled_ones(pictures):
    codes = code_mode().eval().encode(pictures)
    sampled = code_mode().sample_codes(8)
    assert all(getattr(codes, name).shape == getattr(sampled, name).shape for name in "zbpc")
    for name in "bpc":
        code = getattr(codes, name)
        assert (code >= 0).all()
        torch.testing.assert_close(code.sum(1), torch.ones(8))
    assert codes.z.abs().max() < CODE.z_range


def test_code_is_seen_through_noise(pictures):
    noisy, silent = (PairDiscriminator(replace(CODE, code_noise=std), 6) for std in ((0.5, 0.3, 0.3), (0.0, 0.0, 0.0)))
    code = torch.eye(6)[torch.arange(8) % 6]
    assert not torch.equal(noisy(pictures, code), noisy(pictures, code))
    assert torch.equal(silent(pictures, code), silent(pictures, code))


def test_real_and_generated_pairs_are_judged_together_as_apart(pictures):
    silent = PairDiscriminator(replace(CODE, code_noise=(0.0, 0.0, 0.0)), 6)
    codes = torch.eye(6)[torch.arange(8) % 6], torch.rand(8, 6)
    real, generated = (pictures, codes[1]), (pictures.flip(0), codes[0])
    for together, apart in zip(silent.of_both(real, generated), (silent(*real), silent(*generated)), strict=True):
        torch.testing.assert_close(together, apart)


class Linear(nn.Module):
    """D(x, y) = <u, x> + <v, y>, whose gradients are u and v everywhere."""

    def __init__(self, u: torch.Tensor, v: torch.Tensor):
        super().__init__()
        self.u, self.v = nn.Parameter(u), nn.Parameter(v)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.u + y @ self.v


@pytest.mark.parametrize(("picture", "code", "penalty"), [(1.0, 1.0, 0.0), (3.0, 1.0, 4.0), (1.0, 0.5, 0.25), (0.0, 0.0, 2.0)])
def test_gradient_penalty_by_hand(picture, code, penalty):
    u, v = F.normalize(torch.randn(12), dim=0) * picture, F.normalize(torch.randn(5), dim=0) * code
    pairs = [(torch.randn(4, 3, 2, 2), torch.randn(4, 5)) for _ in range(2)]
    torch.testing.assert_close(gradient_penalty(Linear(u, v), *pairs), torch.tensor(penalty), atol=1e-4, rtol=1e-4)


def test_gradient_penalty_is_taken_between_the_pairs_with_a_weight_for_each_input():
    seen = []

    class Watch(Linear):
        def forward(self, x, y):
            seen.append((x.detach(), y.detach()))
            return super().forward(x, y)

    real, fake = (torch.ones(50, 3, 2, 2), torch.ones(50, 5)), (torch.zeros(50, 3, 2, 2), torch.zeros(50, 5))
    gradient_penalty(Watch(torch.randn(12), torch.randn(5)), real, fake)
    x, y = (value.flatten(1) for value in seen[0])
    assert torch.equal(x, x[:, :1].expand_as(x)) and torch.equal(y, y[:, :1].expand_as(y))  # one weight a sample
    assert x.min() >= 0 and x.max() <= 1 and x.std() > 0.2
    assert torch.corrcoef(torch.stack([x[:, 0], y[:, 0]]))[0, 1].abs() < 0.5  # not the same one for picture and code


def test_gradient_penalty_trains_the_discriminator():
    discriminator = Linear(torch.full((12,), 2.0), torch.full((5,), 2.0))
    pairs = [(torch.randn(4, 3, 2, 2), torch.randn(4, 5)) for _ in range(2)]
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        gradient_penalty(discriminator, *pairs).backward()
        optimizer.step()
    torch.testing.assert_close(discriminator.u.norm(), torch.tensor(1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(discriminator.v.norm(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_pair_losses_of_the_two_sides_are_opposite(pictures, monkeypatch):
    model = code_mode(code_noise=(0.0, 0.0, 0.0), gradient_penalty=0.0)
    codes, encoded = model.sample_codes(8), model.encode(pictures)
    fake = model.generate(codes).image
    of_judges = model.update_pairs(pictures, encoded, fake, codes)["d_pairs"]
    model = code_mode(code_noise=(0.0, 0.0, 0.0))  # before the update
    of_others = sum(model.pair_losses(pictures, encoded, fake, codes).values())
    torch.testing.assert_close(of_others, -of_judges)


# ---- training of code mode


@pytest.mark.parametrize("changes", [{}, {"paired": False}, {"reprediction": "tied"}, {"reprediction": "none"}])
def test_step_has_finite_named_losses(changes, batch):
    losses = code_mode(**changes).train().training_step(batch)
    assert all(loss.isfinite() for loss in losses.values())
    names = {"no_pairs": "paired" in changes, "no_reprediction": changes.get("reprediction") == "none"}
    assert ("pair_z" in losses) != names["no_pairs"] and ("reconstruction" in losses) == names["no_pairs"]
    assert all((f"re_{name}" in losses) != names["no_reprediction"] for name in "zbpc")


def test_encoders_alone_learn_from_redrawing_the_picture(batch, pictures, monkeypatch):
    model, terms = code_mode(redraw_weight=4.0).train(), {}
    monkeypatch.setattr(model, "update_generator", lambda given: terms.update(given) or {})
    model.training_step(batch)
    redrawn = model.generator(model._encode(pictures)).image
    assert terms["redraw"].item() == pytest.approx(4 * float((redrawn - pictures).abs().mean().detach()), rel=1e-5)
    model.zero_grad()
    terms["redraw"].backward()
    learnt = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {"encoders"}
    assert all(p.requires_grad for p in model.generator.parameters())


SORTED = {"segmenter_widths": (4, 8), "real_information": 0.5, "child_judged": True, "child_from_real": True}


def sorted_mode(**changes) -> CodeMode:
    """Code mode that learns from sorted pictures, into whatever children."""
    model = code_mode(**SORTED, **changes)
    model.clusters.centres.copy_(torch.rand_like(model.clusters.centres))
    model.clusters.segmenter.mask[0].bias.data.fill_(5.0)  # it finds objects everywhere
    return model.train()


def test_encoders_learn_what_real_pictures_are_sorted_into(batch, pictures, monkeypatch):
    model, terms = sorted_mode(), {}
    monkeypatch.setattr(model, "update_generator", lambda given: terms.update(given) or {})
    model.training_step(batch)
    _, c = model.sort(pictures)
    parent = child_to_parent(c.argmax(1), CODE.n_parents, CODE.n_children)
    for name, code in (("p", parent), ("c", c.argmax(1))):
        # Weight 10, as of what is read off generated pictures, times real_information.
        expected = -5 * model.encoders[name](pictures).log_softmax(1)[range(8), code].mean()
        torch.testing.assert_close(terms[f"sorted_{name}"], expected, rtol=1e-4, atol=1e-4)
    model.zero_grad()
    (terms["sorted_p"] + terms["sorted_c"]).backward()
    assert {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is not None} == {
        "encoders.p",
        "encoders.c",
    }


@pytest.mark.parametrize("reprediction", ["untied", "none"])
def test_sorted_pictures_train_every_network_but_what_sorts(reprediction, batch):
    ours = {f"{loss}_weight": 1.0 for loss in ("redraw", "silhouette", "palette", "pose")}
    model = sorted_mode(reprediction=reprediction, **ours)
    before = {name: weights(network) for name, network in model.named_children()}
    losses = model.training_step(batch)
    assert all(loss.isfinite() for loss in losses.values())
    assert {"p_real", "sorted_c", "redraw", "silhouette", "palette", "pose"} <= losses.keys()
    assert [name for name, network in model.named_children() if same(before[name], weights(network))] == ["clusters"]


def test_encoders_and_generator_learn_to_draw_the_silhouettes_of_real_objects(batch, pictures, monkeypatch):
    model, terms = sorted_mode(silhouette_weight=3.0), {}
    monkeypatch.setattr(model, "update_generator", lambda given: terms.update(given) or {})
    model.training_step(batch)
    drawn, real = model.generator(model._encode(pictures)).parent_mask, model.clusters.cut_out(pictures)
    assert terms["silhouette"].item() == pytest.approx(3 * float(dice_loss(drawn, real).detach()), rel=1e-4)
    model.zero_grad()
    terms["silhouette"].backward()
    learnt = {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {"encoders.z", "encoders.p", "generator.parent", "generator.parent_painter"}


def test_silhouettes_of_any_shape_should_move_as_a_real_object_does(batch, pictures, monkeypatch):
    model, terms = sorted_mode(pose_weight=3.0), {}
    monkeypatch.setattr(mixnmatch, "moved", lambda x, **_: x.flip(-1))  # a move that can be told
    monkeypatch.setattr(model, "update_generator", lambda given: terms.update(given) or {})
    compared = []
    monkeypatch.setattr(mixnmatch, "dice_loss", lambda *masks: compared.extend(masks) or dice_loss(*masks))
    codes = model.sample_codes(8)
    model.training_step(batch, codes)
    mask = model.clusters.cut_out(pictures)
    background = model.generator(codes).background
    z = model.encoders["z"](pictures), model.encoders["z"]((pictures * mask).flip(-1) + (1 - mask.flip(-1)) * background)
    still, again = (model.generator(Codes(each, codes.b, codes.p, codes.c)).parent_mask for each in z)
    for given, expected in zip(compared, (again, still.flip(-1)), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert [masks.requires_grad for masks in compared] == [True, False]
    torch.testing.assert_close(terms["pose"], 3 * dice_loss(*compared))
    model.zero_grad()
    terms["pose"].backward()
    learnt = {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {"encoders.z", "generator.parent", "generator.parent_painter"}


def test_a_picture_without_an_object_moves_nothing(pictures, monkeypatch):
    model = sorted_mode(pose_weight=3.0)
    encoded, codes, mask = model._encode(pictures), model.sample_codes(8), torch.zeros(8, 1, 32, 32)
    targets = []
    monkeypatch.setattr(mixnmatch, "dice_loss", lambda *masks: targets.append(masks[1]) or dice_loss(*masks))
    model.zero_grad()
    model.pose_loss(pictures, mask, encoded, codes, pictures).backward()
    assert not targets[0].any() and not any(p.grad.any() for p in model.encoders["z"].parameters())


def test_moved_objects_do_not_count_in_running_statistics(pictures):
    model = sorted_mode(pose_weight=3.0)
    encoded, codes, mask = model._encode(pictures), model.sample_codes(8), torch.ones(8, 1, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    momenta = [part.momentum for part in model.modules() if hasattr(part, "momentum")]
    model.pose_loss(pictures, mask, encoded, codes, pictures)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert momenta == [part.momentum for part in model.modules() if hasattr(part, "momentum")] and 0.0 not in momenta


def test_dice_loss_is_the_mean_over_the_objects():
    mask, true = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    mask[0, :, :2], true[0, :, 1:3] = 1, 1  # half of each covers the other
    mask[1, :, 0], true[1, :, 0] = 1, 1  # the same
    true[2, :, 0, 0] = 1  # nothing where something is
    assert float(dice_loss(mask, true)) == pytest.approx((0.5 + 0 + 1) / 3)


def test_second_stage_needs_nothing_sorted(batch):
    model = both_modes(**SORTED, silhouette_weight=1.0, palette_weight=1.0).train()
    assert {name for name, _ in model.named_children()} == {"generator", "encoders", "extractor", "feature_critic"}
    assert all(loss.isfinite() for loss in model.training_step(batch).values())


def test_code_mode_that_learns_from_sorted_pictures_starts_from_what_sorts(tmp_path):
    path = checkpoints.save(code_mode(), tmp_path / "plain.safetensors", card={})
    with pytest.raises(checkpoints.CheckpointError, match="mixnmatch_code needs its clusters"):
        checkpoints.start_from(sorted_mode(), path)


def test_step_trains_every_network(batch):
    model = code_mode().train()
    before = {name: weights(network) for name, network in model.named_children()}
    model.training_step(batch)
    assert [name for name, network in model.named_children() if same(before[name], weights(network))] == []


def test_generators_update_leaves_the_pair_discriminators_alone(batch, pictures):
    model = code_mode().train()
    codes, before = model.sample_codes(8), weights(model.pairs)
    model.update_generator(model.pair_losses(pictures, model.encode(pictures), model.generate(codes).image, codes))
    assert same(before, weights(model.pairs))
    assert all(parameter.requires_grad for parameter in model.pairs.parameters())


def test_step_computes_no_gradients_of_frozen_pair_discriminators(batch, monkeypatch):
    def flops(compute) -> int:
        with FlopCounterMode(display=False) as counter:
            compute()
        return counter.get_total_flops()

    def losses() -> None:
        model = code_mode().train()
        codes, image = model.sample_codes(8), batch["image"]
        fake, encoded = model.generator(codes), model._encode(image)
        with mixnmatch.frozen(model.pairs):
            terms = model.pair_losses(image, encoded, fake.image, codes)
        model.update_generator(terms)

    spared = -flops(losses)
    monkeypatch.setattr(mixnmatch, "frozen", lambda *networks: nullcontext())
    spared += flops(losses)
    pairs, picture = code_mode().pairs.values(), torch.zeros(8, 3, 32, 32)
    assert spared > 2 * sum(flops(lambda pair=pair: pair.image(picture)) for pair in pairs)  # real ones and fakes; and codes


def repredicted(model, n: int) -> dict[str, torch.Tensor]:
    codes, drawn = model.draw_for_reprediction(n)
    return model.reprediction_losses(codes, {name: encoder(drawn) for name, encoder in model.encoders.items()})


def test_reprediction_trains_the_encoders_only(batch):
    model = code_mode().train()
    sum(repredicted(model, 8).values()).backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert all(parameter.grad is not None for parameter in model.encoders.parameters())


@pytest.mark.parametrize(("reprediction", "tied"), [("untied", False), ("tied", True)])
def test_reprediction_draws_its_codes(reprediction, tied, monkeypatch):
    model, asked = code_mode(reprediction=reprediction), []
    draw = model.sample_codes
    monkeypatch.setattr(model, "sample_codes", lambda n, tied: (asked.append(tied), draw(n, tied=tied))[1])
    model.draw_for_reprediction(4)
    assert asked == [tied]


def test_reprediction_losses_by_hand():
    model = code_mode(reprediction_weights=(1.0, 2.0, 3.0, 4.0))
    codes = model.sample_codes(4)
    # Perfect but for z, which is off by one half.
    read = {name: codes.z + 0.5 if name == "z" else 100 * getattr(codes, name) for name in "zbpc"}
    torch.testing.assert_close(sum(model.reprediction_losses(codes, read).values()), torch.tensor(0.5))
    read["c"] = torch.zeros_like(codes.c)
    torch.testing.assert_close(model.reprediction_losses(codes, read)["re_c"], 4 * torch.tensor(float(codes.c.shape[1])).log())


@pytest.mark.parametrize("several", [False, True], ids=["one process", "BatchNorm of several"])
@pytest.mark.parametrize("name", "zbpc")
def test_encoder_reads_batches_together_as_one_after_the_other(name, several, pictures):
    model = code_mode().train().double()
    model = convert_batch_norm(model, torch.device("cpu")) if several else model
    encoder, batches = model.encoders[name], (pictures.double(), 0.1 * pictures.double().flip(0) + 0.3)
    other = copy.deepcopy(encoder)
    found = []
    for network, read in ((encoder, encoder.of_each(*batches)), (other, [other(batch) for batch in batches])):
        toward = [torch.linspace(-1, 1, codes.numel(), dtype=codes.dtype).view_as(codes) for codes in read]
        gradients = torch.autograd.grad([*read], [*network.parameters()], toward)
        found.append([*read, *gradients, *network.buffers()])
    for one, another in zip(*found, strict=True):
        torch.testing.assert_close(one, another)


def test_background_first_leaves_all_but_its_stage_alone(batch):
    model = code_mode(background_first=1)
    others = (model.generator.parent, model.generator.child, model.encoders, model.pairs, model.child_discriminator)
    before = [weights(network) for network in (model.generator.background, *others)]
    losses = model.training_step(batch)
    assert set(losses) == {"d_background", "g_background", "g_background_class", "b_information"}
    after = [weights(network) for network in (model.generator.background, *others)]
    assert [same(*pair) for pair in zip(before, after, strict=True)] == [False, True, True, True, True, True]
    assert "d_pairs" in model.training_step(batch)


# ---- mixing


def test_each_factor_comes_from_its_own_picture(pictures):
    model = code_mode().eval()
    a, b, c, d = pictures[:4].split(1)
    mixed = model.mix(background=a, texture=b, shape=c, pose=d)
    codes = Codes(model.encode(d).z, model.encode(a).b, model.encode(c).p, model.encode(b).c)
    torch.testing.assert_close(mixed.image, model.generate(codes).image)


def test_pictures_codes_and_indices_mean_the_same(pictures):
    model = code_mode().eval()
    codes = model.sample_codes(3)
    codes.b, codes.p, codes.c = (torch.eye(n)[[1, 1, 1]] for n in model.code_sizes)
    by_codes = model.mix(background=codes, texture=codes, shape=codes, pose=codes)
    by_index = model.mix(background=1, texture=1, shape=1, pose=codes)
    torch.testing.assert_close(by_codes.image, model.generate(codes).image)
    torch.testing.assert_close(by_index.image, by_codes.image)


def test_one_picture_goes_with_many(pictures):
    model = both_modes().eval()
    assert model.mix(background=pictures[:1], texture=2, shape=pictures, pose=pictures[0]).image.shape == (8, 3, 32, 32)
    assert model.mix(background=pictures, texture=2, shape=pictures[:1], mode="feature").image.shape == (8, 3, 32, 32)


def test_feature_mode_draws_from_the_extracted_feature(pictures):
    model = both_modes().eval()
    a, b, c = pictures[:3].split(1)
    mixed = model.mix(background=a, texture=b, shape=c, mode="feature")
    expected = model.generator(model.encode(a).mix(texture=model.encode(b)), model.extractor(c))
    torch.testing.assert_close(mixed.image, expected.image)


def test_shape_from_codes_in_feature_mode_is_the_generators_own_feature():
    model = both_modes().eval()
    codes = model.sample_codes(2)
    mixed = model.mix(background=codes, texture=codes, shape=codes, mode="feature")
    torch.testing.assert_close(mixed.image, model.generate(codes).image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "sketch"}, "mode must be 'code' or 'feature', got 'sketch'"),
        ({"shape": 3}, "shape: p is an index from 0 to 2"),
        ({"texture": -1}, "texture: c is an index from 0 to"),
        ({"pose": 1}, "pose: z is continuous and has no index"),
        ({"pose": None}, "code mode needs a pose"),
        ({"background": torch.zeros(2, 3, 32, 32), "shape": torch.zeros(3, 3, 32, 32)}, "background: 2 .* do not go with 3"),
        ({"background": torch.zeros(1, 3, 8, 8)}, "16"),
        ({"mode": "feature"}, "the pose comes with the shape"),
        ({"mode": "feature", "pose": None}, "code mode only: feature mode needs the second stage"),
    ],
)
def test_what_cannot_be_mixed_is_named(changes, message, pictures):
    model = code_mode(n_parents=3).eval()
    sources = {"background": 0, "texture": 0, "shape": 0, "pose": pictures[:1]} | changes
    with pytest.raises(ValueError, match=message):
        model.mix(**sources)


def test_index_has_no_pose_in_feature_mode(pictures):
    with pytest.raises(ValueError, match="an index has no pose"):
        both_modes().eval().mix(background=0, texture=0, shape=1, mode="feature")


def test_codes_of_another_model_are_refused_where_they_differ(pictures):
    other, message = code_mode(n_children=30).sample_codes(1), "texture: this model's c has 24 entries, got 30"
    code_mode().eval().mix(background=other, texture=0, shape=other, pose=other)
    with pytest.raises(ValueError, match=message):
        code_mode().eval().mix(background=0, texture=other, shape=0, pose=0)
    with pytest.raises(ValueError, match=message):
        code_mode().eval().generate(other)
    other = code_mode(z_dim=12).sample_codes(1)
    with pytest.raises(ValueError, match="pose: this model's z has 10 entries, got 12"):
        both_modes().eval().mix(background=0, texture=0, shape=other, mode="feature")


@pytest.mark.parametrize("indices", [torch.tensor([2, 0, 1]), np.array([2, 0, 1]), [2, 0, 1], torch.tensor([2, 0, 1]).byte()])
def test_indices_come_one_by_one_or_many_at_once(indices, pictures):
    model = code_mode().eval()
    sources = {"background": 1, "shape": 0, "pose": pictures[:1]}
    together = model.mix(texture=indices, **sources).image
    for i, index in enumerate((2, np.int64(0), indices[2])):
        torch.testing.assert_close(together[i : i + 1], model.mix(texture=index, **sources).image)


def test_errors_name_the_factor_that_is_no_picture(pictures):
    with pytest.raises(TypeError, match="^texture must be a path"):
        code_mode().eval().mix(background=0, texture=True, shape=0, pose=pictures[:1])
    with pytest.raises(ValueError, match="^shape must be a tensor"):
        both_modes().eval().mix(background=0, texture=0, shape=torch.zeros(3), mode="feature")


@pytest.mark.parametrize("keep", ["background", "object"])
def test_stitching_keeps_the_pictures_own_pixels(keep, pictures):
    stages = both_modes().eval().mix(background=0, texture=0, shape=pictures, mode="feature")
    for name in ("parent_mask", "child_mask"):
        setattr(stages, name, (getattr(stages, name) > 0.5).float())
    result, kept = stitch(stages, pictures, keep), (stages.mask == 0) == (keep == "background")
    torch.testing.assert_close(result, torch.where(kept, pictures, stages.image))


def test_stitching_takes_what_a_picture_can_be(pictures, tmp_path):
    stages = both_modes().eval().mix(background=0, texture=0, shape=pictures[:1], mode="feature")
    Image.fromarray(((pictures[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "own.png")
    from_file, expected = (stitch(stages, own, "background") for own in (tmp_path / "own.png", pictures[:1]))
    torch.testing.assert_close(from_file, expected, atol=1 / 255, rtol=0)


def test_stitching_keeps_one_of_two():
    with pytest.raises(ValueError, match="keep must be 'background' or 'object', got 'bird'"):
        stitch(both_modes().generate(both_modes().sample_codes(1)), torch.zeros(1, 3, 32, 32), "bird")


# ---- training of feature mode


def test_second_stage_trains_extractor_and_critic_only(batch):
    model = both_modes().train()
    model.training_step(batch)
    before = {name: [value.clone() for value in network.state_dict().values()] for name, network in model.named_children()}
    model.training_step(batch)
    changed = {name for name, network in model.named_children() if not same(before[name], list(network.state_dict().values()))}
    assert changed == {"extractor", "feature_critic"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, {"d_feature", "g_feature", "feature_l1"}),
        ({"feature_l1_weight": 0.0}, {"d_feature", "g_feature"}),
        ({"feature_adversarial_weight": 0.0}, {"feature_l1"}),
        ({"feature_redraw_weight": 1.0}, {"d_feature", "g_feature", "feature_l1", "feature_redraw"}),
    ],
)
def test_ablations_of_the_second_stage_leave_losses_out(changes, names, batch):
    assert both_modes(**changes).train().training_step(batch).keys() == names


def test_one_batch_in_five_has_soft_parents(batch, monkeypatch):
    model, soft = both_modes().train(), []
    draw = model.generator.forward

    def watch(codes):
        soft.append(bool((codes.p.amax(1) < 1).all()))
        return draw(codes)

    monkeypatch.setattr(model.generator, "forward", watch)
    for _ in range(10):
        model.training_step(batch)
    assert soft == [True, False, False, False, False] * 2


def test_second_stage_learns_the_features_of_generated_pictures(batch):
    model = both_modes(feature_adversarial_weight=0.0).train()
    codes = model.sample_codes(8)
    first, *_, last = (float(model.training_step(batch, codes)["feature_l1"]) for _ in range(60))
    assert last < 0.5 * first


def test_second_stage_learns_to_redraw_real_pictures(batch, pictures):
    model = both_modes(feature_redraw_weight=10.0, feature_l1_weight=0.1, feature_adversarial_weight=0.0).train()
    with torch.no_grad():
        codes = model.encode(pictures)
        redrawn = model.generator(codes, model.extractor(pictures)).image  # as in `mix`: background and texture by their codes
    losses = [float(model.training_step(batch)["feature_redraw"]) for _ in range(40)]
    assert losses[0] == pytest.approx(10 * float((redrawn - pictures).abs().mean()), rel=1e-4)
    assert losses[-1] < 0.9 * losses[0]


def test_finished_networks_stay_in_eval_mode():
    model = both_modes().train()
    assert model.extractor.training and not model.generator.training and not model.encoders.training
