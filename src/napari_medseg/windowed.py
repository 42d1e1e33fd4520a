"""A network over an image of any size: cut, predict, blend.

Any callable that maps a batch of windows to class logits is run here. When memory
runs out, the same image is done in smaller batches, then in smaller windows of the
same magnification, then on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_medseg._types import JobError, Progress, finish
from napari_medseg.io.normalise import Normalisation, apply_limits, limits
from napari_medseg.io.pixels import ArrayPixels
from napari_medseg.models.backbone import autocast
from napari_medseg.models.devices import is_out_of_memory
from napari_medseg.models.framing import Blender, Box, Framing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._types import FloatArray, Job, Pixels

Network = Callable[[Tensor], Tensor]
"""Maps windows ``(B, 3, S, S)`` to class logits ``(B, K, h, w)``."""

SMALLEST_SIZE = 128
"""Windows are not made smaller than this, in pixels of the network's input."""

MIRRORINGS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))
"""Axes of a piece ``(C, h, w)`` of an image that are turned round: all four ways."""

GPU_BATCH = 8
"""Windows a batch on a GPU, to begin with; on a processor one is as quick as many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How windows are run; each failure for want of memory leads to a smaller one.

    Attributes
    ----------
    framing : Framing
        The windows.
    batch : int
        Windows at a time.
    device : torch.device
        Where.
    note : str
        What was made smaller, in words; empty for the first plan.
    first : Framing or None
        The windows to begin with, where they were made smaller since.
    mirrored : bool
        Whether each window is seen mirrored in four ways, of which the mean is taken.
    """

    framing: Framing
    batch: int
    device: torch.device
    note: str = ""
    first: Framing | None = None
    mirrored: bool = False

    def smaller(self) -> Plan | None:
        """Return the next plan to try, or None where there is none."""
        framing = self.framing
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        half = framing.size // 2 // 32 * 32
        if half >= SMALLEST_SIZE:
            tile = max(8, round(framing.tile * half / framing.size))
            return replace(
                self,
                framing=replace(framing, tile=tile, size=half),
                note="Memory ran out, so the image was done in smaller windows.",
                first=self.first or framing,
            )
        if self.device.type != "cpu":
            # the processor mostly has more memory, and whole windows see more
            return replace(
                self,
                framing=self.first or framing,
                batch=1,
                device=torch.device("cpu"),
                note="Memory of the graphics card ran out, so the processor was used.",
                first=None,
            )
        return None


def predict_probabilities(
    image: FloatArray,
    network: Network,
    normalisation: Normalisation,
    plan: Plan,
) -> tuple[FloatArray, str]:
    """Predict the class probabilities of an image of any size at once.

    Parameters
    ----------
    image, network, normalisation, plan
        As for `predicting_probabilities`.

    Returns
    -------
    tuple
        As of `predicting_probabilities`.

    Raises
    ------
    JobError, InputError
        As for `predicting_probabilities`.
    """
    return finish(predicting_probabilities(image, network, normalisation, plan))


def predicting_probabilities(
    image: FloatArray,
    network: Network,
    normalisation: Normalisation,
    plan: Plan,
) -> Job[tuple[FloatArray, str]]:
    """Predict the class probabilities of an image, so that others can have their turn.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``, as it was read.
    network : callable
        Maps windows to logits; a Module is moved to the plan's device.
    normalisation : Normalisation
        Channels and percentiles.
    plan : Plan
        How to run the windows, to begin with.

    Yields
    ------
    Progress
        Rows that are done, after each batch of windows.

    Returns
    -------
    probabilities : ndarray
        ``float32 (K, Y, X)``.
    note : str
        What had to be made smaller; empty where nothing had.

    Raises
    ------
    JobError
        Memory ran out even with the smallest plan.
    InputError
        The image lacks a channel that the model uses.
    """
    pixels = ArrayPixels(image)
    while True:
        try:
            bands = _bands(pixels, network, normalisation, plan)
            whole = yield from _together(bands, pixels.shape)
            return whole, plan.note
        except (RuntimeError, MemoryError) as error:
            plan = _after(error, plan, pixels)


