"""Other domains are met in training: styles, appearances, and the same of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_medseg import api
from napari_medseg._types import InputError, finish
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.models.sam import standardise, unstandardise
from napari_medseg.models.style import (
    CURVES,
    SHARE,
    AppearanceVariation,
    Shades,
    along_curves,
)
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.domain import (
    DomainConfig,
    Generalising,
    other_domains,
    restyling,
)
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.learners import WholeNetwork
from napari_medseg.training.network_training import MambaTraining, Med2dTraining
from napari_medseg.training.objectives import objective_of
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.study import Study
from napari_medseg.training.supervised import LabelledBatch, LossConfig, Supervised
from napari_medseg.training.tuning import study_of
from napari_medseg.training.views import Turns

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
    config = DomainConfig(**{"style": 0.0, "below": 0.0, "curves": 0.0, **parts})
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


def test_the_model_is_to_say_the_same_of_other_shades() -> None:
    model, given = Small(), batch()
    objective = generalising(curves=1.0, consistency=0.1)
    torch.manual_seed(3)
    found, figures = objective.step(model, given)
    torch.manual_seed(3)
    varied = standardise(Shades(1.0)(unstandardise(given.inputs)))
    apart = ((model(given.inputs) - model(varied)) ** 2).mean()
    assert apart > 0
    torch.testing.assert_close(figures["apart"], apart)
    plain = Supervised()
    both = [
        plain.step(model, given._replace(inputs=each))[0]
        for each in (given.inputs, varied)
    ]
    torch.testing.assert_close(found, 0.5 * sum(both) + 0.1 * apart)


def test_curves_are_those_of_bezier() -> None:
    generator = torch.Generator().manual_seed(2)
    controls = torch.rand(3, 2, 2, generator=generator)
    values = torch.rand(3, 2, 5, 7, generator=generator)
    found = along_curves(values, controls)
    at = np.linspace(0, 1, 100_001)
    for index in range(3):
        (x1, y1), (x2, y2) = np.sort(controls[index].numpy(), axis=0)
        across, up = (
            3 * (1 - at) ** 2 * at * one + 3 * (1 - at) * at**2 * two + at**3
            for one, two in ((x1, x2), (y1, y2))
        )
        wanted = np.interp(values[index].numpy(), across, up)
        np.testing.assert_allclose(found[index].numpy(), wanted, atol=2e-3)


def test_curves_rise_from_black_to_white() -> None:
    controls = torch.rand(8, 2, 2, generator=torch.Generator().manual_seed(0))
    found = along_curves(torch.linspace(0, 1, 50).expand(8, -1), controls)
    assert (found.diff(dim=1) >= 0).all()
    torch.testing.assert_close(found[:, 0], torch.zeros(8))
    torch.testing.assert_close(found[:, -1], torch.ones(8))


def test_the_corners_themselves_can_be_control_points() -> None:
    step = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]])
    found = along_curves(torch.linspace(0, 1, 9).expand(2, -1), step)
    assert found.isfinite().all()
    assert (found.diff(dim=1) >= 0).all()


def test_bright_becomes_dark_for_some_images_and_only_in_training() -> None:
    ramp = torch.linspace(0, 1, 20).view(1, 1, 4, 5).expand(40, 3, 4, 5)
    torch.manual_seed(0)
    shades = Shades()
    ends = shades(ramp)[:, 0].flatten(1)
    falling = ends[:, 0] > ends[:, -1]
    assert 8 < int(falling.sum()) < 32
    assert torch.equal(shades.eval()(ramp), ramp)
    assert torch.equal(Shades(applied=0.0)(ramp), ramp)


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


def named(name: str, folder: str) -> Pair:
    image = np.zeros((1, 4, 4), np.float32)
    labels = np.eye(4, dtype=np.int32)
    return Pair(name, image, labels, image_path=Path(folder) / f"{name}.tif")


def test_domains_by_name_or_folder() -> None:
    pairs = gather(
        [named("fluo_1", "/a"), named("bf_2", "/b"), named("fluo_3", "/b")],
        annotation="dense",
    )
    assert pairs.domains("prefix") == [1, 0, 1]
    assert pairs.domains("folder") == [0, 1, 1]
    assert pairs.domains("none") == [0, 0, 0]


def test_domains_take_turns_however_large_they_are() -> None:
    domains = [0, 0, 0, 0, 0, 1]
    turns = Turns(domains, (3,))
    met = [turns(place) for place in range(20)]
    assert [domains[index] for index in met] == [0, 1] * 10
    assert sorted(met[0:10:2]) == [0, 1, 2, 3, 4]


def test_settings_that_exclude_one_another_are_refused() -> None:
    config = PromptTuning(label_noise="spatial", domains="prefix")
    with pytest.raises(InputError, match="--label-noise and --domains"):
        objective_of(config)


@pytest.mark.parametrize("method", ["med2d", "mamba"])
def test_networks_are_trained_for_other_domains(method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(4):
        labels = np.zeros((64, 64), np.int32)
        labels[20:40, 20:40] = 1
        image = labels[None] * 0.5 + rng.random((1, 64, 64)) * 0.3
        name = f"{'ab'[number % 2]}_{number}"
        pairs.append(Pair(name, image.astype(np.float32), labels))
    kind = {"med2d": Med2dTraining, "mamba": MambaTraining}[method]
    config = kind(steps=2, window=64, batch=2, domains="prefix", validate=0)
    given = gather(pairs, annotation="dense")
    trained = finish(api.train_job(given, config))
    again = finish(api.train_job(given, trained.config))
    assert all(
        np.array_equal(item, again.model_file.tensors[name])
        for name, item in trained.model_file.tensors.items()
    )


@pytest.mark.parametrize(
    ("domains", "styles", "curves", "restyled"),
    [
        ("none", "curves", 0.0, 0.0),
        ("prefix", "curves", CURVES, 0.0),
        ("prefix", "published", 0.0, SHARE),
        ("prefix", "all", CURVES, SHARE),
    ],
)
def test_the_settings_say_what_differs(
    domains: str, styles: str, curves: float, restyled: float
) -> None:
    pairs = gather(
        [named(name, "/a") for name in ("fluo_1", "bf_2")], annotation="dense"
    )
    chosen = {"domains": domains, "domain_styles": styles, "device": "cpu"}
    study = study_of(ClassGoal(pairs), PromptTuning(**chosen))
    assert study.view_config.curves == curves
    config = Med2dTraining(**chosen)
    learner = WholeNetwork.of(config)
    fresh = Study(learner, ClassGoal(pairs), config, Conduct())
    # of a network's windows the objective itself changes the shades
    assert fresh.view_config.curves == 0.0
    if domains == "none":
        return
    for each in (study, fresh):
        assert other_domains(each, [0, 1]).style.share == restyled
    objective = other_domains(fresh, [0, 1])
    assert (objective.shades is None) == (curves == 0)
    assert (objective.appearance is None) == (restyled == 0)
