"""The objective that nano is trained with: it runs, it learns, it draws fairly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from napari_medseg.models import sam as sams
from napari_medseg.models.sam import build_nano
from napari_medseg.samples import KINDS
from napari_medseg.training import tasks
from napari_medseg.training.drawing import DISC_RADIUS, Canvas, region_rows, target_maps
from napari_medseg.training.pack import BatchShape, Pack, PackBatches, generated_crops
from napari_medseg.training.promptable import (
    DenseWarmUp,
    Promptable,
    PromptableBatch,
    PromptableConfig,
    PromptableModel,
    parameter_groups,
    tie_positions,
)
from napari_medseg.training.single_objects import (
    ObjectRows,
    draw_objects,
    jittered_boxes,
    sample_points,
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
    return PackBatches(pack, [1.0], [BatchShape(2, SIZE)], seed=1)(0)


@pytest.mark.parametrize(
    ("mix", "figures"),
    [
        ({}, {"named", "filters", "regions", "objects", "object_iou"}),
        ({"regions": 0, "objects": 0}, {"named", "filters"}),
        ({"filters": 0}, {"named", "regions", "objects", "object_iou"}),
        ({"filters": 0, "regions": 0, "objects": 0}, {"named"}),
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
    objective = Promptable(PromptableConfig())
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
    objective = Promptable(PromptableConfig())
    for seed in range(4):  # clicks and boxes come by chance
        objective.step(model, batch._replace(seed=torch.tensor(seed)))[0].backward()
    idle = {
        name
        for name, item in model.named_parameters()
        if item.grad is None or not item.grad.abs().max() > 0
    }
    # masks as prompts are no part of the training, and of three masks the best learns;
    # a bias that is the same for all pixels falls out of a softmax over the pixels
    same_for_all = ("token_to_image.k_proj.bias",)
    spared = ("mask_downscaling", "output_hypernetworks_mlps", *same_for_all)
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


def whole(batch: PromptableBatch) -> Canvas:
    """Return the canvas of crops that are whole working images."""
    return Canvas.draw(batch, SIZE, generator())


def test_objects_are_asked_for_one_by_one(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    kinds = set()
    for seed in range(8):
        groups = draw_objects(batch, 3, generator(seed))
        assert 1 <= len(groups) <= 2
        assert sum(len(objects.image) for objects in groups) <= 6
        for objects in groups:
            rows = objects.rows(model.sam, whole(batch))
            assert rows.tokens.shape[:2] == objects.labels.shape
            assert rows.target.shape == (len(objects.image), SIZE // 2, SIZE // 2)
            for image, mask in zip(objects.image, objects.masks, strict=True):
                (number,) = batch.ids[image][mask].unique().tolist()
                assert number > 0
                assert torch.equal(mask, batch.ids[image] == number)
            kinds |= {tuple(labels) for labels in objects.labels.tolist()}
    assert {(1, -1), (2, 3), (1, 1, 1, -1)} <= kinds


def test_clicks_on_an_object_lie_on_it(batch: PromptableBatch) -> None:
    for seed in range(6):
        for objects in draw_objects(batch, 3, generator(seed)):
            for mask, points, labels in zip(
                objects.masks, objects.points, objects.labels, strict=True
            ):
                for x, y in points[labels == 1].round().long():
                    assert mask[y, x]


@pytest.mark.parametrize("shrink", [1, 2])
def test_corrections_are_set_where_the_mask_is_wrong(shrink: int) -> None:
    wanted = masks(2)
    first = torch.tensor([[[30.0, 20.0], [0.0, 0.0]]]).expand(2, 2, 2)
    labels = torch.tensor([[1, -1]]).expand(2, 2)
    objects = ObjectRows(torch.zeros(2, dtype=torch.long), wanted, first, labels)
    side = SIZE // shrink
    nothing = torch.zeros(2, side, side, dtype=torch.bool)
    missed = objects.corrected(nothing, generator())
    assert missed.labels.tolist() == [[1, 1, -1]] * 2
    for mask, (x, y) in zip(wanted, missed.points[:, 1].round().long(), strict=True):
        assert mask[y, x]
    extra = objects.corrected(~nothing, generator())
    assert extra.labels.tolist() == [[1, 0, -1]] * 2
    for mask, (x, y) in zip(wanted, extra.points[:, 1].round().long(), strict=True):
        assert not mask[y, x]
    if shrink == 1:
        right = objects.corrected(wanted, generator())
        assert torch.equal(right.points[:, 1], first[:, 0])
        assert right.labels.tolist() == [[1, 1, -1]] * 2


def test_nothing_is_asked_for_where_there_is_no_object(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    empty = batch._replace(ids=torch.zeros_like(batch.ids))
    assert draw_objects(empty, 2, generator()) == []
    specks = torch.zeros_like(batch.ids)
    specks[:, :6, :6] = 1
    assert draw_objects(batch._replace(ids=specks), 2, generator()) == []
    loss, figures = Promptable(PromptableConfig()).step(model, empty)
    assert torch.isfinite(loss)
    assert "objects" not in figures


def test_a_crop_has_the_position_code_of_its_place(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    """Clicks on a crop and its pixels are coded as in the whole working image."""
    canvas = Canvas(512, torch.tensor([[0.0, 0.0], [128.0, 256.0]]))
    code = canvas.code(model.sam, (8, 8))
    full = sams.position_code(model.sam.prompt_encoder, (64, 64))
    torch.testing.assert_close(code[:1], full[:, :, :8, :8])
    torch.testing.assert_close(code[1:], full[:, :, 32:40, 16:24])
    points = torch.tensor([[[10.0, 20.0]]])
    labels = torch.tensor([[1]])
    here = canvas.tokens(model.sam, torch.tensor([1]), points, labels)
    moved = points + torch.tensor([128.0, 256.0])
    there = sams.point_tokens(model.sam.prompt_encoder, moved, labels, (512, 512))
    torch.testing.assert_close(here, there)
    for seed in range(5):
        drawn = Canvas.draw(batch, 512, generator(seed))
        assert drawn.offset.min() >= 0 and drawn.offset.max() <= 512 - SIZE


def test_regions_are_a_named_task_in_one_place(
    model: PromptableModel, batch: PromptableBatch
) -> None:
    maps = target_maps(batch, len(KINDS), 2)
    everything = maps._replace(named=maps.named * 0 + 0.9)
    canvas = whole(batch)
    shapes = set()
    for seed in range(6):
        rows = region_rows(model, everything, canvas, 2, SIZE, generator(seed))
        assert rows.tokens.shape == (4, 2 + 8, 256)
        for target in rows.target:
            inside = target[target > 0]
            torch.testing.assert_close(inside, torch.full_like(inside, 0.9))
            assert 0 < (target > 0).sum() < target.numel() or DISC_RADIUS > SIZE / 2
            shapes.add(tuple(target.shape))
    assert shapes == {(SIZE // 2, SIZE // 2)}
    usual = region_rows(model, maps, canvas, 2, SIZE, generator(3))
    for image, target in zip(usual.image, usual.target, strict=True):
        kept = target > 0
        named = maps.named[image]
        assert ((named == target) | ~kept).all(dim=(1, 2)).any()


def test_tied_attention_looks_where_the_prompt_points() -> None:
    sam = fresh_model().sam
    tie_positions(sam)
    code = sams.position_code(sam.prompt_encoder, (16, 16))
    keys = code.flatten(2).transpose(1, 2)
    spot = torch.tensor([[[100.0, 180.0]]])
    token = (
        sams.point_tokens(sam.prompt_encoder, spot, torch.tensor([[1]]), (256, 256))
        - sam.prompt_encoder.point_embeddings[1].weight
    )
    attention = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    scores = (attention.q_proj(token) @ attention.k_proj(keys).transpose(1, 2))[0, 0]
    assert int(scores.argmax()) == (180 // 16) * 16 + 100 // 16


def test_only_a_promptable_model_can_be_trained(batch: PromptableBatch) -> None:
    for objective in (DenseWarmUp(), Promptable(PromptableConfig())):
        with pytest.raises(TypeError, match="Linear is not a PromptableModel"):
            objective.step(torch.nn.Linear(1, 1), batch)
