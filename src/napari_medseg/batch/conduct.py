"""How a run goes: from its plan to the report."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_medseg._types import Job, JobError, MedsegError, Progress
from napari_medseg.batch.halves import clear_halves, clear_run_halves
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.ledger import DONE, LEDGER, Ledger, Recipe
from napari_medseg.batch.ledger_file import open_ledger
from napari_medseg.batch.loop import HEARTBEAT, Loop
from napari_medseg.batch.outputs import drop_files, earlier_files, finish_outputs
from napari_medseg.batch.provenance import now, provenance, write_provenance
from napari_medseg.batch.report import write_report
from napari_medseg.io.result_names import RunFacts, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_medseg.batch.crew import Crew
    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.resume import Folder
    from napari_medseg.batch.worker import Described


@dataclass(frozen=True)
class BatchReport:
    """What became of a folder.

    Attributes
    ----------
    done, skipped : tuple of str
        Images segmented now, and those whose labels were there already.
    failed : mapping of str to str
        Images that could not be segmented, with the reason.
    notes : mapping of str to str
        What a user should know of single images (memory ran out, say).
    seconds : float
        Wall time.
    ledger, report : str
        The ledger of the output folder, and the report to look at.
    files : tuple of str
        Files for all images together, relative to the output folder.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    ledger: str = ""
    report: str = ""
    files: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return {
            "done": list(self.done),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
            "notes": dict(self.notes),
            "seconds": round(self.seconds, 2),
            "ledger": self.ledger,
            "report": self.report,
            "files": list(self.files),
        }


@dataclass(frozen=True)
class Plan:
    """The images of a run.

    Attributes
    ----------
    todo : iterator of Work or None
        Images to segment; None where there is none at present.
    there : sequence of Work
        Images whose results are there.
    total : int or None
        All images; None where they are not known yet.
    refused : mapping of str to str
        Images that are not segmented, with the reason; it may grow during the run.
    """

    todo: Iterator[Work | None]
    there: Sequence[Work] = ()
    total: int | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


Planner = Callable[[Ledger, Recipe], Job[Plan]]
"""Makes the plan of a run, once its ledger is open."""


def conduct(folder: Folder, crew: Crew, plan: Planner) -> Job[BatchReport]:
    """Run a plan: images to the crew, outcomes to the ledger, then what is for all.

    Parameters
    ----------
    folder : Folder
        Where the results go.
    crew : Crew
        Who segments.
    plan : callable
        Makes the plan.

    Yields
    ------
    Progress
        With each image, and every half second.

    Returns
    -------
    BatchReport
        What became of the images.
    """
    started = monotonic()
    described = yield from _described(crew)
    recipe = Recipe.of(folder.settings, described.identity)
    made = provenance(folder.settings, described, folder.command)
    with open_ledger(folder.out, anew=folder.overwrite) as ledger:
        clear_halves(folder, ledger.interrupted())
        clear_run_halves(folder)
        made |= _judged_by(described, facts_of(folder.out), ledger)
        planned = yield from plan(ledger, recipe)
        # noted anew, for a run that is ended before it comes to them
        earlier = earlier_files(folder.out)
        _write_made(folder.out, made | {"files": sorted(earlier)}, ledger, recipe)
        loop = Loop(
            crew,
            ledger,
            ledger.number_of(recipe),
            described.identity,
            partial(clear_halves, folder),
            partial(drop_files, folder.out),
            len(planned.there),
            planned.total,
        )
        after = partial(_after, folder, described, made, ledger, recipe)
        with closing(loop.run(planned.todo)) as job:
            yield from _reported(job, loop, after)
        yield Progress(loop.step, loop.step, "writing tables and the report")
        report, files = after()
        drop_files(folder.out, earlier - set(files))
        tally = loop.tally
        return BatchReport(
            tuple(sorted(tally.done)),
            tuple(readable(item.source) for item in planned.there),
            dict(sorted((tally.failed | dict(planned.refused)).items())),
            dict(sorted(tally.notes.items())),
            monotonic() - started,
            str(folder.out / LEDGER),
            str(report),
            files,
        )


def _described(crew: Crew) -> Job[Described]:
    """Wait until a worker has opened the segmenter."""
    future = crew.describe()
    while not future.done():
        yield Progress(0, None, "waiting for a worker to load the model")
        wait([future], HEARTBEAT)
    try:
        return future.result()
    except Exception as error:
        if crew.is_death(error):
            raise JobError(
                "The process that loads the model ended, most likely for want of "
                "memory. Close other programs, or use fewer workers."
            ) from error
        raise


def _reported(job: Job[None], loop: Loop, after: Callable[[], object]) -> Job[None]:
    """Run the loop; where it waits for images, tables and report are kept fresh."""
    written = 0
    for progress in job:
        if loop.idle and loop.tally.count > written:
            # a file that another program holds open is written the next time
            with suppress(MedsegError, OSError):
                after()
                written = loop.tally.count
        yield progress


def _after(
    folder: Folder,
    described: Described,
    made: dict[str, Any],
    ledger: Ledger,
    recipe: Recipe,
) -> tuple[Path, tuple[str, ...]]:
    """Write what is one file for all images; return the report and the files."""
    number = ledger.number_of(recipe)
    names = (
        PurePosixPath(row.name) for row in ledger.rows(DONE) if row.recipe == number
    )
    files = finish_outputs(folder.out, names, folder.settings, described.classes)
    made |= {"finished": now(), "images": ledger.counts(), "files": list(files)}
    _write_made(folder.out, made, ledger, recipe)
    return write_report(folder.out, ledger.rows(), made), files


def _judged_by(
    described: Described, before: RunFacts, ledger: Ledger
) -> dict[str, str]:
    """Return on what the qualities in the ledger rest; those of others are forgotten.

    A run without annotated images judges nothing, and leaves what was judged.
    """
    if described.references and before.references != described.references:
        ledger.forget_qualities()
    if described.references:
        return {"quality": described.basis, "references": described.references}
    told = {"quality": before.basis, "references": before.references}
    return {name: text for name, text in told.items() if text}


def _write_made(
    out: Path, made: dict[str, Any], ledger: Ledger, recipe: Recipe
) -> None:
    """Write the provenance, and whether other labels are there beside."""
    write_provenance(out, made | {"mixed": bool(ledger.other_recipes(recipe))})
