"""Pictures that are kept instead of rendered again."""

import torch

from tutorial_lib.data.batched import InMemory
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
