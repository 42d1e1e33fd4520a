"""Ways to adapt a SAM to annotated images: each is a choice of what is trained.

All of them go through the package's own study (views, held-out images, best step);
see `napari_medseg.training.learners.Adaptation`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from napari_medseg.models.prompts import (
    PROMPTS,
    PromptedDecoder,
    PromptedSam,
)
from napari_medseg.training.tuning import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from segment_anything.modeling import Sam

    from napari_medseg.training.learners import Adaptation

RANK = 4
"""Rank of LoRA's two matrices, as in SAMed and CellSeg1."""


@dataclass(frozen=True)
class MaskDecoder:
    """Fine-tune SAM's mask decoder, without any prompt; the encoder is frozen."""

    keeps_embeddings: bool = True
    fineness: int = 1

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return a copy of the decoder, all of it to be trained."""
        decoder = PromptedDecoder(copy.deepcopy(sam), classes - 1, count=0)
        decoder.mask_decoder.requires_grad_(True)
        return decoder

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al. 2022) on queries and values of the encoder, and the decoder.

    As SAMed (Zhang and Liu 2023): low-rank changes of the image encoder's attention,
    while the mask decoder is fine-tuned.
    """

    rank: int = RANK
    keeps_embeddings: bool = False
    fineness: int = 1

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return a copy of SAM with low-rank changes in every transformer block."""
        sam = copy.deepcopy(sam).requires_grad_(False)
        for block in sam.image_encoder.blocks:
            qkv = block.attn.qkv
            change = LowRank(qkv.in_features, self.rank, generator)
            register_parametrization(qkv, "weight", change)
        decoder = PromptedDecoder(sam, classes - 1, count=0)
        decoder.mask_decoder.requires_grad_(True)
        return PromptedSam(sam.image_encoder, decoder)

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Do nothing."""


class LowRank(nn.Module):
    """Adds B·A to a weight, in the rows of queries and of values.

    Parameters
    ----------
    width : int
        D, of a weight ``(3 D, D)`` of queries, keys and values.
    rank : int
        Columns of B and rows of A.
    generator : torch.Generator
        Source of A; B begins at 0, so that nothing is changed at first.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(width)
        start = torch.rand(2, rank, width, generator=generator)
        self.down = nn.Parameter(bound * (2.0 * start - 1.0))
        self.up = nn.Parameter(torch.zeros(2, width, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight ``(3 D, D)``."""
        query, value = self.up @ self.down
        return weight + torch.cat([query, torch.zeros_like(query), value])


@dataclass(frozen=True)
class Everything:
    """Fine-tune encoder and decoder; statistics of the batch norms stay."""

    keeps_embeddings: bool = False
    fineness: int = 1

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return a copy of SAM, all of it to be trained but the prompt encoder."""
        sam = copy.deepcopy(sam)
        decoder = PromptedDecoder(sam, classes - 1, count=0)
        decoder.mask_decoder.requires_grad_(True)
        sam.image_encoder.requires_grad_(True)
        return PromptedSam(sam.image_encoder, decoder)

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Way:
    """An adaptation with the learning rate and batch it is given."""

    adaptation: Adaptation
    learning_rate: float
    batch: int


PUBLISHED = Prompts(PROMPTS, comparison="none")
"""PTSAM as its paper has it: prompts act through SAM's decoder alone."""

WAYS = {
    "PTSAM fine": Way(replace(PUBLISHED, comparison="fine"), 0.2, 3),
    "PTSAM compared": Way(replace(PUBLISHED, comparison="embedding"), 0.2, 3),
    "PTSAM decoder": Way(PUBLISHED, 0.2, 3),
    "PTSAM decoder + encoder": Way(replace(PUBLISHED, encoder=PROMPTS), 2e-2, 3),
    "mask decoder": Way(MaskDecoder(), 5e-4, 3),
    "LoRA": Way(Lora(), 5e-4, 3),
    "everything": Way(Everything(), 3e-4, 3),
}
"""What is compared, by name."""
