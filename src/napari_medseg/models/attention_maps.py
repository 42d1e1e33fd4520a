"""What a diffusion model attends to: its attention, recorded in one pass.

Self-attention says for each position of an image which others belong to it;
cross-attention says how much of it each word of a text means. Both are averaged over
the heads and over the layers of one resolution while the pass runs, so that of each
resolution one map is in memory and not one for each head and layer.

Self-attention is aggregated as in DiffSeg (Tian et al., CVPR 2024, section 3.2).
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

TINY = 1e-8
"""What keeps divisions and logarithms finite."""


@dataclass
class Recorded:
    """Attention of one pass, summed over layers, by positions along a side.

    Attributes
    ----------
    own : dict of int to Tensor
        Self-attention ``float32 (r², r²)``: of each position, how much each other
        one counts.
    words : dict of int to Tensor
        Cross-attention ``float32 (r², L)`` to the L tokens of the text.
    others : dict of int to Tensor
        The same to the tokens of another text, which the pass does not follow.
    layers : dict of int to int
        How many layers were summed.
    """

    own: dict[int, Tensor] = field(default_factory=dict)
    words: dict[int, Tensor] = field(default_factory=dict)
    others: dict[int, Tensor] = field(default_factory=dict)
    layers: dict[int, int] = field(default_factory=dict)

    def add(self, kind: str, attention: Tensor) -> None:
        """Add the attention ``(r², …)`` of a layer; the tensor is used up."""
        side = math.isqrt(len(attention))
        sums: dict[int, Tensor] = getattr(self, kind)
        if side in sums:
            sums[side] += attention
        else:
            sums[side] = attention
        if kind == "own":
            self.layers[side] = self.layers.get(side, 0) + 1


class _Recorder:
    """Computes the attention of one layer as diffusers does, and records it."""

    def __init__(self, record: Recorded, other: Tensor | None) -> None:
        self.record = record
        self.other = other

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return what the layer makes of ``(1, r², C)``; diffusers names the rest."""
        itself = encoder_hidden_states is None
        source = (
            hidden_states if encoder_hidden_states is None else encoder_hidden_states
        )
        queries = _heads(attn.to_q(hidden_states), attn.heads)
        keys = _heads(attn.to_k(source), attn.heads)
        values = _heads(attn.to_v(source), attn.heads)
        mean, outputs = _attend(queries, keys, values, attn.scale)
        self.record.add("own" if itself else "words", mean)
        if not itself and self.other is not None:
            keys = _heads(attn.to_k(self.other), attn.heads)
            mean, _ = _attend(queries, keys, None, attn.scale)
            self.record.add("others", mean)
        project, drop = attn.to_out
        found: Tensor = drop(project(torch.cat(outputs, dim=-1)[None]))
        return found / float(attn.rescale_output_factor)


def _heads(features: Tensor, heads: int) -> Tensor:
    """Split ``(1, n, heads · d)`` into ``(heads, n, d)``."""
    split: Tensor = features[0].unflatten(-1, (heads, -1))
    return split.transpose(0, 1)


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor | None, scale: float
) -> tuple[Tensor, list[Tensor]]:
    """Attend head by head: the mean of the attention, and what each head puts out."""
    mean: Tensor | None = None
    outputs = []
    for head, (query, key) in enumerate(zip(queries, keys, strict=True)):
        # 16 bits would round what is compared later
        weights = (query.float() @ key.float().T).mul_(scale).softmax(dim=-1)
        if values is not None:
            outputs.append(weights.to(values.dtype) @ values[head])
        mean = weights if mean is None else mean.add_(weights)
    if mean is None:
        raise ValueError("a layer has at least one head")
    return mean.div_(len(queries)), outputs


@contextmanager
def recording(unet: Any, other: Tensor | None = None) -> Iterator[Recorded]:
    """Record the attention of the passes of a UNet.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Of diffusers; its own processors are back afterwards.
    other : Tensor, optional
        ``(1, L, width)``, states of a second text: attention to it is recorded, too,
        and changes nothing else.

    Yields
    ------
    Recorded
        Empty before the first pass, which has to be of one image.
    """
    before = dict(unet.attn_processors)
    record = Recorded()
    unet.set_attn_processor(_Recorder(record, other))
    try:
        yield record
    finally:
        unet.set_attn_processor(before)


def aggregate(record: Recorded, grid: int) -> Tensor:
    """Put the self-attention of all resolutions together.

    The mean of each resolution r is brought to the grid: as an image, by bilinear
    interpolation, where it says what a position attends to, and repeated where it says
    which position does. Each map is scaled to a sum of 1, and the resolutions are
    added with weights proportional to r.

    Parameters
    ----------
    record : Recorded
        Its self-attention; the maps at the finest resolution are used up.
    grid : int
        Positions along a side, a multiple of every r.

    Returns
    -------
    Tensor
        ``float32 (grid², grid²)``, every row with a sum of 1.
    """
    sides = sorted(record.own, reverse=True)
    total: Tensor | None = None
    for side in sides:
        share = side / sum(sides)
        maps = record.own[side]
        if side == grid:
            # in place: this is by far the largest
            total = maps.mul_(share / maps.sum(dim=1, keepdim=True).clamp_min(TINY))
            continue
        if total is None:
            total = maps.new_zeros(grid * grid, grid * grid)
        finer = _finer(maps.view(-1, side, side), (grid, grid)).flatten(1)
        finer *= share / finer.sum(dim=1, keepdim=True).clamp_min(TINY)
        times = grid // side
        blocks = total.view(side, times, side, times, -1)
        blocks += finer.view(side, 1, side, 1, -1)
    if total is None:
        raise ValueError("nothing was recorded")
    return total


def word_map(
    attention: Mapping[int, Tensor],
    layers: Mapping[int, int],
    columns: Sequence[int],
    shape: tuple[int, int],
) -> Tensor:
    """Return where in an image some tokens are meant.

    As in DiffSeg's semantic variant: the mean of each resolution is brought to the size
    of the image and all are added alike; the map of each token gets the length 1, and
    the maps of several tokens are averaged. That tokens share 1 at each position is
    kept by all of this up to the length.

    Parameters
    ----------
    attention : mapping of int to Tensor
        `Recorded.words` or `Recorded.others`.
    layers : mapping of int to int
        `Recorded.layers`; cross-attention has as many as self-attention.
    columns : sequence of int
        The tokens; the first of a text is number 1.
    shape : tuple of int
        Rows and columns of the map.

    Returns
    -------
    Tensor
        ``float32`` of this shape, not negative.
    """
    chosen = list(columns)
    total: Tensor | None = None
    for side, sums in attention.items():
        maps = sums[:, chosen].T.reshape(len(chosen), side, side) / layers[side]
        finer = _finer(maps, shape)
        total = finer if total is None else total + finer
    if total is None:
        raise ValueError("nothing was recorded")
    length = total.flatten(1).norm(dim=1).clamp_min(TINY)
    mean: Tensor = (total / length.view(-1, 1, 1)).mean(dim=0)
    return mean


def _finer(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bring ``(N, r, r)`` to another shape bilinearly."""
    found: Tensor = functional.interpolate(
        maps[None], size=shape, mode="bilinear", align_corners=False
    )[0]
    return found
