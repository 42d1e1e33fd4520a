"""Segmenting by a phrase, with no training: what a diffusion model attends to.

The method of ADZUS (Hamrani et al., arXiv 2504.17628 and 2503.18170): an image goes
through the UNet of a frozen diffusion model once, conditioned on the phrase. Its
self-attention cuts the image into segments (`napari_medseg.models.merging`); its
cross-attention says how much of the phrase, and how much of the background, each of
them is. Which segments are then taken is not told in the papers; here it is the higher
of two groups of scores, and clicks change it (`napari_medseg.models.partition`).

The image is seen whole where its longer side is at most twice that of the model's
input, with its own mirror image beside it where it is not square; larger ones are seen
in overlapping windows of that size, each pixel in the window whose middle is nearest.
What is kept of a window does not depend on τ, so that another τ is answered at once.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medseg._config import to_dict
from napari_medseg._types import (
    CLASS_COLOURS,
    InputError,
    JobError,
    LabelClass,
    Prediction,
    Progress,
    finish,
)
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models import diffusion_store
from napari_medseg.models.attention_maps import aggregate, recording, word_map
from napari_medseg.models.devices import is_out_of_memory, resolve_device
from napari_medseg.models.diffusion import Diffusion, read_diffusion
from napari_medseg.models.framing import Framing, resize
from napari_medseg.models.merging import anchors, distances
from napari_medseg.models.partition import joined
from napari_medseg.models.phrase_look import Look, Seen, owned, owned_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from napari_medseg._types import FloatArray, Job, LabelArray
    from napari_medseg.models.framing import Box
    from napari_medseg.models.partition import Click, Partition
    from napari_medseg.models.phrase_look import Slices
    from napari_medseg.models.phrase_settings import PhraseConfig

LOOKING = "the diffusion model is looking at the image"

SMALLEST = 16
"""Side of a window, at least; smaller images are mirrored."""


@dataclass(frozen=True, slots=True)
class PhraseSegmenter:
    """A segmenter that needs a phrase and no training.

    Attributes
    ----------
    diffusion : Diffusion
        What is looked into, where it lies.
    config : PhraseConfig
        Phrase and settings.

    Raises
    ------
    InputError
        The phrase, or the word for the background, is too long for the model.
    """

    diffusion: Diffusion
    config: PhraseConfig

    def __post_init__(self) -> None:
        for text in (self.config.text, self.config.background):
            self.diffusion.tokens(text)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Background, and what is looked for."""
        found = LabelClass(self.config.text or "object", CLASS_COLOURS[1])
        return LabelClass("background", CLASS_COLOURS[0]), found

    @property
    def identity(self) -> str:
        """SHA-256 of the weights' hash and the settings."""
        # where the model lies does not matter
        settings = to_dict(replace(self.config, model=""))
        told = json.dumps(
            {"phrase": settings, "weights": self.diffusion.digest}, sort_keys=True
        )
        return hashlib.sha256(told.encode()).hexdigest()

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, as it was read. Of more than three channels the
            first three count.

        Returns
        -------
        Prediction
            Of a segment each pixel has the same probability; above ½ it is meant.

        Raises
        ------
        InputError
            The phrase is too long for the model, or the image has no pixel.
        JobError
            Memory ran out.
        """
        return finish(self.predicting(image))

    def predicting(self, image: FloatArray) -> Job[Prediction]:
        """Segment an image window by window, so that others can have their turn.

        Parameters and results are those of `predict`; it yields one report a window.
        """
        partition = yield from self.cutting(image)
        return self.prediction(partition)

    def prediction(
        self,
        partition: Partition,
        points: Sequence[Click] = (),
        adds: Sequence[bool] = (),
    ) -> Prediction:
        """Return what a partition says, as of every other segmenter.

        Parameters
        ----------
        partition : Partition
            Of `cutting` or `Look.partition`.
        points, adds
            Clicks, as of `Partition.chosen`.

        Returns
        -------
        Prediction
            As of `predict`.
        """
        told = partition.likely().any() or bool(points)
        note = "" if told else self._nothing(partition)
        return Prediction(partition.probabilities(points, adds), self.classes, note)

    def _nothing(self, partition: Partition) -> str:
        """Say why no segment is meant."""
        if not self.config.text:
            return "Without a phrase nothing is chosen; click on segments."
        return (
            f"No segment is more of {self.config.text!r} than another "
            f"({len(partition.scores)} in all). A lower tau gives more segments."
        )

    def cutting(self, image: FloatArray) -> Job[Partition]:
        """Cut an image into segments, keeping no attention: for images of any size.

        Parameters and errors are those of `predict`.

        Returns
        -------
        Partition
            As of `Look.partition`.
        """
        scaled, boxes = self._prepared(image)
        parts: list[tuple[Slices, LabelArray, FloatArray]] = []
        for box, place in zip(boxes, owned(boxes), strict=True):
            yield Progress(len(parts), len(boxes), LOOKING)
            with _told_of_memory():
                window = self._seen(scaled, box)
                parts.append(owned_part(window, place, self.config))
        return joined((image.shape[1], image.shape[2]), parts)

    def look(self, image: FloatArray) -> Job[Look]:
        """Look at an image and keep the attention, so that other τ are quick.

        Parameters and errors are those of `predict`.

        Returns
        -------
        Look
            It takes 70 MB a window with Stable Diffusion.
        """
        scaled, boxes = self._prepared(image)
        windows: list[Seen] = []
        for box in boxes:
            yield Progress(len(windows), len(boxes), LOOKING)
            with _told_of_memory():
                windows.append(self._seen(scaled, box))
        shape = (image.shape[1], image.shape[2])
        return Look(shape, tuple(windows), self.config)

    def tile(self, shape: tuple[int, int]) -> int:
        """Return the side of a window of an image, in its pixels."""
        side, longest = self.diffusion.side, max(shape)
        usual = longest if longest <= 2 * side else 2 * side
        return max(SMALLEST, min(self.config.window or usual, longest))

    def boxes(self, shape: tuple[int, int]) -> list[Box]:
        """Return the windows of an image of so many rows and columns."""
        return Framing(tile=self.tile(shape)).boxes(shape)

    def _prepared(self, image: FloatArray) -> tuple[FloatArray, list[Box]]:
        """Return three channels in [0, 1], and the windows."""
        if image.ndim != 3 or not image.size:
            raise InputError(
                f"An image of shape {image.shape} cannot be looked at; it has to be "
                "(C, Y, X) with at least one pixel."
            )
        channels = len(image)
        usual = Normalisation.for_channels(channels, rgb=channels == 3)
        boxes = self.boxes((image.shape[1], image.shape[2]))
        return np.nan_to_num(normalise(image, usual)), boxes

    def _seen(self, image: FloatArray, box: Box) -> Seen:
        """Look at one window."""
        tile = self.tile((image.shape[1], image.shape[2]))
        rows, columns = box.slices
        height, width = box.shape
        beyond = ((0, 0), (0, tile - height), (0, tile - width))
        square = np.pad(image[:, rows, columns], beyond, mode="symmetric")
        side = self.diffusion.side
        pixels = resize(torch.from_numpy(square)[None], (side, side)).clamp(0, 1)
        with torch.inference_mode():
            maps, lean = self._attention(pixels.to(self.diffusion.device), tile)
            begin = anchors(self.diffusion.grid, self.config.anchors).to(maps.device)
            near = distances(maps[begin], maps)
        return Seen(box, tile, maps, near, lean[:height, :width].cpu().contiguous())

    def _attention(self, pixels: Tensor, tile: int) -> tuple[Tensor, Tensor]:
        """Return the aggregated maps, and the lean ``(tile, tile)`` to the phrase."""
        config, model = self.config, self.diffusion
        states = model.states([config.text, config.background])
        states = states.to(model.unet.dtype)
        latent = model.latent(pixels).to(model.unet.dtype)
        with recording(model.unet, states[1:]) as record:
            model.unet(latent, config.timestep, states[:1])
        maps = aggregate(record, model.grid)
        shape, lean = (tile, tile), torch.zeros(tile, tile, device=maps.device)
        told = range(1, 1 + len(model.tokens(config.text)))
        others = range(1, 1 + len(model.tokens(config.background)))
        if told:
            lean = lean + word_map(record.words, record.layers, told, shape)
            if others:
                lean -= word_map(record.others, record.layers, others, shape)
        return maps, lean


@contextmanager
def _told_of_memory() -> Iterator[None]:
    """Say in a sentence that memory ran out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise JobError(
            "Memory ran out while the diffusion model looked at the image. Close other "
            "programs, or choose the processor (cpu) in place of the graphics card."
        ) from None


def open_phrase(
    config: PhraseConfig, device: str = "auto", base: str | None = None
) -> PhraseSegmenter:
    """Open the segmenter of a phrase.

    Parameters
    ----------
    config : PhraseConfig
        Phrase and settings.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    base : str, optional
        Diffusion model, in place of the one that the settings name.

    Returns
    -------
    PhraseSegmenter
        Ready to predict.

    Raises
    ------
    InputError
        There is no such diffusion model, or the phrase is too long for it.
    WeightsError
        Its weights are not on this computer, or damaged.
    MedsegError
        diffusers or transformers is not installed.
    """
    return PhraseSegmenter(open_diffusion(base or config.model, device), config)


def open_diffusion(name: str, device: str = "auto") -> Diffusion:
    """Open a diffusion model.

    Parameters
    ----------
    name : str
        A name that ``models list`` shows, or a folder; empty for the first here.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.

    Returns
    -------
    Diffusion
        For any number of phrases.

    Raises
    ------
    InputError, WeightsError, MedsegError
        As for `open_phrase`.
    """
    folder = diffusion_store.find(name)
    target = resolve_device(device)
    return read_diffusion(folder, target, diffusion_store.digest_of(folder))