def predict_bands(
    pixels: Pixels, network: Network, normalisation: Normalisation, plan: Plan
) -> Iterator[tuple[FloatArray, str]]:
    """Predict the class probabilities of an image that may not fit into memory.

    Parameters
    ----------
    pixels : Pixels
        The image.
    network, normalisation, plan
        As for `predict_probabilities`.

    Yields
    ------
    probabilities : ndarray
        ``float32 (K, h, X)`` of the next rows; all of them together are what
        `predict_probabilities` gives, bit for bit.
    note : str
        What had to be made smaller; empty where nothing had.

    Raises
    ------
    JobError
        Memory ran out with the smallest plan, or after the first rows.
    InputError
        The image lacks a channel that the model uses.
    """
    while True:
        steps = _bands(pixels, network, normalisation, plan)
        bands = (band for band in steps if band.shape[1])
        try:
            first = next(bands)
            break
        except (RuntimeError, MemoryError) as error:
            plan = _after(error, plan, pixels)
    yield first, plan.note
    try:
        for band in bands:
            yield band, plan.note
    except (RuntimeError, MemoryError) as error:
        _after(error, plan, pixels)
        raise JobError(
            "Memory ran out in the middle of the image. Close other programs, and "
            "segment it again."
        ) from None


def _after(error: BaseException, plan: Plan, pixels: Pixels) -> Plan:
    """Return the plan to try after an error, if it was for want of memory."""
    if not is_out_of_memory(error):
        raise error
    # the frames of the error hold the tensors that did not fit
    error.__traceback__ = None
    next_plan = plan.smaller()
    if next_plan is None:
        _, height, width = pixels.shape
        raise JobError(
            f"Memory ran out on an image of {height} × {width} pixels, even in the "
            "smallest windows. Close other programs."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return next_plan


def _together(
    bands: Iterator[FloatArray], shape: tuple[int, int, int]
) -> Job[FloatArray]:
    """Put bands together, one a step."""
    whole: FloatArray | None = None
    top = 0
    for band in bands:
        if whole is None:
            whole = np.empty((len(band), *shape[1:]), np.float32)
        whole[:, top : top + band.shape[1]] = band
        top += band.shape[1]
        yield Progress(top, shape[1], "segmenting")
    if whole is None:
        raise ValueError("an image has at least one window")
    return whole


def _bands(
    pixels: Pixels, network: Network, normalisation: Normalisation, plan: Plan
) -> Iterator[FloatArray]:
    """Run the windows of an image by one plan, a batch at a time.

    After each batch the rows are given for which no window is to come, often none.
    """
    found = limits(pixels.sample(), normalisation)
    _, height, width = pixels.shape
    boxes = plan.framing.boxes((height, width))
    blender: Blender | None = None
    for start in range(0, len(boxes), plan.batch):
        if isinstance(network, nn.Module):
            # another image that ran out of memory may have moved it since
            network.to(plan.device)
        group = boxes[start : start + plan.batch]
        # only the pixels of these windows, by the limits of the whole image
        pieces = [
            apply_limits(pixels.region(*box.slices), normalisation, found)
            for box in group
        ]
        views = [
            _probabilities(network, pieces, group, axes, plan)
            for axes in (MIRRORINGS if plan.mirrored else MIRRORINGS[:1])
        ]
        for box, *shares in zip(group, *views, strict=True):
            mean = shares[0] if len(shares) == 1 else torch.stack(shares).mean(dim=0)
            blender = blender or Blender(len(mean), width)
            blender.add(mean.numpy(), box)
        below = boxes[start + plan.batch : start + plan.batch + 1]
        bottom = below[0].top if below else height
        if blender is not None:
            yield blender.take(max(bottom, blender.top))


def _probabilities(
    network: Network,
    pieces: list[FloatArray],
    boxes: list[Box],
    axes: tuple[int, ...],
    plan: Plan,
) -> list[Tensor]:
    """Return the class probabilities ``(K, h, w)`` of pieces, seen mirrored.

    A piece is mirrored before it gets its margin, which so lies where it always lies.
    """
    framing = plan.framing
    windows = [
        framing.window(np.flip(piece, axes), Box(0, 0, *piece.shape[1:]))
        for piece in pieces
    ]
    with torch.inference_mode(), autocast(plan.device):
        logits = network(torch.stack(windows).to(plan.device)).cpu()
    return [
        framing.unwindow(each, box).softmax(dim=0).flip(axes)
        for each, box in zip(logits, boxes, strict=True)
    ]
