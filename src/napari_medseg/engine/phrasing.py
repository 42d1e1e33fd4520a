"""Segments of a phrase in the engine: kept, so that τ and clicks act at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_medseg._types import JobError
from napari_medseg.models import diffusion_store
from napari_medseg.models.phrase import PhraseSegmenter, open_diffusion
from napari_medseg.models.phrase_settings import phrase_of

if TYPE_CHECKING:
    from napari_medseg._types import Job, LabelArray, Prediction
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context
    from napari_medseg.models.diffusion import Diffusion
    from napari_medseg.models.partition import Partition
    from napari_medseg.models.phrase_look import Look

KEPT = 12
"""Windows of which the attention is kept; of more, another τ needs a new look."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What is kept of an image.

    Attributes
    ----------
    segmenter : PhraseSegmenter
        What cut it.
    partition : Partition
        Its segments.
    tau : float
        By which they were merged.
    look : Look or None
        The attention; None where it would take too much memory.
    """

    segmenter: PhraseSegmenter
    partition: Partition
    tau: float
    look: Look | None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        looked = 0 if self.look is None else self.look.nbytes
        return self.partition.segments.nbytes + looked


def opened(name: str, device: str, context: Context) -> PhraseSegmenter:
    """Return the segmenter of a phrase; its diffusion model is opened once for all.

    Parameters
    ----------
    name : str
        As of `napari_medseg.models.phrase_settings.phrase_of`.
    device : str
        Where to compute.
    context : Context
        Keeps the diffusion model.

    Returns
    -------
    PhraseSegmenter
        Ready to look.
    """
    config = phrase_of(name)
    folder = diffusion_store.find(config.model)
    model: Diffusion = context.shelf.made(
        "diffusion", f"{device} {folder}", lambda: open_diffusion(str(folder), device)
    )
    return PhraseSegmenter(model, config)


def cut(
    segmenter: PhraseSegmenter, arguments: Message, context: Context
) -> Job[tuple[Prediction, LabelArray]]:
    """Look at an image, cut it, and keep what `cut_again` needs.

    Parameters
    ----------
    segmenter : PhraseSegmenter
        Phrase and settings.
    arguments : dict
        ``key`` and ``image`` as of the job ``segment``; ``phrase``: None, or ``tau``
        in place of the segmenter's, and ``clicks``: by key a list of row, column and
        whether the click adds.
    context : Context
        Keeps it.

    Returns
    -------
    tuple
        The prediction, and all segments ``int32 (Y, X)``.
    """
    image = arguments["image"]
    given = arguments.get("phrase") or {}
    tau = float(given.get("tau", segmenter.config.tau))
    segmenter = replace(segmenter, config=replace(segmenter.config, tau=tau))
    look: Look | None = None
    if len(segmenter.boxes((image.shape[1], image.shape[2]))) <= KEPT:
        look = yield from segmenter.look(image)
        partition = look.partition()
    else:
        partition = yield from segmenter.cutting(image)
    kept = Cut(segmenter, partition, tau, look)
    context.shelf.put("partition", arguments["key"], kept, kept.nbytes)
    return _said(kept, arguments), partition.segments


def cut_again(arguments: Message, context: Context) -> tuple[Prediction, LabelArray]:
    """Cut an image by another τ, or choose other segments of it.

    Parameters
    ----------
    arguments : dict
        ``key`` and ``phrase`` as of `cut`.
    context : Context
        Holds what is kept.

    Returns
    -------
    tuple
        As of `cut`.

    Raises
    ------
    JobError
        The image was not looked at, is forgotten, or had too many windows to be kept.
    """
    key = arguments["key"]
    kept: Cut | None = context.shelf.get("partition", key)
    if kept is None:
        raise JobError("The segments are no longer there; segment again.")
    tau = float(arguments["phrase"].get("tau", kept.tau))
    if tau != kept.tau:
        if kept.look is None:
            raise JobError("The attention to this large image is not kept.")
        kept = replace(kept, partition=kept.look.partition(tau), tau=tau)
        context.shelf.put("partition", key, kept, kept.nbytes)
    return _said(kept, arguments), kept.partition.segments


def _said(kept: Cut, arguments: Message) -> Prediction:
    """Return the prediction after the clicks on this image."""
    given: dict[str, Any] = arguments.get("phrase") or {}
    clicks = given.get("clicks", {}).get(arguments["key"], [])
    points = [(float(row), float(column)) for row, column, _ in clicks]
    adds = [bool(add) for _, _, add in clicks]
    return kept.segmenter.prediction(kept.partition, points, adds)
