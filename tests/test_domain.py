"""Other domains are met in training: styles, appearances, and the same of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from napari_medseg.models.sam import standardise, unstandardise
from napari_medseg.models.style import AppearanceVariation
from napari_medseg.training.domain import (
    DomainConfig,
    Generalising,
    domains_of,
    restyling,
)
from napari_medseg.training.supervised import LabelledBatch, LossConfig, Supervised

if TYPE_CHECKING:
    from collections.abc import Sequence


class Small(nn.Module):
    """A network of two convolutions."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(images).relu())
        return found


def batch(count: int = 4, channels: int = 1, size: int = 8) -> LabelledBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, channels, size, size, generator=generator)
    inside = (images.mean(1) > 0.5).float()
    shares = torch.stack([1 - inside, inside], dim=1)
    weight = torch.ones(count, size, size)
    places = torch.eye(2, 3).expand(count, 2, 3)
    return LabelledBatch(
        standardise(images), shares, weight, torch.arange(count), places
    )


def generalising(
    channels: int = 1, where: Sequence[str] = (), **parts: float
) -> Generalising:
    config = DomainConfig(**{"style": 0.0, "below": 0.0, **parts})
    return Generalising(config, LossConfig(), channels, where)


def test_without_any_part_it_is_the_plain_objective() -> None:
    model, given = Small(), batch()
    found, _ = generalising().step(model, given)
    wanted, _ = Supervised().step(model, given)
    assert torch.equal(found, wanted)


def test_the_loss_is_the_published_sum() -> None:
    model, given = Small(), batch()
    objective = generalising(below=0.4, consistency=0.1)
    assert objective.appearance is not None
    torch.manual_seed(3)
    found, figures = objective.step(model, given)
    torch.manual_seed(3)
    varied = standardise(objective.appearance(unstandardise(given.inputs)))
    plain = Supervised()
    one, _ = plain.step(model, given)
    other, _ = plain.step(model, given._replace(inputs=varied))
    apart = ((model(given.inputs) - model(varied)) ** 2).mean()
    torch.testing.assert_close(found, 0.5 * (one + other) + 0.1 * apart)
    torch.testing.assert_close(figures["apart"], apart)


def test_what_varies_the_appearance_is_trained_along() -> None:
    model, objective = Small(), generalising(below=0.9)
    assert objective.appearance is not None
    groups = objective.parameters(model)
    trained = {id(item) for group in groups for item in group["params"]}
    assert {id(item) for item in objective.appearance.parameters()} <= trained
    torch.manual_seed(0)
    objective.step(model, batch())[0].backward()
    assert objective.appearance.first.weight.grad is not None
    assert objective.appearance.first.weight.grad.any()


def test_its_state_goes_round() -> None:
    one, other = (
        generalising(below=0.4),
        Generalising(DomainConfig(), LossConfig(), 1, seed=5),
    )
    other.load_state(one.state())
    for key, item in one.state().items():
        assert torch.equal(other.state()[key], item)


def test_features_are_restyled_while_a_step_lasts() -> None:
    model, given = Small(), batch()
    objective = generalising(where=("first",), style=1.0)
    objective.style.applied = 1.0
    plain, _ = Supervised().step(model, given)
    restyled, _ = objective.step(model, given)
    assert not torch.equal(plain, restyled)
    again, _ = Supervised().step(model, given)
    assert torch.equal(plain, again)


def test_an_error_leaves_no_hook_behind() -> None:
    model = Small()
    with (
        pytest.raises(ValueError, match="here"),
        restyling(model, ("first",), nn.Identity()),
    ):
        raise ValueError("here")
    assert not model.first._forward_hooks


def test_embeddings_are_restyled_themselves() -> None:
    model, given = Small(3), batch(channels=3)
    objective = generalising(channels=0, style=1.0, below=0.4)
    objective.style.applied = 1.0
    assert objective.appearance is None
    torch.manual_seed(0)
    found, _ = objective.step(model, given)
    torch.manual_seed(0)
    inputs = objective.style(given.inputs)
    wanted, _ = Supervised().step(model, given._replace(inputs=inputs))
    assert torch.equal(found, wanted)


def test_windows_go_to_0_to_1_and_back() -> None:
    for channels in (1, 3, 4):
        images = torch.rand(2, channels, 3, 3)
        torch.testing.assert_close(unstandardise(standardise(images)), images)
    assert isinstance(AppearanceVariation(4), nn.Module)


def test_domains_by_name_or_folder() -> None:
    names, folders = ["fluo_1", "bf_2", "fluo_3"], ["/a", "/b", "/b"]
    assert domains_of(names, folders, "prefix") == [1, 0, 1]
    assert domains_of(names, folders, "folder") == [0, 1, 1]
