"""Bringing images to those who segment them, and noting what becomes of each."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_medseg._types import Job, JobError, Progress
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.ledger import FAILED
from napari_medseg.batch.turns import Stopped
from napari_medseg.batch.worker import failed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Future

    from napari_medseg.batch.crew import Crew
    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.ledger import Ledger, LedgerRow

HEARTBEAT = 0.5
"""Seconds after which a job reports even if nothing was finished."""

DEATHS = 5
"""Images in a row that may end their process before the run is given up."""

DEATH = (
    "The process that segmented it ended, most likely for want of memory. Close other "
    "programs, use fewer workers, or cut the image into smaller ones."
)


@dataclass
class Tally:
    """What became of the images of a run.

    Attributes
    ----------
    done : set of str
        Images that were segmented.
    failed : dict of str to str
        Those that were not, with the reason.
    notes : dict of str to str
        What a user should know of single images.
    """

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Images that are finished, one way or the other."""
        return len(self.done) + len(self.failed)


class Loop:
    """Brings images to a crew, a few at a time, and notes what becomes of them.

    An image whose process ended is tried once more, alone, because those that were
    in work beside it cannot be told from the one that is to blame.

    Parameters
    ----------
    crew : Crew
        Who segments.
    ledger : Ledger
        Where it is noted.
    recipe : int
        Number of the run's recipe.
    identity : str
        Of the segmenter.
    clear : callable
        Removes what processes that ended have left half done of images, by their
        names.
    drop : callable
        Removes files that an earlier run wrote of an image, and this one did not.
    before, total : int or None
        Images that were there, and all images; for the reports.

    Attributes
    ----------
    tally : Tally
        What became of the images so far.
    idle : bool
        Whether there was nothing to do at the last report.
    """

    def __init__(
        self,
        crew: Crew,
        ledger: Ledger,
        recipe: int,
        identity: str,
        clear: Callable[[Collection[str]], None],
        drop: Callable[[Collection[str]], None],
        before: int = 0,
        total: int | None = None,
    ) -> None:
        self.tally = Tally()
        self.idle = False
        self._crew = crew
        self._ledger = ledger
        self._recipe = recipe
        self._identity = identity
        self._clear, self._drop = clear, drop
        self._before, self._total = before, total
        self._message = "starting"
        self._flying: dict[Future[LedgerRow], Work] = {}
        self._suspects: deque[Work] = deque()
        self._tried: set[str] = set()
        self._given: set[str] = set()
        self._exhausted = False
        self._broken = False
        self._deaths = 0

    @property
    def step(self) -> int:
        """Images that are there by now, or failed."""
        return self._before + self.tally.count

    def run(self, todo: Iterator[Work | None]) -> Job[None]:
        """Segment images until there are no more.

        Parameters
        ----------
        todo : iterator of Work or None
            The images; None where there is none at present.

        Yields
        ------
        Progress
            With each image, and every half second. Closing the job loses what is in
            work, and nothing else.

        Raises
        ------
        JobError
            The processes end again and again.
        """
        try:
            while True:
                self._fill(todo)
                self.idle = not self._flying
                if self.idle and self._exhausted and not self._suspects:
                    return
                yield self._progress()
                if self.idle:
                    time.sleep(HEARTBEAT)
                    continue
                done, _ = wait(self._flying, HEARTBEAT, FIRST_COMPLETED)
                for future in done:
                    self._note(future)
        finally:
            self._crew.close()
            self._keep_whole()

    def _progress(self) -> Progress:
        tally = self.tally
        figures = {"done": float(len(tally.done)), "failed": float(len(tally.failed))}
        return Progress(self.step, self._total, self._message, figures)

    def _fill(self, todo: Iterator[Work | None]) -> None:
        """Give the crew as many images as it takes."""
        if self._broken:
            if self._flying:
                return  # all that fly are about to come back
            self._crew.renew()
            self._clear([str(work.name) for work in self._suspects])
            self._broken = False
        if self._suspects:
            if not self._flying:
                self._send(self._suspects.popleft())
            return
        while len(self._flying) < self._crew.places and not self._broken:
            try:
                work = next(todo)
            except StopIteration:
                self._exhausted = True
                return
            if work is None:
                if not self._flying:
                    self._message = "waiting for images"
                return
            self._send(work)

    def _send(self, work: Work) -> None:
        """Give the crew an image."""
        self._ledger.start(str(work.name))
        self._given.add(str(work.name))
        try:
            future = self._crew.submit(work, self._identity)
        except BrokenExecutor:
            self._broken = True
            self._suspects.append(work)
            return
        self._message = f"segmenting {readable(work.source.name)}"
        self._flying[future] = work

    def _note(self, future: Future[LedgerRow]) -> None:
        """Note what became of an image."""
        work = self._flying.pop(future)
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self._finish(replace(future.result(), recipe=self._recipe))
            self._deaths = 0
        elif isinstance(error, Stopped):
            return
        elif not self._crew.is_death(error):
            self._finish(failed(work, f"{type(error).__name__}: {error}"))
        elif str(work.name) in self._tried:
            self._broken = True
            self._finish(failed(work, DEATH))
            self._give_up()
        else:
            self._broken = True
            self._tried.add(str(work.name))
            self._suspects.append(work)

    def _keep_whole(self) -> None:
        """Note what was done when the run was stopped, and clear what was not."""
        for future in list(self._flying):
            if future.done() and not future.cancelled() and not future.exception():
                self._note(future)
        # Of all of them: a cluster gives images of a worker that died to another one
        # by itself, and one that was only cut off may have gone on until now.
        self._clear(self._given)
        self._ledger.interrupted()

    def _finish(self, row: LedgerRow) -> None:
        """Note an image that is finished."""
        before = self._ledger.row(row.name)
        self._ledger.finish(row)
        # an image may have changed since it was done, or failed
        self.tally.done.discard(row.source)
        self.tally.failed.pop(row.source, None)
        if row.state == FAILED:
            self.tally.failed[row.source] = row.error
        else:
            self.tally.done.add(row.source)
            self._drop(set(before.files if before else ()) - set(row.files))
        if row.note:
            self.tally.notes[row.source] = row.note

    def _give_up(self) -> None:
        """End a run in which one process after the other ends."""
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise JobError(
                f"The processes that segment ended with {DEATHS} images one after the "
                "other, most likely for want of memory. Close other programs, or use "
                "fewer workers. What was done is noted; the same command goes on."
            )
