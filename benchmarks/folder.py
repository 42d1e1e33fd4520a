"""A folder of thousands of images: its rate beside the bare model, and its memory.

Run by ``batch.py``. The images are pieces of real ones, turned and mirrored so that
no two are the same. The bare model is timed in the midst of the run, every so often,
on images that lie in memory, so that both see the same computer, busy or not.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tifffile

from napari_medseg.batch import BatchSettings, segment_batch
from napari_medseg.batch.process import open_model
from napari_medseg.io.images import read_image

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg._types import (
        AnySegmenter,
        FloatArray,
        Job,
        LabelClass,
        Prediction,
    )
    from napari_medseg.batch import BatchReport

EVERY = 100
"""Images between two looks at the bare model."""

BARE = 5
"""Images that it does each time."""

SETTLE = 0.3
"""Seconds in which what is being read and written comes to its end before that."""


def write_images(data: Path, folder: Path, count: int, side: int) -> None:
    """Write pieces of real images of fluorescent nuclei, each another one.

    What is there is left, so that a run that was stopped can go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted((data / "dsb2018_nuclei" / "images").glob("fluo_*"))
    planes = [read_image(path).plane()[0] for path in paths[:100]]
    planes = [plane for plane in planes if min(plane.shape) >= side]
    draw = np.random.default_rng(0)
    for index in range(count):
        plane = planes[index % len(planes)]
        top, left = (int(draw.integers(length - side + 1)) for length in plane.shape)
        piece = plane[top : top + side, left : left + side]
        piece = np.rot90(piece[:, :: draw.choice([-1, 1])], int(draw.integers(4)))
        path = folder / f"{index:06d}.tif"
        if not path.exists():
            tifffile.imwrite(path, piece.astype(np.uint8), photometric="minisblack")


@dataclass
class Interleaved:
    """A segmenter that is timed alone in the midst of a run.

    Attributes
    ----------
    segmenter : AnySegmenter
        The model.
    sample : list of ndarray
        Images in memory.
    bare, bare_cpu : float
        Seconds of the clock and of the processor that it took alone.
    count : int
        Images that it did alone.
    paused, paused_cpu : float
        Seconds that are not the run's.
    """

    segmenter: AnySegmenter
    sample: list[FloatArray]
    bare: float = 0.0
    bare_cpu: float = 0.0
    count: int = 0
    paused: float = 0.0
    paused_cpu: float = 0.0
    _calls: int = field(default=0, repr=False)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Classes of the model."""
        return self.segmenter.classes

    @property
    def identity(self) -> str:
        """Identity of the model."""
        return self.segmenter.identity

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image, and now and then time the model alone before."""
        self._calls += 1
        if self._calls % EVERY == EVERY // 2:
            self._alone()
        return self.segmenter.predict(image)

    def _alone(self) -> None:
        began, began_cpu = time.perf_counter(), time.process_time()
        time.sleep(SETTLE)
        started, started_cpu = time.perf_counter(), time.process_time()
        # what was still being written is the run's, and not the pause's
        written = started_cpu - began_cpu
        for image in self.sample:
            self.segmenter.predict(image)
        self.bare += time.perf_counter() - started
        self.bare_cpu += time.process_time() - started_cpu
        self.count += len(self.sample)
        self.paused += time.perf_counter() - began
        self.paused_cpu += time.process_time() - began_cpu - written


def measure(
    images: Path, out: Path, settings: BatchSettings, minutes: float | None
) -> dict[str, Any]:
    """Segment a folder, or go on with it; return rate and memory.

    Parameters
    ----------
    images, out : Path
        The folders.
    settings : BatchSettings
        Model and outputs.
    minutes : float or None
        When to stop; the next call goes on.

    Returns
    -------
    dict
        Rates in images a second, memory in megabytes.
    """
    sample = [read_image(path).plane() for path in sorted(images.iterdir())[:BARE]]
    model = Interleaved(open_model(settings), sample)
    model.segmenter.predict(sample[0])
    job = segment_batch([images], out, settings, opener=lambda _: model)
    with closing(job):
        run = _watched(job, model, minutes)
    bare = model.count / model.bare
    bare_cpu = model.bare_cpu / model.count
    return run | {
        "bare_rate": bare,
        "bare_cpu_seconds": bare_cpu,
        "share": run["rate"] / bare,
        "cpu_share": bare_cpu / run["cpu_seconds"],
    }


def _watched(
    job: Job[BatchReport], model: Interleaved, minutes: float | None
) -> dict[str, Any]:
    """Run a job and look at clock and memory."""
    began = time.monotonic()
    first = step = 0
    started = cpu = 0.0
    levels: dict[int, float] = {}
    for report in job:
        step = report.step
        if not started and report.metrics.get("done", 0) > 0:
            # the model is loaded, and the first image is done
            first, started, cpu = step, time.perf_counter(), time.process_time()
            model.paused = model.paused_cpu = 0.0
        if started and step != first:
            levels[step] = memory()
            last, last_cpu = time.perf_counter(), time.process_time()
            failed = int(report.metrics["failed"]) if report.metrics else 0
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            break
    done = step - first
    seconds, cpu = last - started - model.paused, last_cpu - cpu - model.paused_cpu
    before = [level for at, level in levels.items() if at - first <= done // 10]
    return {
        "images": done,
        "failed": failed,
        "seconds": seconds,
        "rate": done / seconds,
        "cpu_seconds": cpu / done,
        "first_tenth_mb": max(before, default=0.0),
        "most_mb": max(levels.values()),
        "end_mb": levels[max(levels)],
        "growth_mb": max(levels.values()) - max(before, default=0.0),
    }


def memory() -> float:
    """Return what this process holds, in megabytes."""
    return float(psutil.Process().memory_info().rss / 1e6)
