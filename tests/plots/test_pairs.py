import pytest
import torch

from tutorial_lib.plots.pairs import pair_figure


def test_each_pair_shows_its_picture_its_code_and_its_score():
    codes = torch.eye(4)[[2, 0]]
    figure = pair_figure({"real": (torch.ones(2, 3, 8, 8), codes, torch.tensor([1.5, -2.0]))})
    (first, second), (bars, other) = figure.axes[:2], figure.axes[2:]
    assert (first.images[0].get_array() == 255).all() and (second.images[0].get_array() == 255).all()
    assert [bar.get_height() for bar in bars.patches] == [0, 0, 1, 0]
    assert [bars.get_xlabel(), other.get_xlabel()] == ["D: 1.5", "D: -2.0"]


def test_pairs_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="agree in N"):
        pair_figure({"real": (torch.ones(2, 3, 8, 8), torch.eye(3), torch.zeros(2))})
