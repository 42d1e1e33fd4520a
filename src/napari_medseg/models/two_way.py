"""SAM's mask decoder, in an order of its arithmetic that spares the pixels.

SAM projects every pixel of the embedding for each of its attentions, although there
are thousands of pixels and a dozen tokens. Here the projections are applied to the
tokens in place of the pixels; by the associative law that is the same, with half the
arithmetic and without a copy of the image for each projection. The transposed
convolutions that enlarge the result have no overlap: each is a matrix product a pixel,
and the pixels stay in one order until the mask is read off.

Tokens are computed in float32; pixels in what the caller chooses. Gradients flow to
tokens, pixels and weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder
    from segment_anything.modeling.transformer import Attention, TwoWayTransformer
    from torch import Tensor, nn


def pixels_of(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Return maps ``(B, C, h, w)`` as pixels ``(B, h * w, C)``."""
    return maps.flatten(2).mT.to(dtype).contiguous()


def attend(
    transformer: TwoWayTransformer, given: Tensor, pixels: Tensor, code: Tensor
) -> tuple[Tensor, Tensor]:
    """Run SAM's two-way transformer.

    Parameters
    ----------
    transformer : TwoWayTransformer
        SAM's, with its weights in float32.
    given : Tensor
        ``float32 (B, N, 256)``: the decoder's own tokens and those of the prompts.
    pixels : Tensor
        ``(B, P, 256)`` or, of one image for all tokens, ``(1, P, 256)``.
    code : Tensor
        Position code of the pixels, ``(B, P, 256)`` or ``(1, P, 256)``, in the dtype
        of the pixels.

    Returns
    -------
    tuple of Tensor
        Tokens ``float32 (B, N, 256)``, and pixels ``(B, P, 256)``.
    """
    tokens = given
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            tokens = layer.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + given
            tokens = tokens + layer.self_attn(placed, placed, tokens)
        tokens = layer.norm1(tokens)
        attention = layer.cross_attn_token_to_image
        tokens = tokens + _from_pixels(attention, tokens + given, pixels, code)
        tokens = layer.norm2(tokens)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        pixels = _with_tokens(attention, pixels, code, tokens + given, tokens)
        pixels = _normed(pixels, layer.norm4)
    attention = transformer.final_attn_token_to_image
    tokens = tokens + _from_pixels(attention, tokens + given, pixels, code)
    return transformer.norm_final_attn(tokens), pixels


def enlarge(decoder: MaskDecoder, pixels: Tensor) -> Tensor:
    """Turn each pixel into 4 × 4 finer ones, by SAM's transposed convolutions.

    Parameters
    ----------
    decoder : MaskDecoder
        SAM's.
    pixels : Tensor
        ``(B, P, 256)``.

    Returns
    -------
    Tensor
        ``(B, P, 4, 4, 32)``: the quarters of each pixel, row by row, and their
        quarters.
    """
    first, norm, _, second, _ = decoder.output_upscaling
    fine = functional.gelu(_normed(_doubled(pixels, first), norm))
    return functional.gelu(_doubled(fine, second))


def read_masks(
    decoder: MaskDecoder, tokens: Tensor, fine: Tensor, which: slice
) -> Tensor:
    """Read masks off the fine pixels, each by the weights that its token gives.

    Parameters
    ----------
    decoder : MaskDecoder
        SAM's.
    tokens : Tensor
        ``float32 (B, N, 256)`` from `attend`.
    fine : Tensor
        ``(B, P, 4, 4, 32)`` from `enlarge`.
    which : slice
        Which of SAM's four masks.

    Returns
    -------
    Tensor
        ``(B, P, 4, 4, M)`` logits; see `as_maps`.
    """
    heads = decoder.output_hypernetworks_mlps
    wanted = range(len(heads))[which]
    read = torch.stack([heads[index](tokens[:, 1 + index]) for index in wanted], 2)
    masks = torch.matmul(fine.flatten(1, 3), read.to(fine.dtype))
    return masks.view(*fine.shape[:-1], len(wanted))


