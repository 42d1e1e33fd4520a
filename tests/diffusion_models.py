"""Small diffusion models with random weights, laid out as Stable Diffusion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("wound", "infected", "nuclei", "background")
"""The words of the vocabulary; others fall into letters."""

GRID, WIDTH, LENGTH = 16, 16, 12
"""Positions along a side of the latent; numbers a token; tokens."""


def save_tokenizer(folder: Path) -> dict[str, int]:
    """Write a vocabulary of letters and a few words in CLIP's format."""
    letters = [chr(code) for code in range(33, 127)]
    parts = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for part in rest:
            if left + part not in parts:
                merges.append(f"{left} {part}")
                parts.append(left + part)
            left += part
    parts += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {part: number for number, part in enumerate(parts)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return numbers


def unet(channels: int = 4, seed: int = 0) -> Any:
    """Return a UNet with the four resolutions of Stable Diffusion, and few channels."""
    torch.manual_seed(seed)
    network = UNet2DConditionModel(
        sample_size=GRID,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weights *= 6  # so that attention is not even
    return network.eval()


def save_diffusion(folder: Path, *, pixels: int | None = None) -> Path:
    """Write a random model: with a VAE, or one that sees so many pixels a position."""
    numbers = save_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng():
        channels = 4 if pixels is None else 3 * pixels**2
        unet(channels).save_pretrained(folder / "unet")
        end = numbers["<|endoftext|>"]
        config = CLIPTextConfig(
            vocab_size=len(numbers),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=numbers["<|startoftext|>"],
            eos_token_id=end,
            pad_token_id=end,
        )
        CLIPTextModel(config).save_pretrained(folder / "text_encoder")
        if pixels is None:
            vae = AutoencoderKL(
                block_out_channels=(4, 4, 4, 4),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=1,
                norm_num_groups=2,
            )
            vae.save_pretrained(folder / "vae")
    return folder
