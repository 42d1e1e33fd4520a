"""The objective that nano is trained with: it runs, it learns, it draws fairly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from napari_medseg.models.sam import build_nano
from napari_medseg.samples import KINDS
from napari_medseg.training import tasks
from napari_medseg.training.drawing import (
    exemplar_tokens,
    jittered_boxes,
    object_rows,
    sample_points,
    target_maps,
)
from napari_medseg.training.pack import Pack, PackBatches, generated_crops
from napari_medseg.training.promptable import (
    DenseWarmUp,
    Promptable,
    PromptableBatch,
    PromptableConfig,
    PromptableModel,
    parameter_groups,
)

SIZE = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh_model() -> PromptableModel:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return PromptableModel(build_nano(SIZE), KINDS).train()


@pytest.fixture(scope="module")
def model() -> PromptableModel:
    """For tests that do not train it."""
    return fresh_model()


@pytest.fixture(scope="module")
def batch() -> PromptableBatch:
    pack = Pack.from_crops([("generated", list(generated_crops(2, seed=0)))])
    return PackBatches(pack, [1.0], 2, SIZE, seed=1)(0)


@pytest.mark.parametrize(
    ("mix", "figures"),
    [
        ({}, {"named", "filters", "objects", "object_iou"}),
        ({"exemplars": 2}, {"named", "filters", "exemplars", "objects", "object_iou"}),
        ({"named": 0}, {"filters", "objects", "object_iou"}),
        ({"filters": 0, "objects": 0}, {"named"}),
        ({"named": 0, "filters": 0, "exemplars": 1, "objects": 0}, {"exemplars"}),
    ],
)
def test_a_step_of_any_mix_of_tasks(
    mix: dict[str, Any], figures: set[str], model: PromptableModel, batch: Any
) -> None:
    loss, found = Promptable(PromptableConfig(**mix)).step(model, batch)
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert set(found) == figures | {"readout"}
    assert all(torch.isfinite(value) for value in found.values())


def test_same_seed_same_loss(model: PromptableModel, batch: PromptableBatch) -> None:
    objective = Promptable(PromptableConfig(exemplars=1))
    model.eval()  # or batch normalisation moves between the two
    with torch.no_grad():
        first = objective.step(model, batch)[0]
        torch.rand(9)
        assert torch.equal(objective.step(model, batch)[0], first)
        other = objective.step(model, batch._replace(seed=torch.tensor(5)))[0]
    model.train()
    assert not torch.equal(other, first)


def test_all_of_sam_that_prompts_reach_is_trained(batch: PromptableBatch) -> None:
    model = fresh_model()
    objective = Promptable(PromptableConfig(exemplars=1))
    for seed in range(4):  # clicks and boxes come by chance
        objective.step(model, batch._replace(seed=torch.tensor(seed)))[0].backward()
    idle = {
        name
        for name, item in model.named_parameters()
        if item.grad is None or not item.grad.abs().max() > 0
    }
    # masks as prompts are no part of the training, and of three masks the best learns
    spared = ("mask_downscaling", "output_hypernetworks_mlps")
    assert not [name for name in idle if not any(part in name for part in spared)]


def learn(objective: Any, batch: PromptableBatch, steps: int) -> list[float]:
    model = fresh_model()
    optimiser = torch.optim.AdamW(objective.parameters(model), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss, _ = objective.step(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    "objective", [DenseWarmUp(), Promptable(PromptableConfig(named=1, filters=1))]
)
def test_one_batch_is_learnt(objective: Any, batch: PromptableBatch) -> None:
    losses = learn(objective, batch, 5)
    assert losses[-1] < losses[2] < losses[0]


def test_warm_up_leaves_the_transformer_alone(batch: PromptableBatch) -> None:
    model = fresh_model()
    objective = DenseWarmUp()
    loss, figures = objective.step(model, batch)
    loss.backward()
    assert torch.isfinite(loss) and set(figures) == {"readout"}
    before = {name: item.detach().clone() for name, item in model.named_parameters()}
    torch.optim.AdamW(objective.parameters(model), lr=1e-3, weight_decay=0.1).step()
    changed = {
        name
        for name, item in model.named_parameters()
        if not torch.equal(item, before[name])
    }
    untouched = ("transformer", "task_tokens", "point_embeddings", "iou_", "hyper")
    assert not [name for name in changed if any(part in name for part in untouched)]
    assert any("image_encoder" in name for name in changed)
    assert any("output_upscaling" in name for name in changed)
    assert "readout.weight" in changed


def test_every_parameter_is_in_one_group(model: PromptableModel) -> None:
    groups = parameter_groups(model)
    listed = [id(item) for group in groups for item in group["params"]]
    assert sorted(listed) == sorted(id(item) for item in model.parameters())
    assert all(item.ndim >= 2 for item in groups[0]["params"])
    assert {group.get("weight_decay") for group in groups[1:]} == {0.0}
    assert groups[2]["params"] == [model.task_tokens]


def test_targets_are_as_exact_in_mixed_precision(batch: PromptableBatch) -> None:
    """Else bfloat16 leaves little of the second derivatives of a smooth image."""
    exact = target_maps(batch, len(KINDS), 2)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = target_maps(batch, len(KINDS), 2)
    for one, other in zip(exact, mixed, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_targets_are_averages_of_the_tasks(batch: PromptableBatch) -> None:
    maps = target_maps(batch, len(KINDS), 2)
    half = SIZE // 2
    assert maps.named.shape == (2, len(tasks.OBJECT_TASKS) + len(KINDS), half, half)
    assert maps.filters.shape == (2, len(tasks.FILTER_TASKS), half, half)
    inside = (batch.ids > 0).float().view(2, half, 2, half, 2).mean(dim=(2, 4))
    torch.testing.assert_close(maps.named[:, 0], inside)
    torch.testing.assert_close(
        maps.named[:, 0] + maps.named[:, 1], maps.named[:, 0] * 0 + 1
    )


def masks(rows: int = 6) -> Tensor:
    """Return rectangles and discs of several sizes."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    discs = [
        (y - 20 - row) ** 2 + (x - 30) ** 2 < (6 + 2 * row) ** 2 for row in range(rows)
    ]
    return torch.stack(discs)


