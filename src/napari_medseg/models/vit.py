"""SAM's vision transformer, with the package's weights and less work.

The classes that hold the weights are segment-anything's own; what is computed is the
same to within rounding. Queries, keys and values are computed of real tokens alone:
those of the margin that fills the last windows are the layer's bias, since their tokens
are 0. Attention over the whole image goes through blocks of queries, so that no
table of all pairs of tokens is ever held, and relative positions (Li et al., MViTv2,
CVPR 2022) are added to a block where it lies. Matrices may be in bfloat16, cast once;
the sum that runs through all blocks, and the norms, stay in float32.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from segment_anything.modeling.image_encoder import (
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import Attention, Block

ROWS_OF_PAIRS = 1 << 21
"""Pairs of tokens that a block of queries makes, at most: what a cache holds."""

WHOLE = 1 << 20
"""So many pairs of a window are no trouble, and all heads go at once."""


class Keys(NamedTuple):
    """What queries attend to beside the tokens of their window.

    ``(heads, P, d)`` each: keys and values of prompts, which have no position.
    """

    keys: Tensor
    values: Tensor


def light(encoder: ImageEncoderViT, dtype: torch.dtype) -> ImageEncoderViT:
    """Return a copy of an encoder whose matrices are in another type.

    Parameters
    ----------
    encoder : ImageEncoderViT
        Left as it is.
    dtype : torch.dtype
        Of linear layers and convolutions; all else keeps its own.

    Returns
    -------
    ImageEncoderViT
        For `forward`.
    """
    result: ImageEncoderViT = copy.deepcopy(encoder)
    for module in result.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(dtype)
    return result


def forward(
    encoder: ImageEncoderViT, inputs: Tensor, positions: Tensor | None
) -> Tensor:
    """Embed images.

    Parameters
    ----------
    encoder : ImageEncoderViT
        SAM's image encoder; its blocks may be others that map tokens to tokens.
    inputs : Tensor
        ``(B, 3, H, W)``, standardised; H and W multiples of 16.
    positions : Tensor or None
        ``(1, H / 16, W / 16, D)``, the position embedding of this size, if any.

    Returns
    -------
    Tensor
        ``(B, 256, H / 16, W / 16)``.
    """
    tokens = of_type(encoder.patch_embed.proj, inputs).permute(0, 2, 3, 1)
    tokens = tokens.float() if positions is None else tokens.float() + positions
    for block in encoder.blocks:
        tokens = through(block, tokens)
    maps = tokens.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    for layer in encoder.neck.children():
        maps = of_type(layer, maps)
    return maps


def through(block: nn.Module, tokens: Tensor) -> Tensor:
    """Map tokens through a block: one of SAM's, or one that stands in for it."""
    found: Tensor = (
        transform(block, tokens) if hasattr(block, "attn") else block(tokens)
    )
    return found


