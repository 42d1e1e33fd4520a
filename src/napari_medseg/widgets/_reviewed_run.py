"""The results of a folder run, to be reviewed: the worst first."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_medseg._types import InputError, MedsegError
from napari_medseg.batch import read_ledger
from napari_medseg.batch.ledger import DONE
from napari_medseg.io.model_file import read_card
from napari_medseg.models import bundled
from napari_medseg.models.registry import SPECIALISTS
from napari_medseg.remembered import trained_channels
from napari_medseg.widgets._annotation_note import read_note
from napari_medseg.widgets._result_files import read_made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._types import LabelArray
    from napari_medseg.io.model_file import ModelCard
    from napari_medseg.widgets._training_folder import TrainingFolder


@dataclass(frozen=True, slots=True)
class Result:
    """One image of a run, segmented.

    Attributes
    ----------
    name : str
        Name in the run.
    source : Path
        The image.
    labels : Path
        Its labels.
    quality : float or None
        Predicted Dice, where it is known.
    """

    name: str
    source: Path
    labels: Path
    quality: float | None


@dataclass(frozen=True, slots=True)
class ReviewedRun:
    """A run whose results are looked at.

    Attributes
    ----------
    out : Path
        Its output folder.
    results : tuple of Result
        What was segmented.
    model : str
        Name or file of the model; empty where it is not noted.
    card : ModelCard or None
        Its card, where it was tuned and is at hand.
    channels : tuple of int
        Channels that the user chose for it; empty for no choice.
    """

    out: Path
    results: tuple[Result, ...]
    model: str
    card: ModelCard | None
    channels: tuple[int, ...] = ()

    @property
    def is_judged(self) -> bool:
        """Whether the quality of any result is known."""
        return any(each.quality is not None for each in self.results)

    @property
    def seen(self) -> tuple[int, ...]:
        """Channels that the model saw: chosen, or learned; empty for all."""
        learned = trained_channels(self.card) if self.card else ()
        return self.channels or learned

    @property
    def values(self) -> tuple[int, ...]:
        """The mask value of each class; empty where not known."""
        found = self.card.provenance.get("class_values", ()) if self.card else ()
        return tuple(int(value) for value in found)

    def kind(self, training: TrainingFolder, *, objects: bool) -> str:
        """Return what the values of accepted masks mean: as those that are there.

        Raises
        ------
        InputError
            Those that are there are scribbles.
        """
        if not training.holds_masks:
            return "instances" if objects else "dense"
        known = self.card.provenance.get("annotation") if self.card else None
        kind = read_note(training.masks).kind or known
        if kind == "sparse":
            raise InputError(
                f"The masks in {training.masks} are scribbles, where 0 is not known; "
                "whole masks cannot join them. Choose another folder."
            )
        return str(kind or ("instances" if objects else "dense"))


def read_run(out: Path) -> tuple[ReviewedRun, bool]:
    """Read what a run found.

    Parameters
    ----------
    out : Path
        Output folder of the run.

    Returns
    -------
    ReviewedRun
        Its results.
    bool
        Whether labels are objects, or else classes.

    Raises
    ------
    InputError
        There is no run, or nothing in it is done.
    """
    try:
        with read_ledger(out) as ledger:
            rows = list(ledger.rows(DONE))
    except sqlite3.Error as error:
        raise InputError(f"The ledger in {out} cannot be read: {error}.") from error
    results = tuple(
        Result(row.name, Path(row.source), out / row.files[0], row.quality)
        for row in rows
        if row.files
    )
    if not results:
        raise InputError(
            f"No image is segmented yet in {out}. Run Folders first, and choose the "
            "folder of its results."
        )
    settings = read_made(out).get("settings")
    settings = settings if isinstance(settings, dict) else {}
    model = str(settings.get("model", ""))
    found = settings.get("channels")
    channels = tuple(map(int, found)) if isinstance(found, list) else ()
    objects = any(row.objects is not None for row in rows)
    return ReviewedRun(out, results, model, card_of(model), channels), objects


def card_of(model: str) -> ModelCard | None:
    """Return the card of a tuned model; None where there is none to be read."""
    entry = SPECIALISTS.get(model)
    if entry is None and not model.endswith(".medseg"):
        return None
    try:
        return read_card(bundled.place(entry.file) if entry else Path(model))
    except MedsegError:
        return None


def worst_first(results: Sequence[Result]) -> list[Result]:
    """Return results as they should be looked at: those not known first, then bad ones.

    Where nothing was found no quality can be predicted, so that these lead the list.
    """
    return sorted(results, key=lambda each: _known(each.quality))


def first(results: Sequence[Result], names: Sequence[str]) -> list[Result]:
    """Return results with some in front, in the order of their names there."""
    places = {name: place for place, name in enumerate(names)}
    return sorted(results, key=lambda each: places.get(each.name, len(names)))


def judged(
    results: Sequence[Result], quality: Mapping[str, float | None]
) -> tuple[Result, ...]:
    """Return results with what was newly predicted of some, by name."""
    return tuple(
        Result(each.name, each.source, each.labels, quality[each.name])
        if each.name in quality
        else each
        for each in results
    )


def _known(quality: float | None) -> float:
    return -1.0 if quality is None or math.isnan(quality) else quality


def fitted(labels: LabelArray, kind: str, *, objects: bool) -> LabelArray:
    """Return labels of a run as annotations of a kind are drawn.

    Parameters
    ----------
    labels : ndarray
        ``int32 (..., Y, X)``: objects, or classes.
    kind : str
        ``dense`` or ``instances``.
    objects : bool
        What the labels are.

    Returns
    -------
    ndarray
        ``int32 (..., Y, X)``. Touching parts of a class are one object.
    """
    if (kind == "instances") == objects:
        return np.array(labels, np.int32)
    if objects:
        return (np.asarray(labels) > 0).astype(np.int32)
    planes = np.asarray(labels).reshape(-1, *labels.shape[-2:])
    numbered = [ndimage.label(plane)[0] for plane in planes]
    return np.stack(numbered).reshape(labels.shape).astype(np.int32)
