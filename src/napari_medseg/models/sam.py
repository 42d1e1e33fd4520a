"""SAM (Kirillov et al., ICCV 2023) through the ``segment-anything`` package.

The network classes are the package's own. What stands here is what its predictor
does not offer: any working size, gradients where the caller wants them, a decoder
that takes a batch of images with one prompt set each, and its upscaled features.

All functions take images as ``float32 (B, 3, H, W)`` in [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch.nn import functional

from napari_medseg.models import two_way, vit
from napari_medseg.models.nano import EMBEDDING_CHANNELS, STRIDE, NanoEncoder

if TYPE_CHECKING:
    from torch import Tensor

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Mean of the three inputs, in grey levels of 0 to 255, that SAM was trained with."""

PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviation of the three inputs, likewise."""

ALL = slice(0, 4)
"""All masks of the mask decoder."""


class Decoded(NamedTuple):
    """What the mask decoder says.

    Attributes
    ----------
    masks : Tensor
        ``(B, M, 4h, 4w)`` logits: of all four, first the single mask, then the three
        of the multi-mask output.
    iou : Tensor
        ``(B, 4)``, predicted IoU of each of the four masks.
    fine : Tensor
        ``(B, h * w, 4, 4, 32)``, the upscaled embedding the masks are read from.
    """

    masks: Tensor
    iou: Tensor
    fine: Tensor

    @property
    def features(self) -> Tensor:
        """The upscaled embedding as maps, ``(B, 32, 4h, 4w)``."""
        height, width = self.masks.shape[2:]
        return two_way.as_maps(self.fine, (height // 4, width // 4))


def build_sam(kind: str) -> Sam:
    """Build a randomly initialised SAM.

    Parameters
    ----------
    kind : {"nano", "vit_b", "vit_l", "vit_h"}
        Which one.

    Returns
    -------
    Sam
        In evaluation mode.
    """
    if kind == "nano":
        return build_nano()
    sam: Sam = sam_model_registry[kind](checkpoint=None)
    return sam


def build_nano(working_size: int = 512) -> Sam:
    """Build a randomly initialised ``nano``.

    Parameters
    ----------
    working_size : int
        Side of the images it works on, in pixels.

    Returns
    -------
    Sam
        SAM's prompt encoder and mask decoder behind a `NanoEncoder`.
    """
    grid = working_size // STRIDE
    sam = Sam(
        image_encoder=NanoEncoder(img_size=working_size),
        prompt_encoder=PromptEncoder(
            embed_dim=EMBEDDING_CHANNELS,
            image_embedding_size=(grid, grid),
            input_image_size=(working_size, working_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2,
                embedding_dim=EMBEDDING_CHANNELS,
                mlp_dim=2048,
                num_heads=8,
            ),
            transformer_dim=EMBEDDING_CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()


def stride_of(sam: Sam) -> int:
    """Return the pixels of the working image per embedding pixel (8 or 16)."""
    return STRIDE if isinstance(sam.image_encoder, NanoEncoder) else 16


def standardise(images: Tensor) -> Tensor:
    """Subtract SAM's pixel mean and divide by its standard deviation.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)`` in [0, 1]. With other than three channels, which only
        networks of their own take, all get the average of the three colours.

    Returns
    -------
    Tensor
        The same shape.
    """
    mean, std = _statistics(images)
    return (images * 255.0 - mean) / std


def unstandardise(inputs: Tensor) -> Tensor:
    """Bring windows ``(B, C, H, W)`` of `standardise` back to [0, 1]."""
    mean, std = _statistics(inputs)
    return (inputs * std + mean) / 255.0


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation for images ``(B, C, H, W)``."""
    mean = images.new_tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(PIXEL_STD).view(1, 3, 1, 1)
    if images.shape[1] != len(PIXEL_MEAN):
        return mean.mean(), std.mean()
    return mean, std


