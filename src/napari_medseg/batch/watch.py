"""Following a folder that a microscope writes to."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from glob import has_magic
from typing import TYPE_CHECKING

from napari_medseg._types import InputError, Job, OverwriteError, Progress, finish
from napari_medseg.batch.conduct import BatchReport, Plan, conduct
from napari_medseg.batch.inputs import (
    Found,
    Work,
    find_images,
    name_images,
    readable,
    with_scenes,
)
from napari_medseg.batch.ledger import RUNNING, WAITING
from napari_medseg.batch.process import Opener, Task, open_model
from napari_medseg.batch.resume import Folder, await_images, check_targets, find_due
from napari_medseg.batch.run import hired, output_folder
from napari_medseg.batch.stamps import Stamp, stamp
from napari_medseg.io.containers import file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from napari_medseg.batch.ledger import Ledger, Recipe
    from napari_medseg.batch.settings import BatchSettings

SETTLE = 5.0
"""Seconds for which a file must stay the same before it is taken to be complete."""

POLL = 2.0
"""Seconds between two looks at the folder; drives of a network tell of no changes."""


def watch_batch(
    inputs: Sequence[Path],
    out: Path,
    settings: BatchSettings,
    stopped: Callable[[], bool],
    *,
    settle: float = SETTLE,
    poll: float = POLL,
    workers: int = 1,
    executor: Executor | None = None,
    cluster: str | None = None,
    redo: bool = False,
    overwrite: bool = False,
    opener: Opener = open_model,
    command: str = "",
) -> Job[BatchReport]:
    """Segment the images of folders, and those that are put there, until stopped.

    A file is taken once it has stayed the same for some seconds and can be opened. One
    that changes later is segmented again.

    Parameters
    ----------
    inputs, out, settings, workers, executor, cluster, redo, overwrite, opener, command
        As of `napari_medseg.batch.run.segment_batch`.
    stopped : callable
        Asked all the time whether to end; what is in work is finished first.
    settle : float
        Seconds for which a file must stay the same.
    poll : float
        Seconds between two looks.

    Yields
    ------
    Progress
        With each image, and every half second.

    Returns
    -------
    BatchReport
        What was done, skipped, and failed.

    Raises
    ------
    InputError, JobError, ModelFileError, WeightsError
        As of `napari_medseg.batch.run.segment_batch`.
    """
    for item in inputs:
        if not file_of(item).exists() and not has_magic(str(item)):
            raise InputError(f"{item} does not exist; check the path.")
    folder = output_folder(out, settings, redo, overwrite, command)
    watcher = _Watcher(inputs, folder, stopped, settle, poll)
    yield Progress(0, None, "loading the model")
    task = Task(folder.settings, folder.out, opener)
    with hired(task, workers, executor, cluster) as crew:
        return (yield from conduct(folder, crew, watcher.plan))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was seen last: since when it is so, and whether it was taken."""

    stamp: Stamp
    since: float
    taken: bool = False


class _Watcher:
    """Looks again and again for images that are complete."""

    def __init__(
        self,
        inputs: Sequence[Path],
        folder: Folder,
        stopped: Callable[[], bool],
        settle: float,
        poll: float,
    ) -> None:
        self._inputs = inputs
        self._folder = folder
        self._stopped = stopped
        self._settle, self._poll = settle, poll
        self._seen: dict[Path, _Seen] = {}
        self._given: set[str] = set()
        self._there: list[Work] = []
        self._refused: dict[str, str] = {}

    def plan(self, ledger: Ledger, recipe: Recipe) -> Job[Plan]:
        """Return a plan whose images come as they are complete."""
        # what was made by another model is refused before anything is waited for
        yield from find_due([], ledger, recipe, self._folder)
        images = self._images(ledger, recipe)
        return Plan(images, self._there, refused=self._refused)

    def _images(self, ledger: Ledger, recipe: Recipe) -> Iterator[Work | None]:
        """Give images that are complete; None where there is none at present."""
        while not self._stopped():
            for work in self._due(self._settled(), ledger, recipe):
                if self._stopped():
                    return
                self._given.add(str(work.name))
                yield work
            again = time.monotonic() + self._poll
            while time.monotonic() < again and not self._stopped():
                yield None

    def _settled(self) -> list[Found]:
        """Return images that have stayed the same for a while and were not taken."""
        try:
            found = find_images(self._inputs, self._folder.out)
        except InputError:
            return []  # there is no image yet
        now = time.monotonic()
        settled = []
        for each in found:
            try:
                looks = stamp(each.source)
            except OSError:
                continue  # gone again, such as a temporary file
            file = file_of(each.source)
            seen = self._seen.get(file)
            if seen is None or seen.stamp != looks:
                self._seen[file] = _Seen(looks, now)
            elif not seen.taken and now - seen.since >= self._settle:
                settled.append(each)
        return settled

    def _due(
        self, found: Sequence[Found], ledger: Ledger, recipe: Recipe
    ) -> Iterator[Work]:
        """Give those of complete images that are to be done."""
        if not found:
            return
        images = with_scenes(each for each in found if _opens(each.source))
        work = name_images(images, self._folder.out, ledger.names())
        check_targets(work, self._folder)
        busy = {file_of(item.source) for item in work if self._is_busy(item, ledger)}
        for item in work:
            file = file_of(item.source)
            if file in busy:
                continue  # it is looked at again
            self._seen[file] = replace(self._seen[file], taken=True)
            try:
                due = finish(find_due([item], ledger, recipe, self._folder))
            except OverwriteError as error:
                # of the others nothing is lost by it; no row, which would allow it
                self._refused[readable(item.source)] = str(error)
                continue
            self._there += due.there
            await_images(due.todo, ledger)
            yield from due.todo

    def _is_busy(self, work: Work, ledger: Ledger) -> bool:
        """Tell whether an image was given away and has not come back."""
        row = ledger.row(str(work.name))
        waits = row is not None and row.state in (WAITING, RUNNING)
        return waits and str(work.name) in self._given


def _opens(path: Path) -> bool:
    """Tell whether a file can be opened: not while Windows writes it, say."""
    if not path.is_file():
        return os.access(path, os.R_OK)  # a folder; a pipe would make it wait
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False
