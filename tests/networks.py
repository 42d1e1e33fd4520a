"""Small SAMs with random weights, for the tests of everything built on SAM."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, Sam

from napari_medseg.models.sam import PIXEL_MEAN, PIXEL_STD, build_nano

if TYPE_CHECKING:
    from pathlib import Path


@cache
def _nano_state(seed: int) -> dict[str, torch.Tensor]:
    """Return random weights of ``nano``, in which nothing is left at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state: dict[str, torch.Tensor] = build_nano(64).state_dict()
        for name, tensor in state.items():
            if name.endswith(("running_mean", "bias", "rel_pos_h", "rel_pos_w")):
                tensor.add_(0.1 * torch.randn(tensor.shape))
            elif name.endswith("running_var"):
                tensor.mul_(1 + 0.5 * torch.rand(tensor.shape))
    return state


def random_nano(seed: int = 0, working_size: int = 128) -> Sam:
    """Return ``nano`` with random weights of its own."""
    with torch.device("meta"):
        sam = build_nano(working_size)
    copied = {name: tensor.clone() for name, tensor in _nano_state(seed).items()}
    sam.load_state_dict(copied, assign=True)
    sam.pixel_mean = torch.tensor(PIXEL_MEAN).view(-1, 1, 1)
    sam.pixel_std = torch.tensor(PIXEL_STD).view(-1, 1, 1)
    return sam.eval()


def tiny_vit(size: int = 128, seed: int = 0, **options: Any) -> ImageEncoderViT:
    """Return SAM's own image encoder, small: windowed and global blocks."""
    settings: dict[str, Any] = {
        "img_size": size,
        "embed_dim": 32,
        "depth": 4,
        "num_heads": 2,
        "use_rel_pos": True,
        "window_size": 3,
        "global_attn_indexes": (1, 3),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = ImageEncoderViT(**(settings | options))
        with torch.no_grad():
            for name, tensor in encoder.state_dict().items():
                if name.endswith(("pos_embed", "bias", "rel_pos_h", "rel_pos_w")):
                    tensor.add_(0.3 * torch.randn(tensor.shape))
    return encoder.eval()


def tiny_sam(size: int = 128, seed: int = 0) -> Sam:
    """Return SAM with a small image encoder of its own kind."""
    sam = random_nano(seed, size)
    sam.image_encoder = tiny_vit(size, seed)
    return sam.eval()


def save_nano(path: Path, seed: int = 0) -> Path:
    """Write the weights of a random ``nano`` as a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_nano(seed).state_dict(), path)
    return path


def save_fresh_nano(path: Path) -> Path:
    """Write ``nano`` as it is before any training, in the format that is shipped."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        state = build_nano().state_dict()
    save_file({name: item.contiguous() for name, item in state.items()}, path)
    return path