def encode(encoder: torch.nn.Module, inputs: Tensor) -> Tensor:
    """Run SAM's image encoder at any working size.

    SAM's own ``forward`` adds a position embedding made for 1024 pixels. Here it is
    resampled (bicubic) to the size at hand; at 1024 it is used as it is. The
    relative positions inside the attention are resampled by SAM's own code.

    Parameters
    ----------
    encoder : Module
        ``sam.image_encoder``.
    inputs : Tensor
        ``(B, 3, H, W)`` from `standardise`; H and W multiples of 16.

    Returns
    -------
    Tensor
        ``(B, 256, H / stride, W / stride)``.
    """
    # convolutions on processors are several times faster this way round
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    if not isinstance(encoder, ImageEncoderViT):
        embedding: Tensor = encoder(inputs)
        return embedding
    if encoder.pos_embed is None:
        return vit.forward(encoder, inputs, None)
    grid = (inputs.shape[2] // 16, inputs.shape[3] // 16)
    return vit.forward(encoder, inputs, _position_embedding(encoder.pos_embed, grid))


def _position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a position embedding ``(1, H, W, D)`` to ``grid``."""
    if tuple(table.shape[1:3]) == grid:
        return table
    resampled = functional.interpolate(
        table.permute(0, 3, 1, 2).float(),
        size=grid,
        mode="bicubic",
        antialias=True,
    )
    return resampled.permute(0, 2, 3, 1).to(table.dtype)


def position_code(prompt_encoder: PromptEncoder, grid: tuple[int, int]) -> Tensor:
    """Return SAM's random-Fourier position code of every embedding pixel.

    Parameters
    ----------
    prompt_encoder : PromptEncoder
        ``sam.prompt_encoder``.
    grid : tuple of int
        Height and width of the embedding.

    Returns
    -------
    Tensor
        ``(1, 256, h, w)``.
    """
    code: Tensor = prompt_encoder.pe_layer(grid)
    return code.unsqueeze(0)


def no_mask_embedding(prompt_encoder: PromptEncoder) -> Tensor:
    """Return the dense embedding of "no mask given", ``(1, 256, 1, 1)``."""
    weight: Tensor = prompt_encoder.no_mask_embed.weight
    return weight.view(1, -1, 1, 1)


def mask_embedding(prompt_encoder: PromptEncoder, masks: Tensor) -> Tensor:
    """Return the dense embedding of masks that were drawn before.

    Parameters
    ----------
    prompt_encoder : PromptEncoder
        ``sam.prompt_encoder``.
    masks : Tensor
        ``bool (B, 4 * h, 4 * w)``, at the decoder's resolution.

    Returns
    -------
    Tensor
        ``(B, 256, h, w)``.
    """
    signs = torch.where(masks, 1.0, -1.0).unsqueeze(1)
    embedding: Tensor = prompt_encoder.mask_downscaling(signs)
    return embedding


def point_tokens(
    prompt_encoder: PromptEncoder, points: Tensor, labels: Tensor, size: tuple[int, int]
) -> Tensor:
    """Encode points and box corners as prompt tokens, as SAM does.

    Parameters
    ----------
    prompt_encoder : PromptEncoder
        ``sam.prompt_encoder``.
    points : Tensor
        ``(B, N, 2)``, x and y in pixels of the working image.
    labels : Tensor
        ``(B, N)``: 1 add, 0 take away, 2 and 3 the two corners of a box, -1 padding
        (SAM pads with one such point when no box is given).
    size : tuple of int
        Height and width of the working image, in pixels.

    Returns
    -------
    Tensor
        ``(B, N, 256)``.
    """
    code = prompt_encoder.pe_layer.forward_with_coords(points + 0.5, size)
    padding = (labels == -1).unsqueeze(-1)
    kinds = torch.stack([item.weight[0] for item in prompt_encoder.point_embeddings])
    tokens = code + kinds[labels.clamp(min=0)]
    return torch.where(padding, prompt_encoder.not_a_point_embed.weight, tokens)


def decode(
    decoder: MaskDecoder,
    embeddings: Tensor,
    code: Tensor,
    tokens: Tensor,
    dense: Tensor,
    which: slice = ALL,
) -> Decoded:
    """Run SAM's mask decoder on a batch of images with one prompt set each.

    SAM's ``predict_masks`` repeats every image for every prompt set, which suits
    one image with many prompts only. Under autocast, pixels are computed in its
    dtype, and tokens in float32.

    Parameters
    ----------
    decoder : MaskDecoder
        ``sam.mask_decoder``.
    embeddings : Tensor
        ``(B, 256, h, w)``.
    code : Tensor
        ``(1, 256, h, w)`` from `position_code`, or ``(B, 256, h, w)``.
    tokens : Tensor
        ``(B, N, 256)`` prompt tokens; N may be 0.
    dense : Tensor
        Dense embedding, broadcastable to ``embeddings``.
    which : slice
        Which of the four masks are wanted; by default all.

    Returns
    -------
    Decoded
        The masks, their predicted IoU and the upscaled features.
    """
    batch, _, height, width = embeddings.shape
    kind = embeddings.device.type
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    dtype = output.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        tokens = torch.cat(
            [output.expand(batch, -1, -1), tokens.to(output.dtype)], dim=1
        )
        pixels = two_way.pixels_of(embeddings.to(output.dtype) + dense, dtype)
        placed = two_way.pixels_of(code, dtype)
        states, pixels = two_way.attend(decoder.transformer, tokens, pixels, placed)
        fine = two_way.enlarge(decoder, pixels)
        masks = two_way.read_masks(decoder, states, fine, which)
        iou = decoder.iou_prediction_head(states[:, 0])
    return Decoded(two_way.as_maps(masks, (height, width)), iou, fine)
