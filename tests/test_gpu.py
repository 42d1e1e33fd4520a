"""On a GPU everything says what it says on the processor, and goes on when it is full.

All of these need a CUDA device, and are skipped without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import tiny_vit

from napari_medseg import metrics
from napari_medseg._types import JobError, finish
from napari_medseg.inference import load, open_segmenter
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models import sam as sams
from napari_medseg.models import vit
from napari_medseg.models.backbone import autocast, load_backbone
from napari_medseg.models.clicks import Prompt
from napari_medseg.models.devices import compute_dtype, is_out_of_memory
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.models.networks import network_class
from napari_medseg.models.selective_scan import selective_scan
from napari_medseg.samples import make_two_kinds
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.tuning import tune
from napari_medseg.training.whole import train_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gpu

CLOSE = 2e-2
"""Relative error of bfloat16 against float32, through a whole encoder."""


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Generated images in which the round cells are annotated."""
    scenes = make_two_kinds(6, seed=3, size=128)
    return gather(
        [
            Pair(
                f"{index}",
                scene.image.astype(np.float32),
                (scene.kinds == 1).astype(np.int32),
            )
            for index, scene in enumerate(scenes)
        ]
    )


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    found, exact = found.float().cpu(), exact.float().cpu()
    return float((found - exact).norm() / exact.norm())


def test_embeddings_of_the_bundled_sam_are_those_of_the_processor(
    gpu: torch.device,
) -> None:
    windows = torch.randn(3, 512, 512, generator=torch.Generator().manual_seed(0))
    backbone, other = load_backbone("nano"), load_backbone("nano")
    exact = other.embed(windows, torch.device("cpu"))
    found = backbone.embed(windows, gpu)
    assert found.device.type == "cpu" and found.dtype == torch.float16
    assert relative_error(found, exact) < CLOSE


@pytest.mark.parametrize("size", [128, 112, 208])
def test_encoder_in_blocks_is_that_of_segment_anything(
    gpu: torch.device, size: int
) -> None:
    encoder = tiny_vit(size).requires_grad_(False)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    exact = encoder(image)
    light = vit.light(encoder, compute_dtype(gpu)).to(gpu)
    with torch.inference_mode(), autocast(gpu):
        found = sams.encode(light, image.to(gpu))
    assert relative_error(found, exact) < CLOSE


@pytest.mark.parametrize("name", ["nuclei-fluo", "med2d-nuclei", "nano"])
def test_a_model_of_the_shelf_finds_what_it_finds_on_the_processor(
    gpu: torch.device, name: str, pairs: Pairs
) -> None:
    image = pairs[0].image
    exact = open_segmenter(name, "cpu").predict(image)
    found = open_segmenter(name, gpu.type).predict(image)
    assert metrics.dice(found.labels > 0, exact.labels > 0) > 0.97
    assert np.abs(found.probabilities - exact.probabilities).mean() < 0.02


def test_a_click_is_answered_as_on_the_processor(
    gpu: torch.device, pairs: Pairs
) -> None:
    rows, columns = np.nonzero(pairs[0].annotation)
    middle = (float(rows[len(rows) // 2]), float(columns[len(rows) // 2]))
    prompt = Prompt.of_clicks([middle], [True])
    answers = []
    for device in ("cpu", gpu.type):
        seen = InteractiveImage.of_image(
            pairs[0].image, load_backbone("nano"), device, rgb=False
        )
        finish(seen.embed())
        answers.append(seen.answer(prompt))
    exact, found = (answer.masks[0] > 0 for answer in answers)
    assert metrics.iou(found, exact) > 0.9


def test_prompts_tuned_on_a_gpu_are_a_model_for_any_computer(
    gpu: torch.device, pairs: Pairs, tmp_path: Path
) -> None:
    config = PromptTuning(steps=40, views=1, working_size=256, device=gpu.type)
    tuned = finish(tune(pairs, config))
    assert_the_same_everywhere(tuned.model_file, pairs, gpu, tmp_path)


def test_a_network_trained_on_a_gpu_is_a_model_for_any_computer(
    gpu: torch.device, pairs: Pairs, tmp_path: Path
) -> None:
    config = Med2dTraining(steps=60, window=64, device=gpu.type, validate=0)
    trained = finish(train_network(pairs, config))
    assert_the_same_everywhere(trained.model_file, pairs, gpu, tmp_path)


def assert_the_same_everywhere(
    model: model_file.ModelFile, pairs: Pairs, gpu: torch.device, folder: Path
) -> None:
    """Check that a model has learned, and says the same on both devices."""
    path = model_file.save(folder / "trained.medseg", model)
    exact = load(path, "cpu").predict(pairs[0].image)
    found = load(path, gpu.type).predict(pairs[0].image)
    assert metrics.dice(exact.labels > 0, pairs[0].annotation > 0) > 0.3
    assert metrics.dice(found.labels > 0, exact.labels > 0) > 0.95


@pytest.mark.parametrize("name", ["med2d", "mamba", "xnet", "unetr"])
def test_networks_give_finite_gradients_in_mixed_precision(
    gpu: torch.device, name: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_class(name).build(2, 3).to(gpu).train()
    images = torch.randn(2, 2, 64, 64, device=gpu)
    with autocast(gpu):
        logits = network(images)
        loss = torch.nn.functional.cross_entropy(
            logits.float(), torch.zeros(logits[:, 0].shape, dtype=int, device=gpu)
        )
    loss.backward()
    given = [item.grad for item in network.parameters() if item.grad is not None]
    assert given and all(torch.isfinite(item).all() for item in given)


def test_the_scan_is_that_of_the_processor(gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(2, 4, 300, generator=generator),
        torch.rand(2, 4, 300, generator=generator),
        -torch.rand(4, 8, generator=generator),
        torch.randn(2, 8, 300, generator=generator),
        torch.randn(2, 8, 300, generator=generator),
    ]
    exact = selective_scan(*given)
    found = selective_scan(*(item.to(gpu) for item in given))
    assert relative_error(found, exact) < 1e-4


@pytest.fixture
def hardly_any_memory(gpu: torch.device) -> Iterator[None]:
    """Leave this process what it has, and very little more."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    share = (torch.cuda.memory_reserved(gpu) + 64 * 2**20) / total
    torch.cuda.set_per_process_memory_fraction(share, gpu)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, gpu)


@pytest.mark.usefixtures("hardly_any_memory")
def test_a_full_gpu_is_told_apart_and_smaller_windows_are_tried(
    gpu: torch.device,
) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**30, device=gpu)
    assert is_out_of_memory(caught.value)
    image = np.random.default_rng(0).random((1, 1500, 1500), np.float32)
    try:
        found = open_segmenter("nano", gpu.type).predict(image)
    except JobError as error:  # where even the smallest windows do not fit
        assert "Memory ran out" in str(error)
    else:
        assert found.labels.shape == (1500, 1500)
