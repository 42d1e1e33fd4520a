"""SAM's vision transformer, with the package's weights and less work.

The classes that hold the weights are segment-anything's own; what is computed is the
same to within rounding. Queries, keys and values are computed of real tokens alone:
those of the margin that fills the last windows are the layer's bias, since their tokens
are 0. Relative positions (Li et al., MViTv2, CVPR 2022) are made part of queries and
keys, so that PyTorch's fused attention serves, which never holds a table of all pairs
of tokens. Matrices may be in bfloat16, cast once; the sum that runs through all
blocks, and the norms, stay in float32.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from segment_anything.modeling.image_encoder import (
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import Attention, Block

LANES = 32
"""Queries and keys are filled up to a multiple of this, as matrix units like it."""

FUSED = ("cpu", "cuda")
"""Devices whose attention holds no table of all pairs; others go head by head."""


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
    _, height, width, _ = found.shape
    filled = functional.pad(found, (0, 0, 0, across, 0, down))
    filled[:, height:] = bias
    filled[:, :height, width:] = bias
    return filled


def _keys_of(inner: Attention, prompts: Tensor) -> Keys:
    """Return keys and values of normalised prompts ``(P, D)``."""
    found = linear(inner.qkv, prompts).reshape(len(prompts), 3, inner.num_heads, -1)
    _, keys, values = found.permute(1, 2, 0, 3)
    return Keys(keys, values)


def attend(inner: Attention, found: Tensor, extra: Keys | None = None) -> Tensor:
    """Let tokens attend to one another, and to prompts.

    Relative positions add to the score of two tokens what the query says of the key's
    row, and what it says of the key's column. So queries are made longer by what they
    say of every row and column, and keys by which are their own (1 there, 0 elsewhere):
    the product of the two is the whole score, and fused attention can be used.

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
    asked, places = [queries], []
    if inner.use_rel_pos:
        asked += _said_of_places(inner, queries, (height, width))
        places.append(_places((height, width)).to(keys).expand(batch, heads, -1, -1))
    length = sum(each.shape[-1] for each in asked)
    answering, carried = _longer([keys, *places], length), _longer([values], length)
    if extra is not None:
        answering = _with(answering, extra.keys)
        carried = _with(carried, extra.values)
    mixed = mix(_longer(asked, length), answering, carried, inner.scale)
    mixed = mixed[..., : values.shape[-1]]
    return mixed.permute(0, 2, 1, 3).reshape(batch, height, width, -1)


def _said_of_places(
    inner: Attention, queries: Tensor, grid: tuple[int, int]
) -> list[Tensor]:
    """Return what queries say of rows, ``(B, heads, N, H)``, and of columns.

    Divided by the scale of scores, which will be multiplied by it.
    """
    height, width = grid
    placed = queries.unflatten(2, grid)
    rows = get_rel_pos(height, height, inner.rel_pos_h) / inner.scale
    columns = get_rel_pos(width, width, inner.rel_pos_w) / inner.scale
    by_row = torch.einsum("bnhwc,hkc->bnhwk", placed, rows.to(queries.dtype))
    by_column = torch.einsum("bnhwc,wkc->bnhwk", placed, columns.to(queries.dtype))
    return [by_row.flatten(2, 3), by_column.flatten(2, 3)]


def _places(grid: tuple[int, int]) -> Tensor:
    """Return which row and column each token is in, ``(N, H + W)`` of 0 and 1."""
    height, width = grid
    rows = torch.eye(height).repeat_interleave(width, dim=0)
    return torch.cat([rows, torch.eye(width).repeat(height, 1)], dim=1)


def _longer(parts: list[Tensor], length: int) -> Tensor:
    """Join the last axis of parts, with zeros up to ``length`` as units like it."""
    missing = -(-length // LANES) * LANES - sum(each.shape[-1] for each in parts)
    zeros = parts[0].new_zeros(1).expand(*parts[0].shape[:-1], missing)
    return torch.cat([*parts, zeros], dim=-1)


def _with(tokens: Tensor, more: Tensor) -> Tensor:
    """Append ``(heads, P, d)``, filled up with zeros, to ``(B, heads, N, length)``."""
    filled = functional.pad(more, (0, tokens.shape[-1] - more.shape[-1]))
    return torch.cat([tokens, filled.expand(len(tokens), -1, -1, -1)], dim=2)


def mix(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Attend, without ever holding the scores of all pairs of tokens.

    Parameters
    ----------
    queries, keys, values : Tensor
        ``(B, heads, N, d)``; of keys and values there may be more.
    scale : float
        Scores are the products of queries and keys times this.

    Returns
    -------
    Tensor
        ``(B, heads, N, d)``.
    """
    fused = partial(functional.scaled_dot_product_attention, scale=scale)
    # queries, keys and values are as precise as they will get: no further casts
    with torch.autocast(queries.device.type, enabled=False):
        if queries.device.type in FUSED:
            return fused(queries, keys, values)
        parts = (each.split(1, dim=1) for each in (queries, keys, values))
        return torch.cat([fused(*head) for head in zip(*parts, strict=True)], dim=1)


def linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a linear layer in the type of its weights."""
    return functional.linear(inputs.to(layer.weight.dtype), layer.weight, layer.bias)


def of_type(layer: nn.Module, maps: Tensor) -> Tensor:
    """Apply a layer: a convolution in the type of its weights, a norm in float32."""
    dtype = layer.weight.dtype if isinstance(layer, nn.Conv2d) else torch.float32
    result: Tensor = layer(maps.to(dtype))
    return result
