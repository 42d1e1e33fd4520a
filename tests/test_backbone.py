"""A SAM with its weights: found, recognised, and embedding each window once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from networks import random_nano, save_nano
from safetensors.torch import save_file

from napari_medseg._types import InputError, WeightsError
from napari_medseg.models import devices
from napari_medseg.models.backbone import (
    Backbone,
    autocast,
    load_backbone,
    load_base,
)
from napari_medseg.models.checkpoints import read_state, weights_digest
from napari_medseg.models.devices import (
    compute_dtype,
    is_out_of_memory,
    resolve_device,
    supports_bf16,
)
from napari_medseg.models.importing import import_file
from napari_medseg.models.prompts import PromptedDecoder
from napari_medseg.models.sam import encode, standardise

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nano(tmp_path_factory.mktemp("checkpoint") / "mine.pth")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nano(tmp_path_factory.mktemp("checkpoint") / "other.pth", seed=1)


@pytest.fixture
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


def window(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return standardise(torch.rand(1, 3, 64, 64, generator=generator))[0]


class Calls:
    """Counts how often a network is called."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.count = 0
        network.register_forward_hook(self._called)

    def _called(self, *_: object) -> None:
        self.count += 1


# --- loading


def test_a_checkpoint_is_loaded_as_it_is(backbone: Backbone, checkpoint: Path) -> None:
    assert (backbone.name, backbone.kind) == ("mine.pth", "nano")
    assert backbone.working_size == 512
    assert backbone.licence == "LicenseRef-unspecified"
    assert backbone.digest == weights_digest(read_state(checkpoint))
    assert backbone.card() == {
        "name": "mine.pth",
        "sha256": backbone.digest,
        "working_size": 512,
        "title": "mine (SAM nano (bundled))",
        "licence": "LicenseRef-unspecified",
    }
    expected = random_nano().state_dict()
    found = backbone.sam.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(module.training for module in backbone.sam.modules())
    assert not any(item.requires_grad for item in backbone.sam.parameters())
    image = torch.rand(3, 100, 80) * 255
    shaken = random_nano(working_size=512)
    torch.testing.assert_close(
        backbone.sam.preprocess(image), shaken.preprocess(image), rtol=0, atol=0
    )


def test_half_precision_is_computed_with_in_full(tmp_path: Path) -> None:
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in random_nano().state_dict().items()
    }
    path = tmp_path / "small.safetensors"
    save_file(state, path)
    backbone = load_backbone(str(path))
    assert backbone.digest == weights_digest(state)
    assert {item.dtype for item in backbone.sam.parameters()} == {torch.float32}
    inputs = window()[None]
    with torch.no_grad():
        found = encode(backbone.sam.image_encoder, inputs)
        expected = encode(random_nano().image_encoder, inputs)
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_the_bundled_sam_loads_and_works() -> None:
    backbone = load_backbone("nano")
    assert (backbone.name, backbone.kind) == ("nano", "nano")
    assert backbone.licence == "BSD-3-Clause" and backbone.working_size == 512
    embedding = backbone.embed(window(), CPU)
    assert torch.isfinite(embedding).all() and embedding.std() > 0
    assert load_base(backbone.card()).digest == backbone.digest


