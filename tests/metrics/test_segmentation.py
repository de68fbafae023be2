import pytest
import torch

from tutorial_lib.metrics.segmentation import best_of_complement, dice, dice_per_image, iou, iou_per_image


def columns(*counts: int) -> torch.Tensor:
    """Masks (B, 1, 4, 4) with so many left columns set."""
    return torch.stack([(torch.arange(4) < n).expand(1, 4, 4).float() for n in counts])


def test_iou_is_intersection_over_union_averaged_over_pictures():
    assert iou(columns(1, 2), columns(2, 2)) == pytest.approx((1 / 2 + 1) / 2)


def test_dice_is_twice_the_intersection_over_the_sum():
    assert dice(columns(1, 2), columns(2, 2)) == pytest.approx((2 / 3 + 1) / 2)


def test_dice_follows_from_iou():
    a, b = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    per_image = iou_per_image(a, b)
    assert torch.allclose(dice_per_image(a, b), 2 * per_image / (1 + per_image))


def test_soft_masks_count_above_one_half():
    assert iou(columns(2) * 0.6, columns(2)) == 1
    assert iou(columns(2) * 0.4, columns(2)) == 0


def test_without_threshold_soft_masks_are_compared_as_they_are():
    assert iou(columns(2) * 0.4, columns(2), threshold=None) == pytest.approx(0.4)


@pytest.mark.parametrize("score", [iou, dice])
def test_two_empty_masks_agree(score):
    assert score(columns(0), columns(0)) == 1


@pytest.mark.parametrize("score", [iou, dice])
def test_an_empty_mask_misses_a_full_one(score):
    assert score(columns(0), columns(4)) == 0


def test_complement_is_one_choice_for_the_whole_set():
    target = columns(1, 1, 1)
    predicted = torch.cat([1 - target[:2], target[2:]])
    assert best_of_complement(predicted, target) == (pytest.approx(2 / 3), True)


def test_complement_is_of_what_lies_above_the_threshold():
    soft = 0.4 + 0.2 * columns(1, 2)
    assert best_of_complement(soft, columns(1, 2), threshold=0.5) == (1, False)
    assert best_of_complement(soft, columns(0, 0), threshold=0.3) == (1, True)  # all is object, and its complement nothing
    assert best_of_complement(soft, columns(4, 4), threshold=0.7) == (1, True)


def test_complement_can_be_chosen_for_each_picture():
    target = columns(1, 1, 1)
    predicted = torch.cat([1 - target[:2], target[2:]])
    value, flipped = best_of_complement(predicted, target, per_image=True)
    assert value == 1
    assert flipped.tolist() == [True, True, False]


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"must agree, got \(1, 1, 4, 4\) and \(2, 1, 4, 4\)"):
        iou(columns(1), columns(1, 2))


def test_a_mask_outside_its_range_is_named():
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\], got -1 to 1"):
        iou(columns(1), columns(1) * 2 - 1)


def test_a_picture_is_not_a_mask():
    with pytest.raises(ValueError, match=r"predicted must have shape \(B, 1, H, W\), got \(1, 3, 4, 4\)"):
        dice(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
