"""The encoder gives what segment-anything's own gives, whatever way it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from networks import tiny_vit

from napari_medseg.models import vit
from napari_medseg.models.nano import NanoEncoder
from napari_medseg.models.prompts import PromptedBlock
from napari_medseg.models.sam import encode

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT


def encoder(size: int = 128, **options: Any) -> ImageEncoderViT:
    """Return a small encoder in which positions matter."""
    made = tiny_vit(size, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, item in made.named_parameters():
            if "pos" in name:
                item.copy_(0.5 * torch.randn(item.shape, generator=generator))
    return made


def images(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(count, 3, size, size, generator=generator)


@pytest.fixture(params=["at once", "head by head"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attend as on devices with a fused attention, and as on others."""
    if request.param == "head by head":
        monkeypatch.setattr(vit, "FUSED", ())
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [128, 64, 48])
def test_the_embedding_is_that_of_segment_anything(size: int) -> None:
    ours = encoder(size)
    with torch.no_grad():
        torch.testing.assert_close(
            encode(ours, images(size)), ours(images(size)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(128, 64), (80, 112)])
def test_other_shapes_are_those_of_its_blocks(shape: tuple[int, int]) -> None:
    """Windows that are not filled, and relative positions that are resampled."""
    ours = encoder(128)
    tokens = torch.randn(1, shape[0] // 16, shape[1] // 16, 32)
    with torch.no_grad():
        for block in ours.blocks:
            torch.testing.assert_close(
                vit.transform(block, tokens), block(tokens), rtol=1e-4, atol=1e-5
            )


@pytest.mark.usefixtures("way")
def test_gradients_are_those_of_its_blocks() -> None:
    ours = encoder(128)
    tokens = torch.randn(1, 5, 7, 32)
    for block in ours.blocks:
        one = tokens.clone().requires_grad_()
        other = tokens.clone().requires_grad_()
        vit.transform(block, one).square().mean().backward()
        found = [item.grad.clone() for item in block.parameters()]
        block.zero_grad()
        block(other).square().mean().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)
        for ours_, theirs in zip(found, block.parameters(), strict=True):
            torch.testing.assert_close(ours_, theirs.grad, rtol=1e-3, atol=1e-6)
        block.zero_grad()


@pytest.mark.usefixtures("way")
def test_prompts_learn_whichever_way() -> None:
    block = PromptedBlock(encoder(128).blocks[1], 3)
    block(torch.randn(2, 8, 8, 32)).square().mean().backward()
    assert block.prompts.grad is not None
    assert block.prompts.grad.any()


def test_matrices_are_cast_and_nothing_else() -> None:
    ours = encoder(128)
    light = vit.light(ours, torch.bfloat16)
    assert light.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert light.blocks[0].norm1.weight.dtype == torch.float32
    assert light.pos_embed.dtype == torch.float32
    assert ours.blocks[0].attn.qkv.weight.dtype == torch.float32
    with torch.inference_mode():
        exact = encode(ours, images(128))
        rough = encode(light, images(128))
    assert (rough - exact).norm() < 0.02 * exact.norm()


def test_autocast_is_as_near() -> None:
    ours = encoder(128)
    with torch.inference_mode():
        exact = encode(ours, images(128))
        with torch.autocast("cpu", torch.bfloat16):
            rough = encode(ours, images(128))
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()


def test_nano_attends_the_same_way() -> None:
    torch.manual_seed(0)
    ours = NanoEncoder(blocks=1, img_size=64).eval()
    tokens = torch.randn(1, 18, 5, 256)
    with torch.no_grad():
        (block,) = ours.blocks
        torch.testing.assert_close(
            vit.transform(block, tokens), block(tokens), rtol=1e-4, atol=1e-4
        )
