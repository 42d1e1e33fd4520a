"""SAM's mask decoder for many points of one image: its answers, in less time.

SAM projects every pixel of the embedding anew for every point, to attend to or from
a handful of tokens. Here the projections are applied to the tokens in place of the
pixels; by the associative law that is the same, with half the arithmetic and without
a copy of the image for each projection. Masks are drawn only where SAM expects them
to be good.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from napari_medseg.models import sam as sams
from napari_medseg.models.devices import compute_dtype
from napari_medseg.models.interactive import ADD, CHOICES, PADDING

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.transformer import Attention
    from torch import Tensor, nn


class Answers(NamedTuple):
    """Masks: logits ``(N, 4h, 4w)``, and the IoU that SAM expects, ``(N,)``."""

    logits: Tensor
    scores: Tensor


class PointDecoder:
    """The mask decoder, ready for points on one image.

    Parameters
    ----------
    sam : Sam
        The network, on the device of the embedding.
    embedding : Tensor
        ``(256, h, w)``, of one window.
    size : int
        Side of the window, in pixels of the network's input.
    dtype : torch.dtype, optional
        What pixels are computed in; by default bfloat16 where the device does so in
        hardware. Tokens are float32.
    """

    def __init__(
        self,
        sam: Sam,
        embedding: Tensor,
        size: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._sam = sam
        self._size = size
        self._dtype = dtype or compute_dtype(embedding.device)
        height, width = embedding.shape[1:]
        self._grid = (int(height), int(width))
        with torch.inference_mode():
            code = sams.position_code(sam.prompt_encoder, self._grid)
            image = embedding[None] + sams.no_mask_embedding(sam.prompt_encoder)
            self._code = self._pixels(code)
            self._image = self._pixels(image)

    def ask(self, points: Tensor, worst: float) -> Answers:
        """Ask SAM what lies at each of several points.

        Parameters
        ----------
        points : Tensor
            ``float32 (B, 2)``, x and y in pixels of the network's input.
        worst : float
            Masks that SAM does not expect to be better are left out.

        Returns
        -------
        Answers
            The others of the three masks of each point, in the order of the points.
        """
        decoder = self._sam.mask_decoder
        with torch.inference_mode():
            tokens, pixels = self._attend(self._tokens(points))
            scores = decoder.iou_prediction_head(tokens[:, 0])[:, CHOICES].float()
            good = scores > worst
            some = good.any(dim=1)
            maps = self._draw(tokens[some], pixels[some])[good[some]]
            return Answers(maps.flatten(1, 3).flatten(2), scores[good])

    def _pixels(self, maps: Tensor) -> Tensor:
        """Return maps ``(1, 256, h, w)`` as pixels ``(h * w, 256)``."""
        return maps[0].flatten(1).T.to(self._dtype).contiguous()

    def _tokens(self, points: Tensor) -> Tensor:
        """Return what the decoder is given for each point, ``(B, 7, 256)``."""
        device, encoder = self._image.device, self._sam.prompt_encoder
        places = torch.stack([points, torch.zeros_like(points)], dim=1).to(device)
        kinds = torch.tensor([[ADD, PADDING]], device=device).expand(len(points), -1)
        size = (self._size, self._size)
        asked = sams.point_tokens(encoder, places, kinds, size)
        decoder = self._sam.mask_decoder
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        return torch.cat([output.expand(len(points), -1, -1), asked], dim=1)

    def _attend(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Run SAM's two-way transformer on tokens ``(B, 7, 256)`` and the image."""
        transformer = self._sam.mask_decoder.transformer
        tokens, pixels = given, self._image
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                tokens = layer.self_attn(tokens, tokens, tokens)
            else:
                placed = tokens + given
                tokens = tokens + layer.self_attn(placed, placed, tokens)
            tokens = layer.norm1(tokens)
            attention = layer.cross_attn_token_to_image
            tokens = tokens + self._from_image(attention, tokens + given, pixels)
            tokens = layer.norm2(tokens)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            attention = layer.cross_attn_image_to_token
            pixels = self._with_tokens(attention, pixels, tokens + given, tokens)
            pixels = _normed(pixels, layer.norm4)
        attention = transformer.final_attn_token_to_image
        tokens = tokens + self._from_image(attention, tokens + given, pixels)
        return transformer.norm_final_attn(tokens), pixels

    def _from_image(
        self, attention: Attention, queries: Tensor, pixels: Tensor
    ) -> Tensor:
        """Return what tokens ``(B, N, 256)`` learn from the pixels."""
        asked = _by_head(attention.q_proj(queries), attention)
        # the bias of the keys adds the same to every pixel, and falls out
        weights = self._similarity(_folded(asked, attention.k_proj), pixels).softmax(-1)
        mean = torch.matmul(weights, pixels).float()
        mean = mean.view(*asked.shape[:3], -1)
        values = _heads(attention.v_proj.weight, attention)
        found = torch.einsum("bnhc,hdc->bnhd", mean, values).flatten(2)
        result: Tensor = attention.out_proj(found + attention.v_proj.bias)
        return result

    def _with_tokens(
        self, attention: Attention, pixels: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Return the pixels, with what they learn from tokens ``(B, N, 256)``."""
        heads = attention.num_heads
        offered = _by_head(attention.k_proj(keys), attention)
        count, tokens = offered.shape[:2]
        similar = self._similarity(_folded(offered, attention.q_proj), pixels)
        bias = attention.q_proj.bias.view(heads, -1)
        similar += (offered * bias).sum(-1).view(count, -1, 1).to(similar.dtype)
        weights = similar.view(count, tokens, -1).softmax(dim=1).view_as(similar)
        told = attention.v_proj(values).view(count, tokens, heads, -1)
        output = attention.out_proj.weight.view(-1, heads, told.shape[-1])
        told = torch.einsum("bnhd,chd->bnhc", told, output)
        # weights of a head add up to 1: its share of the bias can come with them
        told = (told + attention.out_proj.bias / heads).flatten(1, 2)
        before = pixels.expand(count, -1, -1)
        return torch.baddbmm(before, weights.mT, told.to(self._dtype))

    def _similarity(self, folded: Tensor, pixels: Tensor) -> Tensor:
        """Compare ``(B, M, 256)`` with all pixels and where they are: ``(B, M, P)``."""
        folded = folded.to(self._dtype)
        placed = torch.matmul(folded, self._code.T)
        if pixels.ndim == 2:
            return placed.add_(torch.matmul(folded, pixels.T))
        return torch.baddbmm(placed, folded, pixels.mT)

    def _draw(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Return the three masks ``(B, 3, h, 2, 2, w, 2, 2)`` of each point."""
        decoder = self._sam.mask_decoder
        first, norm, _, second, _ = decoder.output_upscaling
        fine = _doubled(pixels, first)
        fine = functional.gelu(_normed(fine, norm))
        fine = functional.gelu(_doubled(fine, second))
        heads = decoder.output_hypernetworks_mlps
        wanted = range(len(heads))[CHOICES]
        read = torch.stack([heads[index](tokens[:, 1 + index]) for index in wanted], 2)
        masks = torch.matmul(fine.flatten(1, 3), read.to(self._dtype))
        # each pixel has become 2 × 2, and each of these 2 × 2 again
        parts = masks.view(len(tokens), *self._grid, 2, 2, 2, 2, len(wanted))
        drawn: Tensor = parts.permute(0, 7, 1, 3, 5, 2, 4, 6)
        return drawn


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
    return parts if layer.bias is None else parts.add_(layer.bias.to(pixels.dtype))
