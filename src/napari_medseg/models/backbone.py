"""A SAM with its weights, ready to embed windows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import ImageEncoderViT

from napari_medseg._types import WeightsError
from napari_medseg.models import checkpoints, vit
from napari_medseg.models import sam as sams
from napari_medseg.models.click_decoder import load_click_decoder
from napari_medseg.models.devices import compute_dtype
from napari_medseg.models.embeddings import EmbeddingCache, signature
from napari_medseg.models.fine_embedding import fine_embedding
from napari_medseg.models.judge import load_judge
from napari_medseg.models.registry import SAMS, lookup
from napari_medseg.models.weights import (
    find,
    imported,
    recall,
    remember,
    weights_folder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from segment_anything.modeling import Sam
    from torch import Tensor, nn

    from napari_medseg.models.click_decoder import ClickDecoder
    from napari_medseg.models.judge import Judge
    from napari_medseg.models.registry import KnownSizes

SUFFIXES = (".pth", ".pt", ".safetensors")
"""Endings of checkpoint files."""


@dataclass(eq=False)
class Backbone:
    """A SAM with its weights.

    Attributes
    ----------
    sam : Sam
        The network, in evaluation mode, in float32.
    name : str
        Name in the registry, or the file name of a checkpoint.
    kind : str
        ``nano``, ``vit_b``, ``vit_l`` or ``vit_h``.
    title : str
        Name shown to the user.
    digest : str
        SHA-256 of the weights, whatever file they came in.
    working_size : int
        Side of its usual input, in pixels.
    licence : str
        SPDX identifier of the licence of the weights.
    cache : EmbeddingCache
        Embeddings computed so far.
    sizes : KnownSizes, optional
        The sizes of objects it knows, if it does not know all.
    clicks_file : str
        The bundled file of the decoder that answers clicks and boxes, if one was
        trained for these weights; else empty.
    judge_file : str
        The bundled file of what chooses among its masks, if that was trained for
        these weights; else empty.
    """

    sam: Sam
    name: str
    kind: str
    title: str
    digest: str
    working_size: int
    licence: str
    cache: EmbeddingCache
    sizes: KnownSizes | None = None
    clicks_file: str = ""
    judge_file: str = ""
    _light: ImageEncoderViT | None = field(default=None, init=False, repr=False)

    def embed(self, inputs: Tensor, device: torch.device, fineness: int = 1) -> Tensor:
        """Embed one window, or take its embedding from the cache.

        Parameters
        ----------
        inputs : Tensor
            ``float32 (3, S, S)``, standardised and padded.
        device : torch.device
            Where to compute.
        fineness : int
            Looks along each side; see `fine_embedding`.

        Returns
        -------
        Tensor
            ``float16 (fineness² * 256, h, w)`` on the processor. It is the one that
            is kept, not a copy, and must not be changed.
        """
        dtype = compute_dtype(device)

        def encode(windows: Tensor) -> Tensor:
            encoder = self._encoder(dtype)
            _bring(encoder, device)
            with torch.inference_mode(), autocast(device):
                result = sams.encode(encoder, windows.to(device)).to(torch.float16)
            # a tensor made in inference mode cannot take part in training
            return result.clone()

        def compute() -> Tensor:
            return fine_embedding(encode, inputs[None], fineness)[0]

        key = signature(inputs, self.digest, dtype, fineness)
        return self.cache.get(key, compute)

    def _encoder(self, dtype: torch.dtype) -> nn.Module:
        """Return the image encoder, its matrices cast once where they would be often.

        That costs half the memory of the weights again, and saves a tenth of the time.
        """
        encoder: nn.Module = self.sam.image_encoder
        if dtype == torch.float32 or not isinstance(encoder, ImageEncoderViT):
            return encoder
        if self._light is None:
            self._light = vit.light(encoder, dtype)
        light: nn.Module = self._light
        return light

    @cached_property
    def judge(self) -> Judge | None:
        """What chooses among the masks of a click or a box, where there is such a one.

        Loaded when it is first asked for: what is tuned and applied needs none.
        """
        return load_judge(self.judge_file) if self.judge_file else None

    @cached_property
    def _clicks(self) -> ClickDecoder | None:
        """What answers clicks and boxes, where the SAM itself does not."""
        if not self.clicks_file:
            return None
        return load_click_decoder(self.clicks_file, self.sam)

    def answering(self, device: torch.device) -> Sam | ClickDecoder:
        """Return what has the prompt encoder and mask decoder for clicks and boxes."""
        if self._clicks is None:
            return self.on(device)
        _bring(self._clicks, device)
        return self._clicks

    def on(self, device: torch.device) -> Sam:
        """Return the network on a device; quick where it is there already."""
        _bring(self.sam, device)
        return self.sam

    def card(self) -> dict[str, Any]:
        """Return what a model file says of the model underneath."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "working_size": self.working_size,
            "title": self.title,
            "licence": self.licence,
        }


