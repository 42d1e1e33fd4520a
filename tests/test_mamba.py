"""The scan is the recurrence; other styles are met in training alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_medseg.models.mamba import FourWayScan, VmUnet
from napari_medseg.models.prompts import trained_count
from napari_medseg.models.selective_scan import selective_scan
from napari_medseg.models.style import (
    EPSILON,
    AppearanceVariation,
    FeatureStyle,
    SequenceStyle,
    restyled,
)

B, D, N = 2, 3, 4


def step_by_step(
    inputs: Tensor, steps: Tensor, decay: Tensor, entry: Tensor, exit_: Tensor
) -> Tensor:
    """The recurrence as it is published."""
    state = inputs.new_zeros(inputs.shape[0], inputs.shape[1], decay.shape[1])
    found = []
    for t in range(inputs.shape[-1]):
        factor = torch.exp(steps[:, :, t, None] * decay)
        added = (steps[:, :, t] * inputs[:, :, t])[..., None] * entry[:, None, :, t]
        state = factor * state + added
        found.append((state * exit_[:, None, :, t]).sum(-1))
    return torch.stack(found, dim=-1)


@pytest.mark.parametrize("length", [1, 2, 7, 50, 64, 100])
@pytest.mark.parametrize("widest", [0.1, 2.0, 50.0])
def test_the_scan_and_its_gradients_are_those_of_the_recurrence(
    length: int, widest: float
) -> None:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    given = [
        normal(B, D, length),
        normal(B, D, length).abs() * widest,
        -normal(D, N).abs() * 20,
        normal(B, N, length),
        normal(B, N, length),
    ]
    exact = [item.double().requires_grad_() for item in given]
    found = [item.clone().requires_grad_() for item in given]
    wanted, result = step_by_step(*exact), selective_scan(*found)
    upstream = normal(B, D, length)
    (wanted * upstream).sum().backward()
    (result * upstream).sum().backward()
    torch.testing.assert_close(result.double(), wanted, rtol=1e-4, atol=1e-4)
    for one, other in zip(found, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        largest = other.grad.abs().max().item()
        near = {"rtol": 1e-3, "atol": 1e-4 * max(1.0, largest)}
        torch.testing.assert_close(one.grad.double(), other.grad, **near)


def test_four_ways_against_a_plain_loop() -> None:
    """Rows, columns, and both backwards, each with numbers of its own."""
    torch.manual_seed(0)
    scan = FourWayScan(8, style=0.0).eval()
    tokens = torch.randn(1, 3, 4, 8)
    content, gate = scan.enter(tokens).chunk(2, dim=-1)
    content = torch.nn.functional.silu(scan.near(content.permute(0, 3, 1, 2)))
    places = [(row, column) for row in range(3) for column in range(4)]
    by_columns = sorted(places, key=lambda place: place[::-1])
    total = torch.zeros_like(content)
    orders = (places, by_columns, places[::-1], by_columns[::-1])
    for way, order in enumerate(orders):
        sequence = torch.stack([content[0, :, y, x] for y, x in order], dim=1)
        chosen = scan.select[way] @ sequence
        rank, entry, exit_ = chosen.split((scan.rank, 16, 16))
        steps = torch.nn.functional.softplus(
            scan.widen[way] @ rank + scan.step_bias[way, :, None]
        )
        decay = -scan.decay_log[way].exp()
        found = step_by_step(
            sequence[None], steps[None], decay, entry[None], exit_[None]
        )
        found = found[0] + scan.skip[way, :, None] * sequence
        for number, (y, x) in enumerate(order):
            total[0, :, y, x] += found[:, number]
    merged = scan.norm(total.permute(0, 2, 3, 1))
    wanted = scan.leave(merged * torch.nn.functional.silu(gate))
    torch.testing.assert_close(scan(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_the_width_of_the_paper_has_its_parameters() -> None:
    with torch.device("meta"):
        network = VmUnet(3, 1, width=96)
    assert round(trained_count(network) / 1e6, 2) == 27.43


def test_restyling_is_the_published_formula() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 2, 10)
    for_mean, for_spread = torch.randn(2, 3, 2, 1)
    found = restyled(features, for_mean, for_spread)
    for channel in range(2):
        means = [features[b, channel].mean() for b in range(3)]
        variances = [features[b, channel].var(correction=0) for b in range(3)]
        spreads = [(each + EPSILON).sqrt() for each in variances]
        apart = (torch.stack(means).var() + EPSILON).sqrt()
        spread_apart = (torch.stack(spreads).var() + EPSILON).sqrt()
        for b in range(3):
            plain = (features[b, channel] - means[b]) / spreads[b]
            gamma = spreads[b] + for_spread[b, channel, 0] * spread_apart
            beta = means[b] + for_mean[b, channel, 0] * apart
            torch.testing.assert_close(found[b, channel], gamma * plain + beta)


def test_only_a_run_of_a_sequence_is_restyled() -> None:
    torch.manual_seed(0)
    style = SequenceStyle(share=0.5, applied=1.0)
    features = torch.randn(4, 3, 20)
    changed = (style(features) != features).all(dim=1)
    assert changed.sum(dim=1).tolist() == [10] * 4
    for row in changed:
        first = int(row.int().argmax())
        assert row[first : first + 10].all()


@pytest.mark.parametrize("kind", [SequenceStyle, AppearanceVariation, FeatureStyle])
def test_nothing_is_changed_in_use_or_alone(kind: type) -> None:
    layer = kind(3) if kind is AppearanceVariation else kind(applied=1.0)
    shape = (4, 3, 8) if kind is SequenceStyle else (4, 3, 8, 8)
    images = torch.rand(shape) * 0.3
    assert not torch.equal(layer(images), images)
    assert torch.equal(layer(images[:1]), images[:1])
    assert torch.equal(layer.eval()(images), images)


def test_only_dark_pixels_vary_and_stay_between_0_and_1() -> None:
    torch.manual_seed(0)
    layer = AppearanceVariation(1, below=0.4, applied=1.0)
    images = torch.rand(4, 1, 16, 16)
    found = layer(images)
    bright = images >= 0.4
    assert torch.equal(found[bright], images[bright])
    assert 0.0 < found.min() and found.max() <= 1.0
