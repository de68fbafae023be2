"""Pictures that are kept instead of rendered again."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from tutorial_lib.data.batched import InMemory
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.data.faces import PaperFaces


def test_kept_items_are_those_of_the_data_set_and_made_once(monkeypatch):
    data = PaperFaces(32, length=250, seed=3)
    expected = data.batch([249, 0, 7])
    kept = InMemory(data)
    monkeypatch.setattr(PaperFaces, "batch", None)
    assert len(kept) == 250
    found = kept.batch([249, 0, 7])
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=0, rtol=0)
    assert torch.equal(kept[7]["image"], expected["image"][2])


def test_what_is_kept_in_memory_moves_with_the_picture():
    birds = PaperBirds(size=32, length=3)
    kept = InMemory(birds)
    for one, other in ((birds.batch(range(3)), kept.batch(range(3))), (birds[1], kept[1])):
        for name, value in one.items():
            assert type(other[name]) is type(value) and torch.equal(other[name], value), name
    turned = v2.RandomHorizontalFlip(1.0)(kept[1])
    assert isinstance(turned["mask"], tv_tensors.Mask) and torch.equal(turned["mask"], kept[1]["mask"].flip(-1))
    with pytest.raises(IndexError, match="item -1 … -1 of a set of 3"):
        kept.batch([-1])
