"""The decoder for clicks is trained, masks may be given to it, the encoder stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_medseg._types import WeightsError
from napari_medseg.models import bundled
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.click_decoder import ClickDecoder, load_click_decoder
from napari_medseg.models.registry import SAMS
from napari_medseg.models.sam import build_nano
from napari_medseg.training.clicking import (
    Clicking,
    ClickingConfig,
    ClickModel,
)
from napari_medseg.training.pack import BatchShape, Pack, PackBatches, generated_crops
from napari_medseg.training.single_objects import sample_middles

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg.training.promptable import PromptableBatch

SIZE = 64


def fresh_model() -> ClickModel:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        sam = build_nano(SIZE).requires_grad_(False)
    return ClickModel(sam).train()


@pytest.fixture(scope="module")
def batch() -> PromptableBatch:
    pack = Pack.from_crops([("generated", list(generated_crops(2, seed=0)))])
    return PackBatches(pack, [1.0], [BatchShape(2, SIZE)], seed=1)(0)


def state(model: ClickModel, part: str) -> dict[str, Tensor]:
    module = model.sam.get_submodule(part)
    return {name: item.clone() for name, item in module.state_dict().items()}


def test_one_batch_is_learnt_and_embeddings_stay(batch: PromptableBatch) -> None:
    model, objective = fresh_model(), Clicking(ClickingConfig())
    before = state(model, "image_encoder")
    optimiser = torch.optim.AdamW(objective.parameters(model), lr=1e-3)
    losses = []
    for _ in range(6):
        loss, figures = objective.step(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[2] < losses[0]
    assert 0 <= float(figures["iou"]) <= 1
    after = state(model, "image_encoder")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_all_that_answers_is_trained(batch: PromptableBatch) -> None:
    model, objective = fresh_model(), Clicking(ClickingConfig())
    groups = objective.parameters(model)
    for seed in range(8):  # clicks and boxes come by chance
        step = batch._replace(seed=torch.tensor(seed))
        objective.step(model, step)[0].backward()
    idle = {
        name
        for name, item in model.trained()
        if item.grad is None or not item.grad.abs().max() > 0
    }
    # of three masks the best learns; a bias that is the same for all pixels falls out
    # of a softmax over the pixels
    spared = ("output_hypernetworks_mlps", "k_proj.bias")
    assert not [name for name in idle if not any(part in name for part in spared)]
    assert all(item.ndim > 1 for item in groups[0]["params"])


def test_nothing_is_learnt_where_there_is_no_object(batch: PromptableBatch) -> None:
    model, objective = fresh_model(), Clicking(ClickingConfig())
    objective.parameters(model)
    empty = batch._replace(ids=torch.zeros_like(batch.ids))
    loss, figures = objective.step(model, empty)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert figures == {}


def test_people_click_in_the_middle_of_the_largest_part() -> None:
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 4:8, 2:20] = True
    masks[0, 10:35, 30:55] = True
    drawn = torch.Generator().manual_seed(3)
    there, points = sample_middles(masks, 1, 60, drawn)
    assert there.tolist() == [[True], [False]]
    # within half the depth of the middle of the larger one
    torch.testing.assert_close(
        points[0, 0], torch.tensor([42.0, 22.0]), atol=7.0, rtol=0
    )


def test_the_decoder_for_clicks_is_for_the_weights_it_was_trained_on() -> None:
    entry = SAMS["nano"]
    assert entry.clicks is not None
    nano = load_backbone("nano")
    assert bundled.card(entry.clicks)["answers_for"] == nano.digest
    answering = nano.answering(torch.device("cpu"))
    assert isinstance(answering, ClickDecoder)
    # it is another decoder, and what is tuned does not meet it
    own = nano.on(torch.device("cpu")).mask_decoder
    assert not torch.equal(
        answering.mask_decoder.mask_tokens.weight, own.mask_tokens.weight
    )
    assert not any(item.requires_grad for item in answering.parameters())
    # the very same weights under another name are somebody's own
    same = load_backbone(str(bundled.find(entry.weights.name)))
    assert same.answering(torch.device("cpu")) is same.sam
    assert {name for name, each in SAMS.items() if each.clicks} == {"nano"}


def test_a_damaged_decoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = build_nano(SIZE)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="missing"):
        load_click_decoder("clicks.safetensors", sam)
    file = tmp_path / "clicks.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        load_click_decoder(file.name, sam)
    save_file({"mask_decoder.iou_token.weight": torch.zeros(1, 256)}, file)
    with pytest.raises(WeightsError, match="damaged"):
        load_click_decoder(file.name, sam)
