"""One image in a worker: read it, predict, write what was asked for.

A worker is a thread of this process, a process of a pool, or a process on another
computer. Whatever is wrong with an image comes back as an outcome, never as an error.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._labels import StoredLabels
from napari_medseg._types import AnySegmenter, InputError, LabelClass, MedsegError
from napari_medseg.batch._slices import Slices
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.ledger import DONE, FAILED, LedgerRow
from napari_medseg.batch.names import refuse_outside
from napari_medseg.batch.outputs import (
    output_files,
    write_beside,
    write_outputs,
    write_stored_probabilities,
)
from napari_medseg.batch.stamps import Stamp, digest, stamp
from napari_medseg.batch.turns import Queue, Stopped
from napari_medseg.instances import labels_of, number_on
from napari_medseg.io.containers import file_of
from napari_medseg.io.images import read_image
from napari_medseg.io.limits import refuse_odd
from napari_medseg.io.zarr_store import refuse_hollow
from napari_medseg.large import is_large, segment_large_file
from napari_medseg.remembered import annotated_values, channel_choice
from napari_medseg.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_medseg._labels import BoolArray
    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.outputs import Written
    from napari_medseg.batch.settings import BatchSettings
    from napari_medseg.io.images import ImageFile
    from napari_medseg.quality.estimating import Prepared
    from napari_medseg.quality.judging import Judgement


FAULTS = (MedsegError, OSError, ValueError)
"""What readers and segmenters raise for reasons that are told in their message."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a segmenter says of itself.

    Attributes
    ----------
    identity : str
        What tells it from every other.
    classes : tuple of LabelClass
        Its classes.
    basis : str
        On what predicted quality rests, in a sentence; empty where none is predicted.
    values : tuple of int
        What the classes were in the masks that it was trained on, where that is known.
    references : str
        Digest of what predicted quality rests on.
    """

    identity: str
    classes: tuple[LabelClass, ...]
    basis: str = ""
    values: tuple[int, ...] = ()
    references: str = ""


class ImageWorker:
    """Segments images by one segmenter.

    Several threads may call it: while one predicts, others read and write.

    Parameters
    ----------
    segmenter : AnySegmenter
        What to apply.
    settings : BatchSettings
        What to write.
    out : Path
        Where.
    prepared : Prepared, optional
        Predicts the quality of results.

    Attributes
    ----------
    described : Described
        What the segmenter says of itself.
    """

    def __init__(
        self,
        segmenter: AnySegmenter,
        settings: BatchSettings,
        out: Path,
        prepared: Prepared | None = None,
    ) -> None:
        basis = prepared.basis if prepared else ""
        values = annotated_values(segmenter)
        self._choice = channel_choice(segmenter, settings.channels)
        self.described = Described(
            segmenter.identity,
            segmenter.classes,
            basis,
            values,
            prepared.digest if prepared else "",
        )
        self._judge = prepared.judge if prepared else None
        if settings.masks and not getattr(segmenter, "overlapping", False):
            raise InputError(
                "The classes of this model do not overlap, so the label images hold "
                "all of their masks. Leave --masks out."
            )
        self._segmenter = segmenter
        self._settings = settings
        self._out = out
        self._turn = Lock()
        self._hashed: tuple[Path | None, Stamp | None, str] = (None, None, "")

    def segment(
        self, work: Work, stopped: Callable[[], bool] = lambda: False
    ) -> LedgerRow:
        """Segment an image.

        Parameters
        ----------
        work : Work
            The image, and what its outputs are called.
        stopped : callable
            Asked before each slice whether to stop.

        Returns
        -------
        LedgerRow
            Done, or failed with the reason; ``recipe`` is left open.

        Raises
        ------
        Stopped
            The run was stopped.
        """
        started = time.perf_counter()
        queue = Queue(self._turn, stopped)
        try:
            row = self._segment(work, queue)
        except FAULTS as error:
            row = failed(work, str(error))
        except MemoryError:
            row = failed(work, "Memory ran out. Close other programs.")
        except Stopped:
            raise
        except Exception as error:
            # a fault of this program in one image shall not end a night's run
            logging.getLogger(__name__).exception("%s", work.source)
            row = failed(work, f"{type(error).__name__}: {error} (please report this)")
        seconds = time.perf_counter() - started - queue.waited
        return replace(row, seconds=seconds)

    def _segment(self, work: Work, queue: Queue) -> LedgerRow:
        """Read, predict and write one image."""
        before, content = self._looked_at(work.source)
        quality = None
        image = read_image(work.source)
        seen, unsure = self._choice.of(image), self._choice.note(image)
        if file_of(work.source).is_dir():
            refuse_hollow(work.source)
        if is_large(image):
            written, note = self._segment_large(image, seen, work, queue)
            _check_unchanged(work.source, before)
        else:
            _refuse_no_numbers(seen)
            found = self._predict(seen, queue)
            _check_unchanged(work.source, before)
            note, quality = found.note, found.quality
            written = write_outputs(
                image,
                found.labels,
                found.probabilities,
                self.described.classes,
                self._out,
                work.name,
                self._settings,
                class_labels=found.classes,
                masks=found.masks,
            )
        return LedgerRow(
            str(work.name),
            readable(work.source),
            DONE,
            note=readable(f"{unsure} {note}".strip()),
            objects=written.objects,
            quality=quality,
            size=before.size,
            modified=before.modified,
            digest=content,
            files=written.files,
        )

    def _looked_at(self, source: Path) -> tuple[Stamp, str]:
        """Return stamp and digest of an image, or a sentence why there are none."""
        file = file_of(source)
        try:
            if os.path.lexists(file):
                refuse_odd(file)
            found = stamp(file)
            # images of one file come one after the other, and it may be large
            known = self._hashed
            if known[:2] != (file, found):
                self._hashed = known = (file, found, digest(file))
            return found, known[2]
        except FileNotFoundError as error:
            raise InputError(f"{source} is no longer there.") from error
        except OSError as error:
            raise InputError(
                f"{source} cannot be read ({error.strerror or error}). Check its "
                "rights."
            ) from error

    def _predict(self, image: ImageFile, queue: Queue) -> _Predicted:
        """Return what was found in all slices."""
        settings = self._settings
        labels, classes, kept = Slices(image), Slices(image), Slices(image)
        masks = Slices(image)
        judged: list[Judgement] = []
        note, highest = "", 0
        for _, plane in image.slices():
            with queue.turn():
                prediction = self._segmenter.predict(plane)
                if self._judge is not None:
                    judged.append(self._judge.judge(plane, prediction.labels))
            note = note or prediction.note
            found = labels_of(prediction, settings.labels)
            if settings.objects is not None:
                found = number_on(found, highest)
                highest = max(highest, int(found.max(initial=0)))
            labels.append(found)
            if self._has_kinds:
                classes.append(prediction.labels)
            if settings.probabilities:
                stack = prediction.stack
                kept.append(prediction.probabilities if stack is None else stack)
            if settings.masks and prediction.masks is not None:
                masks.append(prediction.masks)
        return _Predicted(
            labels.together(),
            classes.together() if self._has_kinds else None,
            kept.together() if settings.probabilities else None,
            masks.together() if settings.masks else None,
            *_with_quality(note, judged),
        )

    def _segment_large(
        self, image: ImageFile, seen: ImageFile, work: Work, queue: Queue
    ) -> tuple[Written, str]:
        """Segment what is seen of an image that does not fit into memory."""
        settings, classes = self._settings, self.described.classes
        files = output_files(work.name, settings)
        refuse_outside(self._out, files)
        target = self._out / files[0]
        with scratch_folder(target) as scratch:
            job = segment_large_file(
                seen,
                self._segmenter,
                settings.labels,
                target,
                scratch,
                probabilities=settings.probabilities,
                kinds=self._has_kinds,
            )
            with queue.turn(), closing(job):
                found = queue.finish(job)
            if found.probabilities is not None:
                write_stored_probabilities(
                    image, found.probabilities, classes, self._out, work.name
                )
            written = write_beside(
                image,
                StoredLabels(read_image(target).data),
                classes,
                self._out,
                work.name,
                settings,
                class_labels=found.kinds,
            )
        note = found.note
        if self._judge is not None:
            note = f"{note} It is too large to predict its quality.".strip()
        return written, note

    @property
    def _has_kinds(self) -> bool:
        """Whether each object is of one of several classes."""
        return len(self.described.classes) > 2 and self._settings.objects is not None


@dataclass(frozen=True, slots=True)
class _Predicted:
    """What was found in an image: arrays with the axes of its stack in front."""

    labels: LabelArray
    classes: LabelArray | None
    probabilities: FloatArray | None
    masks: BoolArray | None
    note: str
    quality: float | None


def _with_quality(note: str, judged: Sequence[Judgement]) -> tuple[str, float | None]:
    """Return what is said of an image, and its predicted quality, if there is one."""
    if not judged:
        return note, None
    from napari_medseg.quality.judging import merged

    whole = merged(judged)
    told = f"{note} {whole.note}".strip()
    return told, None if np.isnan(whole.quality) else whole.quality


def _refuse_no_numbers(image: ImageFile) -> None:
    """Refuse an image in which nothing can be found, as there is nothing in it."""
    if image.data.dtype.kind == "f" and not any(
        np.isfinite(plane).any() for _, plane in image.slices()
    ):
        raise InputError(
            f"{image.path} holds no number at all: every pixel is NaN or infinite. "
            "Export it again from the original."
        )


def _check_unchanged(source: Path, before: Stamp) -> None:
    """Refuse an image that something wrote to meanwhile."""
    if stamp(source) != before:
        raise InputError(
            f"{source} changed while it was read. Run the same command again once "
            "nothing writes to it any more."
        )


def failed(work: Work, reason: str) -> LedgerRow:
    """Return the row of an image that could not be segmented.

    Parameters
    ----------
    work : Work
        The image.
    reason : str
        What is wrong, in a sentence.

    Returns
    -------
    LedgerRow
        With the image named in its error.
    """
    source, reason = readable(work.source), readable(reason)
    error = reason if source in reason else f"{source}: {reason}"
    return LedgerRow(str(work.name), source, FAILED, error)
