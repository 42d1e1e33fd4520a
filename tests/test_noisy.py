"""Label noise: the published equations, and wrong labels found and survived."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from napari_medseg.training.label_field import (
    Field,
    FieldConfig,
    expected_rate,
    gradients,
    kl_divergence,
    refine,
)
from napari_medseg.training.noisy import Given, NoiseConfig, SpatialNoise, soften
from napari_medseg.training.supervised import LabelledBatch, LossConfig
from napari_medseg.training.trainer import Growing

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray


def kms(length: int, rho: float) -> np.ndarray:
    places = np.arange(length)
    return np.power(rho, np.abs(places[:, None] - places[None]).astype(float))


def dense_kl(mean: np.ndarray, deviation: np.ndarray, config: FieldConfig) -> float:
    """KL of two Gaussians by matrices, from the definition of the covariances."""
    one = np.kron(*(kms(length, config.correlation) for length in mean.shape))
    prior = config.deviation**2 * one
    found = np.outer(deviation.ravel(), deviation.ravel()) * one
    off = mean.ravel() - config.mean
    inverse = np.linalg.inv(prior)
    return float(
        0.5
        * (
            off @ inverse @ off
            + np.trace(inverse @ found)
            - mean.size
            + np.linalg.slogdet(prior)[1]
            - np.linalg.slogdet(found)[1]
        )
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7),
    st.integers(1, 9),
    st.floats(0.0, 0.95),
    st.floats(0.3, 3.0),
    st.integers(0, 10**6),
)
def test_the_divergence_is_that_of_dense_matrices(
    height: int, width: int, rho: float, scale: float, seed: int
) -> None:
    """Of any shape: single rows and columns too."""
    rng = np.random.default_rng(seed)
    config = FieldConfig(correlation=rho, deviation=scale, mean=-1.5)
    mean = rng.normal(-2, 2, (height, width))
    deviation = rng.uniform(0.2, 3.0, (height, width))
    found = kl_divergence(torch.tensor(mean), torch.tensor(deviation), config)
    expected = dense_kl(mean, deviation, config)
    assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_no_divergence_from_what_was_expected() -> None:
    config = FieldConfig()
    mean = torch.full((5, 6), config.mean, dtype=torch.float64)
    deviation = torch.full_like(mean, config.deviation)
    assert float(kl_divergence(mean, deviation, config)) == pytest.approx(0, abs=1e-10)


def test_the_rate_is_the_expectation_of_a_sigmoid() -> None:
    """Against a sum over two thousand points."""
    grid = np.linspace(-9, 9, 2001)
    density = np.exp(-(grid**2) / 2)
    for mean in (-5.0, -2.0, 0.0, 1.3, 6.0):
        for deviation in (0.05, 0.5, 1.3, 2.0):
            values = 1 / (1 + np.exp(-(mean + deviation * grid)))
            expected = float((values * density).sum() / density.sum())
            found = expected_rate(torch.tensor(mean), torch.tensor(deviation))
            assert float(found) == pytest.approx(expected, abs=1.5e-3)


def test_derivatives_are_those_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation, support = (
        torch.rand(5, 4, generator=generator, dtype=torch.float64) + 0.3
        for _ in range(3)
    )
    config = FieldConfig(correlation=0.6)
    mean.requires_grad_()
    deviation.requires_grad_()
    loss = (support * expected_rate(mean, deviation)).sum()
    (loss + kl_divergence(mean, deviation, config)).backward()
    with torch.no_grad():
        found = gradients(mean, deviation, support, config)
    torch.testing.assert_close(found[0], mean.grad)
    torch.testing.assert_close(found[1], deviation.grad)


def disagreement(confidence: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a network says of a label with a strip left out, and where.

    The object is 24 pixels a side in 48; a strip of 8 columns of it is missing in the
    label, and the network contradicts 3 % of the other labels, one by one.
    """
    truth = torch.zeros(48, 48)
    truth[12:36, 12:36] = 1
    strip = torch.zeros_like(truth, dtype=torch.bool)
    strip[12:36, 28:36] = True
    mistakes = torch.rand(48, 48, generator=torch.Generator().manual_seed(0)) < 0.03
    contradicted = strip | (mistakes & ~strip)
    odds = math.log(confidence / (1 - confidence))
    return torch.where(contradicted, -odds, odds), strip, mistakes & ~strip


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_patches_are_doubted_and_single_pixels_are_not(confidence: float) -> None:
    support, strip, mistakes = disagreement(confidence)
    config = FieldConfig()
    field = refine(Field.begin((48, 48), config), support, 120, config)
    rate = field.rate()
    assert float((rate[strip] > 0.5).float().mean()) > 0.8
    assert float((rate[mistakes] > 0.5).float().mean()) < 0.02
    assert float(rate[~strip].mean()) < 0.07
    alone = replace(config, correlation=0.0)
    rate = refine(Field.begin((48, 48), alone), support, 120, alone).rate()
    assert float((rate[strip] > 0.5).float().mean()) < 0.1


