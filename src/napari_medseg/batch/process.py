"""Segmenting in a process of a pool, or on another computer."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

from napari_medseg._release import release
from napari_medseg._types import AnySegmenter, InputError, finish
from napari_medseg.batch.ledger import LEDGER, LedgerRow
from napari_medseg.batch.settings import BatchSettings
from napari_medseg.batch.worker import FAULTS, ImageWorker, failed
from napari_medseg.models.classical import open_classical
from napari_medseg.remembered import channel_choice

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.worker import Described
    from napari_medseg.quality.estimating import Prepared

Opener = Callable[[BatchSettings], AnySegmenter]
"""Opens the segmenter that settings name; it must be known by its module and name."""


def open_model(settings: BatchSettings) -> AnySegmenter:
    """Open the segmenter that settings name.

    Parameters
    ----------
    settings : BatchSettings
        Model, device, base, and how images are seen.

    Returns
    -------
    AnySegmenter
        Ready to predict.

    Raises
    ------
    InputError, ModelFileError, WeightsError
        As for `napari_medseg.inference.open_segmenter`.
    """
    quick = open_classical(settings.model)
    if quick is not None and not settings.alone and not settings.mirrored:
        return quick
    # torch takes seconds, which a worker spends on it only where it is needed
    from napari_medseg.inference import open_segmenter

    return open_segmenter(
        settings.model,
        settings.device,
        settings.base,
        settings.alone,
        mirrored=settings.mirrored,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker must know of a run.

    Attributes
    ----------
    settings : BatchSettings
        How images are segmented.
    out : Path
        Output folder, as a path that means the same in every process.
    opener : callable
        Opens the segmenter.
    release : str
        Release of this package in the process that conducts the run.
    """

    settings: BatchSettings
    out: Path
    opener: Opener = open_model
    release: str = field(default_factory=release)


def worker_of(task: Task) -> ImageWorker:
    """Open the segmenter of a run.

    Parameters
    ----------
    task : Task
        What the run asks for.

    Returns
    -------
    ImageWorker
        Ready to segment.

    Raises
    ------
    MedsegError
        The segmenter cannot be opened.
    """
    segmenter = task.opener(task.settings)
    prepared = _prepared(segmenter, task.settings)
    return ImageWorker(segmenter, task.settings, task.out, prepared)


def _prepared(segmenter: AnySegmenter, settings: BatchSettings) -> Prepared | None:
    """Return what predicts the quality of results, where it was asked for."""
    if settings.references is None:
        return None
    from napari_medseg.quality.settings import QualitySettings
    from napari_medseg.reviewing import References, prepare_for

    masks = settings.reference_masks
    references = References(Path(settings.references), Path(masks) if masks else None)
    quality = QualitySettings(device=settings.device)
    choice = channel_choice(segmenter, settings.channels)
    return finish(prepare_for(segmenter, references, quality, choice))


def prepare(leash: Connection, threads: int) -> None:
    """Make this process a worker of a pool.

    Parameters
    ----------
    leash : Connection
        When its other end is closed, the process ends: the run was stopped, or the
        process that conducts it is gone.
    threads : int
        Threads to compute with.
    """
    Thread(target=_end_with, args=(leash,), daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; the conductor ends these
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # read by torch when it is imported, which the first image does
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    # what readers log of a damaged file, the ledger says in a sentence
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def _end_with(leash: Connection) -> None:
    """End this process when the other end of the leash is closed."""
    try:
        leash.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def describe(task: Task) -> Described:
    """Open the segmenter of a run in this process.

    Parameters
    ----------
    task : Task
        What the run asks for.

    Returns
    -------
    Described
        What the segmenter says of itself.

    Raises
    ------
    MedsegError
        It cannot be opened.
    """
    return _worker(task).described


def segment_item(work: Work, task: Task, identity: str) -> LedgerRow:
    """Segment an image in this process, with the segmenter opened once.

    Parameters
    ----------
    work : Work
        The image.
    task : Task
        What the run asks for.
    identity : str
        Of the segmenter that the run began with.

    Returns
    -------
    LedgerRow
        Done, or failed with the reason.
    """
    try:
        if task.release != release():
            raise InputError(
                f"A worker has napari-medseg {release()}, but this computer has "
                f"{task.release}. Install the same release on both."
            )
        if not (task.out / LEDGER).is_file():
            raise InputError(
                f"A worker cannot see {task.out}. Images and results must be in "
                "folders that all computers have under the same path."
            )
        worker = _worker(task)
        if worker.described.identity != identity:
            raise InputError(
                f"The model {task.settings.model} was changed during the run, or is "
                "another one on another computer. Run the same command again."
            )
    except FAULTS as error:
        return failed(work, str(error))
    return worker.segment(work)


def _worker(task: Task) -> ImageWorker:
    """Return the worker of this process; the segmenter is opened once."""
    model = Path(task.settings.model)
    written = model.stat().st_mtime_ns if model.is_file() else 0
    with _OPENING:
        return _opened(task, written)


@lru_cache(maxsize=1)
def _opened(task: Task, written: int) -> ImageWorker:
    return worker_of(task)


_OPENING = Lock()
"""Several threads of a process shall not open the segmenter several times."""
