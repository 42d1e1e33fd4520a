"""SAM's mask decoder for many points of one image: its answers, in less time.

The image is prepared once for all points (see `napari_medseg.models.two_way`), and
masks are drawn only where SAM expects them to be good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from napari_medseg.models import sam as sams
from napari_medseg.models import two_way
from napari_medseg.models.clicks import ADD, PADDING
from napari_medseg.models.devices import compute_dtype
from napari_medseg.models.interactive import CHOICES

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


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
            self._code = two_way.pixels_of(code, self._dtype)
            self._image = two_way.pixels_of(image, self._dtype)

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
            tokens, pixels = two_way.attend(
                decoder.transformer, self._tokens(points), self._image, self._code
            )
            scores = decoder.iou_prediction_head(tokens[:, 0])[:, CHOICES].float()
            good = scores > worst
            some = good.any(dim=1)
            fine = two_way.enlarge(decoder, pixels[some])
            masks = two_way.read_masks(decoder, tokens[some], fine, CHOICES)
            maps = two_way.as_maps(masks, self._grid)
            return Answers(maps[good[some]], scores[good])

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