def test_an_imported_checkpoint_is_loaded_by_its_name(checkpoint: Path) -> None:
    import_file(checkpoint, "kidney")
    backbone = load_backbone("kidney")
    assert (backbone.name, backbone.kind) == ("kidney", "nano")
    assert load_base(backbone.card()).digest == backbone.digest


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("vit-b", InputError, "Did you mean 'vit_b'"),
        ("vit_b", WeightsError, "napari-medseg models fetch vit_b"),
        ("nowhere/sam.pth", WeightsError, "does not exist"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    name: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        load_backbone(name)


# --- the base of a model file


def test_the_base_is_found_where_it_was_last(tmp_path: Path) -> None:
    path = save_nano(tmp_path / "mine.pth")
    card = load_backbone(str(path)).card()
    assert "mine.pth" in card["name"] and str(tmp_path) not in str(card)
    assert load_base(card).digest == card["sha256"]
    moved = path.rename(tmp_path / "moved.pth")
    with pytest.raises(WeightsError, match=r"mine\.pth, which is not on this"):
        load_base(card)
    assert load_base(card, str(moved)).digest == card["sha256"]
    assert load_base(card).digest == card["sha256"]


def test_other_weights_are_refused(backbone: Backbone, other: Path) -> None:
    with pytest.raises(WeightsError, match="tuned on other weights") as refused:
        load_base(backbone.card(), str(other))
    assert str(other) in str(refused.value)
    assert backbone.digest[:12] in str(refused.value)


def test_a_file_that_became_another_is_refused(tmp_path: Path) -> None:
    path = save_nano(tmp_path / "mine.pth")
    card = load_backbone(str(path)).card()
    save_nano(path, seed=1)
    with pytest.raises(WeightsError, match="tuned on other weights"):
        load_base(card)


@pytest.mark.parametrize("card", [{}, {"name": "x.pth"}, {"sha256": "../../x"}])
def test_a_card_without_base_is_refused(card: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="not on this computer"):
        load_base(card)


# --- embedding


def test_a_window_is_embedded_as_by_the_encoder(backbone: Backbone) -> None:
    found = backbone.embed(window(), CPU)
    assert found.dtype == torch.float16 and found.shape == (256, 8, 8)
    with torch.no_grad(), autocast(CPU):
        same = encode(backbone.sam.image_encoder, window()[None])[0]
    assert torch.equal(found, same.half())
    with torch.no_grad():
        exact = encode(backbone.sam.image_encoder, window()[None])[0]
    assert (found - exact).norm() < 0.03 * exact.norm()


def test_each_window_is_embedded_once(backbone: Backbone) -> None:
    calls = Calls(backbone.sam.image_encoder)
    first = backbone.embed(window(), CPU)
    assert torch.equal(backbone.embed(window(), CPU), first)
    assert calls.count == 1
    second = backbone.embed(window(1), CPU)
    assert calls.count == 2 and not torch.equal(first, second)


def test_the_same_weights_embed_alike(backbone: Backbone, checkpoint: Path) -> None:
    again = load_backbone(str(checkpoint))
    assert torch.equal(again.embed(window(), CPU), backbone.embed(window(), CPU))


@pytest.mark.parametrize("fineness", [1, 2])
def test_an_embedding_is_in_memory_once(backbone: Backbone, fineness: int) -> None:
    """A training holds all of its embeddings, and so does the cache."""
    first = backbone.embed(window(), CPU, fineness)
    again = backbone.embed(window(), CPU, fineness)
    assert again.data_ptr() == first.data_ptr()
    assert len(first) == 256 * fineness**2


def test_how_finely_it_looks_tells_embeddings_apart(backbone: Backbone) -> None:
    plain = backbone.embed(window(), CPU)
    fine = backbone.embed(window(), CPU, 2)
    assert torch.equal(fine[:256], plain) and not torch.equal(fine[256:512], plain)
    assert torch.equal(backbone.embed(window(), CPU), plain)


def test_prompts_can_be_trained_on_a_kept_embedding(backbone: Backbone) -> None:
    backbone.embed(window(), CPU)
    embedding = backbone.embed(window(), CPU)
    assert not embedding.is_inference()
    decoder = PromptedDecoder(backbone.sam)
    decoder(embedding[None].float())[:, 1].mean().backward()
    assert decoder.prompts.grad is not None and decoder.prompts.grad.any()


# --- devices


def test_the_processor_is_always_there() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device().type in {"cpu", "cuda", "mps"}


def test_the_fastest_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device().type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device().type == "cpu"
    for name in ("cuda", "mps"):
        with pytest.raises(InputError, match=r"not there. Choose 'auto', or 'cpu'"):
            resolve_device(name)


def test_an_unknown_device_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match="one of auto, cpu, cuda, mps"):
        resolve_device("gpu")


def test_bfloat16_is_used_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_features(**features: bool) -> None:
        monkeypatch.setattr(
            devices.torch.cpu, "get_capabilities", lambda: features, raising=False
        )

    with_features(avx2=True, avx512_bf16=False)
    assert not supports_bf16(CPU) and compute_dtype(CPU) == torch.float32
    with_features(amx_bf16=True)
    assert supports_bf16(CPU) and compute_dtype(CPU) == torch.bfloat16
    with autocast(CPU):
        assert torch.is_autocast_enabled("cpu")
    # as in an older torch
    monkeypatch.delattr(devices.torch.cpu, "get_capabilities")
    assert not supports_bf16(CPU)
    with autocast(CPU):
        assert not torch.is_autocast_enabled("cpu")
    assert compute_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
        (InputError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(
    error: Exception, expected: bool
) -> None:
    assert is_out_of_memory(error) == expected