def transform(block: Block, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Map tokens ``(B, H, W, D)`` through one of SAM's blocks.

    Parameters
    ----------
    block : Block
        The block.
    tokens : Tensor
        ``(B, H, W, D)``.
    prompts : Tensor, optional
        ``(P, D)``: tokens that all others see, and that see nothing themselves.

    Returns
    -------
    Tensor
        ``(B, H, W, D)``.
    """
    inner = block.attn
    size = (tokens.shape[1], tokens.shape[2])
    found = linear(inner.qkv, block.norm1(tokens))
    seen = prompts is not None and len(prompts) > 0
    extra = _keys_of(inner, block.norm1(prompts)) if seen else None
    if block.window_size > 0:
        windows, padded = window_partition(
            _with_margin(found, block.window_size, inner.qkv.bias), block.window_size
        )
        mixed = attend(inner, windows, extra)
        mixed = window_unpartition(mixed, block.window_size, padded, size)
    else:
        mixed = attend(inner, found, extra)
    tokens = tokens + linear(inner.proj, mixed)
    inside = block.mlp.act(linear(block.mlp.lin1, block.norm2(tokens)))
    return tokens + linear(block.mlp.lin2, inside)


def _with_margin(found: Tensor, window: int, bias: Tensor) -> Tensor:
    """Fill the last windows up with what the layer gives of tokens that are 0."""
    down, across = (-length % window for length in found.shape[1:3])
    if not down and not across:
        return found
    margin = (0, 0, 0, across, 0, down)
    inside = functional.pad(torch.ones_like(found[..., :1]), margin)
    return functional.pad(found, margin) + (1 - inside) * bias.to(found.dtype)


def _keys_of(inner: Attention, prompts: Tensor) -> Keys:
    """Return keys and values of normalised prompts ``(P, D)``."""
    found = linear(inner.qkv, prompts).reshape(len(prompts), 3, inner.num_heads, -1)
    _, keys, values = found.permute(1, 2, 0, 3)
    return Keys(keys, values)


def attend(inner: Attention, found: Tensor, extra: Keys | None = None) -> Tensor:
    """Let tokens attend to one another, and to prompts.

    Parameters
    ----------
    inner : Attention
        Heads, scale and relative positions.
    found : Tensor
        ``(B, H, W, 3 * D)``: queries, keys and values.
    extra : Keys, optional
        What every token attends to as well.

    Returns
    -------
    Tensor
        ``(B, H, W, D)``, before the projection.
    """
    batch, height, width, _ = found.shape
    heads = inner.num_heads
    parts = found.reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    queries, keys, values = parts
    if extra is not None:
        kept = (batch, -1, -1, -1)
        keys = torch.cat([keys, extra.keys.expand(*kept)], dim=2)
        values = torch.cat([values, extra.values.expand(*kept)], dim=2)
    bias = _positions(inner, queries, (height, width))
    scaled = queries * inner.scale
    pairs = height * width * keys.shape[2]
    # queries, keys and values are as precise as they will get: no further casts
    with torch.autocast(found.device.type, enabled=False):
        if pairs <= WHOLE:
            mixed = _mix(scaled, keys, values, *bias)
        else:
            mixed = by_blocks(scaled, keys, values, bias, width)
    return mixed.permute(0, 2, 1, 3).reshape(batch, height, width, -1)


Bias = tuple[Tensor | None, Tensor | None]
"""``(B, heads, N, H)`` and ``(B, heads, N, W)``: of the rows and columns of keys."""


def _positions(inner: Attention, queries: Tensor, grid: tuple[int, int]) -> Bias:
    """Return what relative positions add, apart for rows and columns."""
    if not inner.use_rel_pos:
        return None, None
    height, width = grid
    placed = queries.unflatten(2, grid)
    rows = get_rel_pos(height, height, inner.rel_pos_h).to(queries.dtype)
    columns = get_rel_pos(width, width, inner.rel_pos_w).to(queries.dtype)
    by_row = torch.einsum("bnhwc,hkc->bnhwk", placed, rows).flatten(2, 3)
    by_column = torch.einsum("bnhwc,wkc->bnhwk", placed, columns).flatten(2, 3)
    return by_row, by_column


def _mix(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    by_row: Tensor | None,
    by_column: Tensor | None,
) -> Tensor:
    """Attend ``(…, n, d)`` to ``(…, m, d)``."""
    scores = queries @ keys.transpose(-2, -1)
    if by_row is not None and by_column is not None:
        height, width = by_row.shape[-1], by_column.shape[-1]
        bias = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(-2)
        prompts = scores.shape[-1] - height * width
        scores = scores + (functional.pad(bias, (0, prompts)) if prompts else bias)
    return scores.softmax(dim=-1).to(values.dtype) @ values


def by_blocks(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Bias, width: int
) -> Tensor:
    """Attend head by head and some rows of queries at a time.

    Parameters
    ----------
    queries, keys, values : Tensor
        ``(B, heads, N, d)``; of keys and values there may be more, which have no
        position.
    bias : tuple of Tensor or None
        What relative positions add, ``(B, heads, N, H)`` and ``(B, heads, N, W)``.
    width : int
        Tokens in a row, W.

    Returns
    -------
    Tensor
        ``(B, heads, N, d)``.
    """
    batch, heads, count, _ = queries.shape
    rows = max(1, ROWS_OF_PAIRS // (keys.shape[2] * width)) * width
    learns = torch.is_grad_enabled() and queries.requires_grad
    images = []
    for image in range(batch):
        found = []
        for head in range(heads):
            blocks = []
            for first in range(0, count, rows):
                part = slice(first, first + rows)
                by_row, by_column = (
                    each if each is None else each[image, head, part] for each in bias
                )
                given = (queries[image, head, part], keys[image, head])
                # what the gradient needs is computed again, or all pairs would be held
                blocks.append(
                    checkpoint(
                        _mix,
                        *given,
                        values[image, head],
                        by_row,
                        by_column,
                        use_reentrant=False,
                    )
                    if learns
                    else _mix(*given, values[image, head], by_row, by_column)
                )
            found.append(torch.cat(blocks))
        images.append(torch.stack(found))
    return torch.stack(images)


def linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a linear layer in the type of its weights."""
    return functional.linear(inputs.to(layer.weight.dtype), layer.weight, layer.bias)


def of_type(layer: nn.Module, maps: Tensor) -> Tensor:
    """Apply a layer: a convolution in the type of its weights, a norm in float32."""
    dtype = layer.weight.dtype if isinstance(layer, nn.Conv2d) else torch.float32
    result: Tensor = layer(maps.to(dtype))
    return result
