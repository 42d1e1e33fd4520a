"""The losses, against torch's and MONAI's and the published equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from napari_medseg._types import InputError
from napari_medseg.training.losses import (
    binary_cross_entropy,
    binary_dice,
    soft_cross_entropy,
    soft_dice,
)
from napari_medseg.training.supervised import LabelledBatch, LossConfig, Supervised

CLASS_LOSSES = [soft_cross_entropy, soft_dice]
MASK_LOSSES = [binary_cross_entropy, binary_dice]


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(3, 4, 9, 7, generator=generator)


@pytest.fixture
def hard() -> Tensor:
    return torch.randint(4, (3, 9, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weight() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return (torch.rand(3, 9, 7, generator=generator) < 0.6).float()


def onehot(hard: Tensor) -> Tensor:
    return functional.one_hot(hard, 4).movedim(-1, 1).float()


def test_cross_entropy_of_hard_targets_is_torchs(
    logits: Tensor, hard: Tensor, weight: Tensor
) -> None:
    everywhere = torch.ones_like(weight)
    expected = functional.cross_entropy(logits, hard)
    found = soft_cross_entropy(logits, onehot(hard), everywhere)
    torch.testing.assert_close(found, expected)
    ignored = hard.masked_fill(weight == 0, -100)
    expected = functional.cross_entropy(logits, ignored, ignore_index=-100)
    found = soft_cross_entropy(logits, onehot(hard), weight)
    torch.testing.assert_close(found, expected)


def test_cross_entropy_of_shares_is_torchs(logits: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    shares = torch.randn(logits.shape, generator=generator).softmax(dim=1)
    expected = functional.cross_entropy(logits, shares)
    found = soft_cross_entropy(logits, shares, torch.ones(3, 9, 7))
    torch.testing.assert_close(found, expected)


def test_dice_is_monais(logits: Tensor, hard: Tensor) -> None:
    """With sums over the batch and smoothing 1, both definitions are one."""
    monai = DiceLoss(
        include_background=False,
        softmax=True,
        batch=True,
        smooth_nr=1.0,
        smooth_dr=1.0,
    )
    found = soft_dice(logits, onehot(hard), torch.ones(3, 9, 7))
    torch.testing.assert_close(found, monai(logits, onehot(hard)))


def test_dice_is_the_equation_over_the_pixels_that_count(
    logits: Tensor, hard: Tensor, weight: Tensor
) -> None:
    chances, counts = logits.softmax(dim=1).numpy(), weight.numpy() > 0
    terms = []
    for index in range(1, 4):
        p = chances[:, index][counts].astype(float)
        t = (hard.numpy() == index)[counts].astype(float)
        terms.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    found = soft_dice(logits, onehot(hard), weight)
    assert float(found) == pytest.approx(1 - np.mean(terms), rel=1e-5)


def test_mask_losses_are_those_of_each_mask(weight: Tensor) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 9, 7, generator=generator)
    target = torch.rand(3, 9, 7, generator=generator)
    entropy = binary_cross_entropy(logits, target, weight)
    dice = binary_dice(logits, target, weight)
    monai = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")
    # masked logits: MONAI has no weights, so whatever does not count is cut off
    for row in range(3):
        here = weight[row] > 0
        expected = functional.binary_cross_entropy_with_logits(
            logits[row][here], target[row][here]
        )
        torch.testing.assert_close(entropy[row], expected)
        flat = (logits[row][here].view(1, 1, -1), target[row][here].view(1, 1, -1))
        torch.testing.assert_close(dice[row], monai(*flat).flatten()[0])


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_pixels_of_weight_0_do_not_count(
    loss: object, logits: Tensor, hard: Tensor, weight: Tensor
) -> None:
    assert callable(loss)
    outside = weight == 0
    logits.requires_grad_()
    value = loss(logits, onehot(hard), weight)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.movedim(1, -1)[outside].abs().max() == 0
    assert gradient.movedim(1, -1)[~outside].abs().min() > 0
    other_logits = torch.where(outside[:, None], 50.0, logits)
    other_truth = onehot(torch.where(outside, 3 - hard, hard))
    torch.testing.assert_close(loss(other_logits, other_truth, weight), value)


@pytest.mark.parametrize("loss", MASK_LOSSES)
def test_mask_pixels_of_weight_0_do_not_count(loss: object, weight: Tensor) -> None:
    assert callable(loss)
    outside = weight == 0
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 9, 7, generator=generator, requires_grad=True)
    target = torch.rand(3, 9, 7, generator=generator)
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient[outside].abs().max() == 0
    changed = loss(torch.where(outside, 50.0, logits), 1 - target, weight)
    kept = loss(
        torch.where(outside, 50.0, logits),
        torch.where(outside, 0.3, target),
        weight,
    )
    assert not torch.allclose(changed, value)
    torch.testing.assert_close(kept, value)


@pytest.mark.parametrize("counts", [0.0, 1.0])
def test_empty_targets_are_finite(counts: float, logits: Tensor) -> None:
    """An image without any object, and one that is not annotated at all."""
    logits = (20 * logits).requires_grad_()
    shares = onehot(torch.zeros(3, 9, 7, dtype=torch.long))
    weight = torch.full((3, 9, 7), counts)
    mask = torch.zeros(3, 9, 7)
    total = (
        soft_cross_entropy(logits, shares, weight)
        + soft_dice(logits, shares, weight)
        + binary_cross_entropy(logits[:, 0], mask, weight).sum()
        + binary_dice(logits[:, 0], mask, weight).sum()
    )
    total.backward()
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if counts == 0:
        assert float(total.detach()) == 0
        assert logits.grad.abs().max() == 0


def test_perfect_answers_cost_nothing(hard: Tensor, weight: Tensor) -> None:
    sure = 60 * onehot(hard)
    assert float(soft_cross_entropy(sure, onehot(hard), weight)) < 1e-6
    assert float(soft_dice(sure, onehot(hard), weight)) < 1e-6
    wrong = 60 * onehot((hard + 1) % 4)
    assert float(soft_dice(wrong, onehot(hard), weight)) > 0.9


def test_supervised_loss_is_the_weighted_sum(
    logits: Tensor, hard: Tensor, weight: Tensor
) -> None:
    nowhere = torch.zeros(len(logits)), torch.zeros(len(logits), 2, 3)
    batch = LabelledBatch(logits, onehot(hard), weight, *nowhere)
    objective = Supervised(LossConfig(cross_entropy=0.5, dice=2.0))
    loss, figures = objective.step(torch.nn.Identity(), batch)
    entropy = soft_cross_entropy(logits, onehot(hard), weight)
    dice = soft_dice(logits, onehot(hard), weight)
    torch.testing.assert_close(loss, 0.5 * entropy + 2.0 * dice)
    torch.testing.assert_close(figures["cross_entropy"], entropy)
    torch.testing.assert_close(figures["dice_loss"], dice)
    with pytest.raises(InputError, match="dice"):
        LossConfig(dice=-1.0)