def _bring(network: nn.Module, device: torch.device) -> None:
    """Bring a network to a device, if it is not there.

    To move it where it is takes milliseconds, as each of its parts is asked.
    """
    here = next(network.parameters(), None)
    if here is not None and not _is_same(here.device, device):
        network.to(device)


def _is_same(one: torch.device, other: torch.device) -> bool:
    """Tell whether devices are one: without a number the first is meant."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where ``device`` does so in hardware."""
    dtype = compute_dtype(device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def load_backbone(name: str) -> Backbone:
    """Load a SAM by name, or from a checkpoint file.

    Parameters
    ----------
    name : str
        ``nano``, ``vit_b``, ``vit_l``, ``vit_h``, the name of an imported
        checkpoint, or the path of a checkpoint in the official format.

    Returns
    -------
    Backbone
        On the processor.

    Raises
    ------
    InputError
        The name is unknown.
    WeightsError
        The weights are not on this computer, or the file is not a checkpoint of
        SAM.
    """
    is_file = Path(name).suffix.lower() in SUFFIXES and name not in imported()
    path = Path(name) if is_file else find(name)
    state = checkpoints.read_state(path)
    kind = checkpoints.sam_kind(state)
    official = name in SAMS
    entry = lookup(kind)
    slow = kind != "nano"
    digest = checkpoints.weights_digest(state)
    if is_file:
        remember(digest, path)
    return Backbone(
        sam=_with_weights(kind, state),
        name=path.name if is_file else name,
        kind=kind,
        title=entry.title if official else f"{path.stem} ({entry.title})",
        digest=digest,
        working_size=entry.working_size,
        licence=entry.weights.licence if official else "LicenseRef-unspecified",
        cache=EmbeddingCache(weights_folder() / "embeddings" if slow else None),
        sizes=entry.sizes,
        clicks_file=entry.clicks.name if official and entry.clicks else "",
        judge_file=entry.judge.name if official and entry.judge else "",
    )


def load_base(card: Mapping[str, Any], given: str | None = None) -> Backbone:
    """Load the SAM that a model file was tuned on.

    Parameters
    ----------
    card : mapping
        ``base`` of the model file's card.
    given : str, optional
        A checkpoint to use; else the SAM of the card's name, or the file of that
        hash that was last used on this computer.

    Returns
    -------
    Backbone
        With the very weights of the card.

    Raises
    ------
    WeightsError
        The weights are not on this computer, or are others.
    """
    name, digest = str(card.get("name")), str(card.get("sha256"))
    official = name in SAMS or name in imported()
    place = given or (name if official else recall(digest))
    if place is None:
        raise WeightsError(
            f"This model was tuned on the checkpoint {name}, which is not on this "
            "computer. Run `napari-medseg models import FILE` with that checkpoint."
        )
    backbone = load_backbone(place)
    if backbone.digest != digest:
        raise WeightsError(
            f"This model was tuned on other weights than those of {place} (its card "
            f"says {digest[:12]}…, they are {backbone.digest[:12]}…). Bring the "
            f"checkpoint {name} that it was tuned on."
        )
    return backbone


def _with_weights(kind: str, state: dict[str, Tensor]) -> Sam:
    """Build a SAM around weights, without initialising it first."""
    with torch.device("meta"):
        sam = sams.build_sam(kind)
    floats = {
        key: item.float() if item.is_floating_point() else item
        for key, item in state.items()
    }
    sam.load_state_dict(floats, assign=True)
    # these two are no part of a checkpoint, so they are still without values
    sam.pixel_mean = torch.tensor(sams.PIXEL_MEAN).view(-1, 1, 1)
    sam.pixel_std = torch.tensor(sams.PIXEL_STD).view(-1, 1, 1)
    sam.to(memory_format=torch.channels_last)
    return sam.eval().requires_grad_(False)