@pytest.mark.parametrize("shrink", [1, 2])
def test_points_lie_in_their_masks(shrink: int) -> None:
    wanted = masks()[:, ::shrink, ::shrink]
    there, points = sample_points(wanted, 5, SIZE, generator())
    assert there.all()
    assert points.shape == (6, 5, 2)
    cell = ((points + 0.5) / shrink).long()
    for row in range(6):
        x, y = cell[row].unbind(dim=1)
        assert wanted[row][y, x].all()
        assert len(set(zip(x.tolist(), y.tolist(), strict=True))) == 5
    again = sample_points(wanted, 5, SIZE, generator())[1]
    assert torch.equal(points, again)
    assert not torch.equal(points, sample_points(wanted, 5, SIZE, generator(1))[1])


def test_points_of_masks_that_are_too_small() -> None:
    wanted = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    wanted[0, 7, 9] = True
    there, points = sample_points(wanted, 3, SIZE, generator())
    assert there.tolist() == [[True, False, False], [False] * 3]
    assert points[0, 0].tolist() == [9, 7]


def test_boxes_hold_most_of_their_object() -> None:
    wanted = masks()
    moved = []
    for seed in range(20):
        boxes = jittered_boxes(wanted, generator(seed))
        assert boxes.shape == (6, 2, 2)
        assert boxes.min() >= 0 and boxes.max() <= SIZE - 1
        for mask, ((left, top), (right, bottom)) in zip(wanted, boxes, strict=True):
            y, x = torch.nonzero(mask).unbind(dim=1)
            inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
            assert inside.float().mean() > 0.64
            width = x.max() - x.min()
            assert (left - x.min()).abs() <= 0.1 * width + 1e-4
            assert (right - x.max()).abs() <= 0.1 * width + 1e-4
            moved.append(float(left - x.min()))
    assert min(moved) < 0 < max(moved)


def test_objects_are_asked_for_one_by_one(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    for seed in range(6):
        rows = object_rows(model, batch, 3, generator(seed))
        assert rows is not None
        assert rows.tokens.shape[0] == rows.target.shape[0] == len(rows.image) <= 6
        assert rows.tokens.shape[2] == 256
        for image, target in zip(rows.image.tolist(), rows.target, strict=True):
            pooled = [
                (batch.ids[image] == number).float()
                for number in batch.ids[image].unique()[1:].tolist()
            ]
            small = torch.stack(pooled).view(-1, 32, 2, 32, 2).mean(dim=(2, 4))
            assert (small == target).all(dim=(1, 2)).any()


def test_nothing_is_asked_for_where_there_is_no_object(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    empty = batch._replace(ids=torch.zeros_like(batch.ids))
    assert object_rows(model, empty, 2, generator()) is None
    specks = torch.zeros_like(batch.ids)
    specks[:, :6, :6] = 1
    assert object_rows(model, batch._replace(ids=specks), 2, generator()) is None
    for mix in (PromptableConfig(), PromptableConfig(exemplars=1)):
        loss, figures = Promptable(mix).step(model, empty)
        assert torch.isfinite(loss)
        assert "objects" not in figures


def test_exemplars_are_points_on_and_off_the_target(model: PromptableModel) -> None:
    target = masks(4).float()
    tokens = exemplar_tokens(model.sam, target, SIZE, generator())
    assert tokens.shape == (4, 8, 256)
    none = model.sam.prompt_encoder.not_a_point_embed.weight[0]
    with torch.no_grad():
        shown = (tokens - none).abs().amax(dim=2) > 1e-6
    assert shown[:, 0].all() and shown[:, 4].all()
    # as many on it as off it
    assert torch.equal(shown[:, :4], shown[:, 4:])
    nothing = exemplar_tokens(model.sam, target * 0, SIZE, generator())
    with torch.no_grad():
        assert not ((nothing[:, :4] - none).abs() > 1e-6).any()


def test_only_a_promptable_model_can_be_trained(batch: PromptableBatch) -> None:
    for objective in (DenseWarmUp(), Promptable(PromptableConfig())):
        with pytest.raises(TypeError, match="Linear is not a PromptableModel"):
            objective.step(torch.nn.Linear(1, 1), batch)
