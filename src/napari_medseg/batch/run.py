"""Jobs that segment folders."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import Job, Progress
from napari_medseg.batch.conduct import BatchReport, Plan, Planner, conduct
from napari_medseg.batch.crew import Borrowed, Crew, Processes, Threads
from napari_medseg.batch.inputs import Found, find_images, name_images, with_scenes
from napari_medseg.batch.ledger import LEDGER, Ledger, Recipe
from napari_medseg.batch.process import Opener, Task, open_model, worker_of
from napari_medseg.batch.resume import (
    Folder,
    await_images,
    check_targets,
    find_due,
    forget_lost,
    refuse_foreign,
)
from napari_medseg.batch.settings import BatchSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from napari_medseg._types import AnySegmenter
    from napari_medseg.instances import ObjectConfig


def segment_batch(
    inputs: Iterable[Path],
    out: Path,
    settings: BatchSettings,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    cluster: str | None = None,
    redo: bool = False,
    overwrite: bool = False,
    opener: Opener = open_model,
    command: str = "",
) -> Job[BatchReport]:
    """Segment files and folders, and go on where an earlier run ended.

    Parameters
    ----------
    inputs : iterable of Path
        Images, folders and patterns.
    out : Path
        Folder for results, made if need be.
    settings : BatchSettings
        Model, and what is written.
    workers : int
        Processes; one is this process, in which reading and writing overlap with
        predicting. Every other one has the model in its own memory.
    executor : Executor, optional
        In place of processes: anything that runs functions elsewhere. It takes twice
        as many images as there are ``workers``.
    cluster : str, optional
        In place of processes: the address of a Dask scheduler.
    redo : bool
        Do again what was made by another model or other settings.
    overwrite : bool
        Do everything again, and replace labels that no run has written.
    opener : callable
        Opens the segmenter; for several processes a function that is known by its
        module and name.
    command : str
        The command that the user gave, for the provenance.

    Yields
    ------
    Progress
        With each image, and every half second. Closing the job loses what is in
        work, and nothing else.

    Returns
    -------
    BatchReport
        What was done, skipped, and failed.

    Raises
    ------
    InputError
        There is nothing to do, labels would replace an image, the output folder
        holds the work of another model or other settings or of another program, or
        another run is writing to it.
    JobError
        Processes end again and again, or the ledger cannot be written.
    ModelFileError, WeightsError
        The segmenter cannot be opened.
    """
    folder = output_folder(out, settings, redo, overwrite, command)
    found = with_scenes(find_images(inputs, out))
    check_new(found, folder)
    yield Progress(0, len(found), "loading the model")
    task = Task(folder.settings, folder.out, opener)
    with hired(task, workers, executor, cluster) as crew:
        plan = _plan_of(found, folder)
        return (yield from conduct(folder, crew, plan))


def segment_files(
    inputs: Iterable[Path],
    segmenter: AnySegmenter,
    out: Path,
    *,
    objects: ObjectConfig | None = None,
    redo: bool = False,
    overwrite: bool = False,
) -> Job[BatchReport]:
    """Segment files and folders by a segmenter that is open, in this process.

    Parameters
    ----------
    inputs, out, redo, overwrite
        As of `segment_batch`.
    segmenter : AnySegmenter
        What to apply.
    objects : ObjectConfig, optional
        Write objects, found by these settings, in place of classes.

    Yields
    ------
    Progress
        As `segment_batch` does.

    Returns
    -------
    BatchReport
        What was done, skipped, and failed.

    Raises
    ------
    InputError, JobError
        As of `segment_batch`.
    """
    settings = BatchSettings(segmenter.identity, objects=objects)
    return segment_batch(
        inputs,
        out,
        settings,
        redo=redo,
        overwrite=overwrite,
        opener=lambda _: segmenter,
    )


def _plan_of(found: Sequence[Found], folder: Folder) -> Planner:
    """Return what plans the segmentation of images that are there."""

    def plan(ledger: Ledger, recipe: Recipe) -> Job[Plan]:
        work = name_images(found, folder.out, ledger.names())
        check_targets(work, folder)
        due = yield from find_due(work, ledger, recipe, folder)
        await_images(due.todo, ledger)
        forget_lost(work, ledger)
        return Plan(iter(due.todo), due.there, len(work))

    return plan


def check_new(found: Sequence[Found], folder: Folder) -> None:
    """Refuse what can be refused before anything is written, or takes time.

    Parameters
    ----------
    found : sequence of Found
        The images.
    folder : Folder
        Where the results go.

    Raises
    ------
    InputError
        Labels would replace an image, or are there without a ledger.
    """
    if (folder.out / LEDGER).exists():
        return
    work = name_images(found, folder.out, {})
    check_targets(work, folder)
    if not folder.overwrite:
        for item in work:
            refuse_foreign(item, folder)


@contextmanager
def hired(
    task: Task, workers: int, executor: Executor | None, cluster: str | None
) -> Iterator[Crew]:
    """Give who segments, and send them home afterwards.

    Parameters
    ----------
    task : Task
        What they must know.
    workers, executor, cluster
        As of `segment_batch`.

    Yields
    ------
    Crew
        Threads of this process, processes, or workers elsewhere.

    Raises
    ------
    InputError
        The cluster cannot be reached.
    ModelFileError, WeightsError
        The segmenter cannot be opened in this process.
    """
    if cluster is not None:
        from napari_medseg.batch.cluster import cluster_crew

        with cluster_crew(cluster, task) as crew:
            yield crew
    elif executor is not None:
        yield Borrowed(executor, lambda: 2 * workers, task)
    else:
        own = Processes(workers, task) if workers > 1 else Threads(worker_of(task))
        with closing(own):
            yield own


def output_folder(
    out: Path, settings: BatchSettings, redo: bool, overwrite: bool, command: str
) -> Folder:
    """Return the output folder of a run, with paths that mean the same everywhere.

    Parameters
    ----------
    out, settings, redo, overwrite, command
        As of `segment_batch`.

    Returns
    -------
    Folder
        For processes that were started in other folders, too.
    """
    model, base = settings.model, settings.base
    images, masks = settings.references, settings.reference_masks
    placed = replace(
        settings,
        model=os.path.abspath(model) if Path(model).is_file() else model,
        base=os.path.abspath(base) if base and Path(base).is_file() else base,
        references=images and os.path.abspath(images),
        reference_masks=masks and os.path.abspath(masks),
    )
    return Folder(Path(os.path.abspath(out)), placed, redo, overwrite, command)