def as_maps(fine: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put fine pixels into rows and columns.

    Parameters
    ----------
    fine : Tensor
        ``(B, h * w, 4, 4, C)``.
    grid : tuple of int
        Height and width of the embedding, h and w.

    Returns
    -------
    Tensor
        ``(B, C, 4 h, 4 w)``.
    """
    # each pixel has become 2 × 2, and each of these 2 × 2 again
    parts = fine.view(len(fine), *grid, 2, 2, 2, 2, fine.shape[-1])
    parts = parts.permute(0, 7, 1, 3, 5, 2, 4, 6)
    return parts.reshape(len(fine), fine.shape[-1], 4 * grid[0], 4 * grid[1])


def _from_pixels(
    attention: Attention, queries: Tensor, pixels: Tensor, code: Tensor
) -> Tensor:
    """Return what tokens ``(B, N, 256)`` learn from the pixels."""
    asked = _by_head(attention.q_proj(queries), attention)
    # the bias of the keys adds the same to every pixel, and falls out
    folded = _folded(asked, attention.k_proj).to(pixels.dtype)
    weights = _similarity(folded, pixels, code).softmax(-1)
    mean = _product(weights, pixels).float().view(*asked.shape[:3], -1)
    values = _heads(attention.v_proj.weight, attention)
    found = torch.einsum("bnhc,hdc->bnhd", mean, values).flatten(2)
    result: Tensor = attention.out_proj(found + attention.v_proj.bias)
    return result


def _with_tokens(
    attention: Attention, pixels: Tensor, code: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Return the pixels, with what they learn from tokens ``(B, N, 256)``."""
    heads = attention.num_heads
    offered = _by_head(attention.k_proj(keys), attention)
    count, tokens = offered.shape[:2]
    folded = _folded(offered, attention.q_proj).to(pixels.dtype)
    similar = _similarity(folded, pixels, code)
    bias = attention.q_proj.bias.view(heads, -1)
    similar = similar + (offered * bias).sum(-1).view(count, -1, 1).to(similar.dtype)
    weights = similar.view(count, tokens, -1).softmax(dim=1).view_as(similar)
    told = attention.v_proj(values).view(count, tokens, heads, -1)
    output = attention.out_proj.weight.view(-1, heads, told.shape[-1])
    told = torch.einsum("bnhd,chd->bnhc", told, output)
    # weights of a head add up to 1: its share of the bias can come with them
    told = (told + attention.out_proj.bias / heads).flatten(1, 2)
    before = pixels.expand(count, -1, -1)
    return torch.baddbmm(before, weights.mT, told.to(pixels.dtype))


def _similarity(folded: Tensor, pixels: Tensor, code: Tensor) -> Tensor:
    """Compare ``(B, M, 256)`` with all pixels and where they are: ``(B, M, P)``."""
    placed = _product(folded, code.mT)
    if len(pixels) == 1:
        return placed + torch.matmul(folded, pixels[0].T)
    return torch.baddbmm(placed, folded, pixels.mT)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply a batch with as many matrices, or with the one that there is."""
    return torch.matmul(left, right[0] if len(right) == 1 else right)


def _heads(weight: Tensor, attention: Attention) -> Tensor:
    """Return a projection's weights by head, ``(H, D, 256)``."""
    heads: int = attention.num_heads
    return weight.view(heads, -1, weight.shape[-1])


def _by_head(tokens: Tensor, attention: Attention) -> Tensor:
    """Return tokens ``(B, N, H, D)`` by head, scaled for the softmax."""
    parts: Tensor = tokens.unflatten(-1, (attention.num_heads, -1))
    return parts / math.sqrt(parts.shape[-1])


def _folded(tokens: Tensor, projection: nn.Linear) -> Tensor:
    """Apply to tokens ``(B, N, H, D)`` the projection of the pixels they compare to.

    Returns ``(B, N * H, 256)``.
    """
    weight = projection.weight.view(*tokens.shape[2:], -1)
    return torch.einsum("bnhd,hdc->bnhc", tokens, weight).flatten(1, 2)


def _normed(values: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalise over the last axis, by SAM's layer of one or two dimensions."""
    weight, bias = norm.weight.to(values.dtype), norm.bias.to(values.dtype)
    return functional.layer_norm(values, weight.shape, weight, bias, norm.eps)


def _doubled(pixels: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Turn each pixel ``(..., C)`` into 2 × 2, ``(..., 4, D)``."""
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1).to(pixels.dtype)
    parts: Tensor = torch.matmul(pixels, weight).unflatten(-1, (4, -1))
    return parts if layer.bias is None else parts + layer.bias.to(pixels.dtype)
