import pytest
import torch

from tutorial_lib.codes import Codes

SIZES = (3, 2, 4)


def codes(n: int = 3, offset: int = 0) -> Codes:
    index = torch.arange(n) + offset
    z = torch.arange(2.0 * n).view(n, 2) + 100 * offset
    return Codes.from_indices(z, index % 3, index % 2, index % 4, SIZES)


def test_indices_become_one_hot_vectors():
    made = Codes.from_indices(torch.zeros(2, 5), torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([3, 1]), SIZES)
    assert made.b.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert made.p.tolist() == [[0, 1], [1, 0]]
    assert made.c.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert made.c.dtype == torch.float32


@pytest.mark.parametrize(("name", "sizes"), [("b", SIZES), ("p", SIZES), ("c", SIZES)])
def test_index_gives_back_the_class(name, sizes):
    index = {"b": torch.tensor([2, 0, 1]), "p": torch.tensor([1, 1, 0]), "c": torch.tensor([3, 0, 2])}
    assert torch.equal(Codes.from_indices(torch.zeros(3, 2), **index, sizes=sizes).index(name), index[name])


def test_mix_takes_each_factor_from_its_donor():
    one, two, three = codes(), codes(offset=1), codes(offset=2)
    mixed = one.mix(background=two, texture=three, pose=two)
    for name, source in (("z", two), ("b", two), ("p", one), ("c", three)):
        assert torch.equal(getattr(mixed, name), getattr(source, name)), name


def test_soft_codes_pass_through():
    soft = torch.tensor([[0.2, 0.8]])
    assert torch.equal(Codes(torch.zeros(1, 1), soft, soft, soft).mix().p, soft)


def test_repeat_keeps_copies_together():
    assert codes(2).repeat(3).index("b").tolist() == [0, 0, 0, 1, 1, 1]


def test_parts_put_together_are_the_whole():
    whole = codes(5)
    again = Codes.cat([whole[:2], whole[2:]])
    assert len(again) == 5
    assert all(torch.equal(getattr(again, name), getattr(whole, name)) for name in "zbpc")


def test_unknown_factor_is_named():
    with pytest.raises(ValueError, match="colour"):
        codes().mix(colour=codes())


@pytest.mark.parametrize(("name", "index"), [("b", 3), ("p", 2), ("c", 4), ("c", -1)])
def test_class_that_does_not_exist_is_named(name, index):
    classes = {"b": 0, "p": 0, "c": 0} | {name: index}
    with pytest.raises(ValueError, match=f"{name} must .*{index}"):
        Codes.from_indices(torch.zeros(1, 2), **{k: torch.tensor([v]) for k, v in classes.items()}, sizes=SIZES)


def test_different_batch_sizes_are_named():
    with pytest.raises(ValueError, match="'z': 3.*'b': 2"):
        Codes(torch.zeros(3, 1), *(torch.zeros(2, 4) for _ in "bpc"))


def test_single_row_needs_its_batch_axis():
    with pytest.raises(ValueError, match=r"shape \(B, n\)"):
        codes()[0]