def test_what_has_no_label_follows_its_neighbours() -> None:
    support, strip, _ = disagreement(0.95)
    hole = torch.zeros_like(strip)
    hole[22:25, 31:33] = True
    config = FieldConfig()
    field = refine(
        Field.begin((48, 48), config), support.masked_fill(hole, 0.0), 500, config
    )
    rate = field.rate()
    assert float(rate[hole].min()) > 0.4
    far = refine(Field.begin((48, 48), config), torch.zeros(48, 48), 150, config)
    assert float(far.mean.mean()) == pytest.approx(config.mean, abs=0.3)


def test_softened_labels() -> None:
    shares = torch.zeros(1, 3, 1, 2)
    shares[0, 1, 0, 0] = shares[0, 2, 0, 1] = 1
    rates = torch.tensor([[[0.0, 0.3]]])
    found = soften(shares, rates)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(found[0, :, 0, 1], torch.tensor([0.15, 0.15, 0.7]))


class Pixels(nn.Module):
    """Logits of two classes from the brightness of a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.0))
        self.shift = nn.Parameter(torch.tensor(0.0))
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        one = self.slope * images + self.shift
        return torch.cat([-one, one], dim=1)


def task() -> tuple[Tensor, Tensor, Tensor]:
    """Return an image, its labels with a strip left out, and the strip."""
    _, strip, _ = disagreement(0.9)
    truth = torch.zeros(48, 48)
    truth[12:36, 12:36] = 1
    noise = torch.randn(48, 48, generator=torch.Generator().manual_seed(1))
    given_one = torch.where(strip, 0.0, truth)
    return truth + 0.2 * noise, torch.stack([1 - given_one, given_one]), strip


def objective_of(image: Tensor, shares: Tensor, wait: int = 20) -> SpatialNoise:
    def predict(model: nn.Module, number: int) -> FloatArray:
        assert number == 3
        with torch.no_grad():
            result: FloatArray = model(image[None, None])[0].softmax(dim=0).numpy()
        return result

    labels = Given(shares, torch.ones(48, 48), FieldConfig())
    return SpatialNoise({3: labels}, predict, wait, NoiseConfig(), LossConfig(dice=0.0))


def batch_of(image: Tensor, shares: Tensor) -> LabelledBatch:
    return LabelledBatch(
        image[None, None],
        shares[None],
        torch.ones(1, 48, 48),
        torch.tensor([3]),
        torch.eye(2, 3)[None],
    )


def learn(objective: SpatialNoise, batch: Any, steps: int) -> Pixels:
    model = Pixels()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(steps):
        optimiser.zero_grad()
        loss, _ = objective.step(model, batch)
        loss.backward()
        optimiser.step()
        objective.after_step(model, step + 1)
    return model


def test_a_network_and_the_doubts_teach_each_other() -> None:
    image, shares, strip = task()
    objective = objective_of(image, shares)
    batch = batch_of(image, shares)
    learn(objective, batch, 20)
    untouched = objective.given[3].rate
    assert float(untouched.max()) < 0.02  # the fields wait
    model = learn(objective, batch, 60)
    rate = objective.given[3].rate
    assert float((rate[strip] > 0.5).float().mean()) > 0.9
    assert float((rate[~strip] > 0.5).float().mean()) < 0.01
    assert set(model.modes) == {True, False}
    assert model.training
    torch.testing.assert_close(objective.rates(batch)[0], rate, atol=1e-6, rtol=0)


def test_doubts_follow_a_turned_view() -> None:
    image, shares, _ = task()
    objective = objective_of(image, shares)
    rate = torch.linspace(0, 1, 48 * 48).view(48, 48)
    objective.given[3].rate = rate
    batch = batch_of(image, shares)
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    turned = objective.rates(batch._replace(places=turn[None]))[0]
    torch.testing.assert_close(turned, torch.rot90(rate), atol=1e-5, rtol=0)


def test_doubts_are_kept_and_taken_up() -> None:
    image, shares, _ = task()
    first, second = (objective_of(image, shares, wait=0) for _ in range(2))
    learn(first, batch_of(image, shares), 3)
    second.load_state(first.state())
    assert torch.equal(first.given[3].rate, second.given[3].rate)
    assert set(first.state()) == {"3.mean", "3.raw", "3.seen"}
    assert second.given[3].seen == 3


def test_images_of_many_windows_are_asked_about_less_often() -> None:
    """Once for as many views as it takes to see all of it."""
    image, shares, _ = task()
    objective = objective_of(image, shares, wait=0)
    objective.given[3].windows = 3
    untouched = objective.given[3].rate
    asked = learn(objective, batch_of(image, shares), 2).modes
    assert all(asked)
    assert objective.given[3].rate is untouched
    asked = learn(objective, batch_of(image, shares), 5).modes
    assert asked.count(False) == 2


def test_time_is_planned_for_what_the_fields_will_do() -> None:
    """The steps that are timed come before the fields begin, which take half of it."""
    image, shares, _ = task()
    objective = objective_of(image, shares, wait=400)
    objective.given[3].windows = 5
    model = learn(objective, batch_of(image, shares), 4)
    untouched = objective.given[3].rate
    assert isinstance(objective, Growing)
    assert objective.do_later_work(model) == pytest.approx(0.5 / 5)
    assert objective.given[3].rate is not untouched
