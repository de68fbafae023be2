import pytest
import torch
from sklearn.datasets import load_digits

from tutorial_lib.data.digits import Digits


@pytest.fixture(scope="module")
def sides() -> tuple[Digits, Digits]:
    return Digits("train"), Digits("held_out")


def test_split_holds_every_scan_once_and_a_fifth_of_each_digit_out(sides):
    train, held_out = sides
    everything = torch.cat([side.scans.flatten(1) for side in sides])
    scans = torch.from_numpy(load_digits().data).float() / 8 - 1
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, scans.tolist()))
    share = held_out.labels.bincount() / (held_out.labels.bincount() + train.labels.bincount())
    torch.testing.assert_close(share, torch.full((10,), 0.2), atol=0.005, rtol=0)


def test_split_is_fixed_and_chosen_by_the_seed(sides):
    assert torch.equal(Digits("held_out").labels, sides[1].labels)
    assert not torch.equal(Digits("held_out", seed=1).labels, sides[1].labels)


def test_pictures_are_the_scans_enlarged(sides):
    batch = sides[0].batch(range(20))
    assert batch["image"].shape == (20, 3, 32, 32) and batch["label"].dtype == torch.int64
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1
    assert torch.equal(batch["image"][:, 0], batch["image"][:, 2])
    # The mean over 4 x 4 pixels is what was enlarged, but for what bilinear weights take from the neighbours.
    shrunk = torch.nn.functional.avg_pool2d(batch["image"][:, :1], 4)
    assert torch.corrcoef(torch.stack([shrunk.flatten(), sides[0].scans[:20].flatten()]))[0, 1] > 0.95


def test_pictures_of_the_scans_own_size_are_the_scans(sides):
    small = Digits(size=8)
    torch.testing.assert_close(small.batch(range(5))["image"][:, :1], small.scans[:5])


def test_stream_and_items_give_what_batches_give(sides):
    held_out = sides[1]
    batch = held_out.batch(range(len(held_out)))
    streamed = list(held_out.stream(batch_size=100))
    assert [len(part["label"]) for part in streamed] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([part["image"] for part in streamed]), batch["image"])
    assert torch.equal(held_out[7]["image"], batch["image"][7])
    assert torch.equal(held_out.collate(held_out.__getitems__([3, 5]))["label"], batch["label"][[3, 5]])


def test_wrong_arguments_are_named(sides):
    with pytest.raises(ValueError, match="split must be .*'test'"):
        Digits("test")
    with pytest.raises(ValueError, match="size must be at least 8, got 4"):
        Digits(size=4)
    with pytest.raises(IndexError, match="1437 of a set of 1437"):
        sides[0].batch([1437])
