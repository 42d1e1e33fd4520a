"""A folder of many images: does memory stay flat, and how much time goes beside.

    python benchmarks/folder.py [--count 10000] [--model nuclei-fluo] [--quick]

Generated images of fluorescent cells are segmented by the job that the command line
and the form run. Printed are the growth of memory from the first tenth to the end,
and the rate beside that of the bare model: a loop that predicts images which lie in
memory, run before and after, so that both see the same computer. On a computer that is
busy with other things, look at the time of the processor.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import tifffile
import typer

from napari_medseg._types import AnySegmenter
from napari_medseg.batch import BatchSettings, segment_batch
from napari_medseg.batch.process import open_model
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.images import read_image
from napari_medseg.samples import make_two_kinds

app = typer.Typer(add_completion=False)

QUICK = 300
"""Images of a quick run."""

SCENES = 20
"""Images that are drawn; the others are the same, turned and shifted."""

BARE = 100
"""Images that the bare model does, before and after."""


@app.command()
def main(
    count: Annotated[int, typer.Option(help="Images.")] = 10_000,
    side: Annotated[int, typer.Option(help="Side of each, in pixels.")] = 256,
    model: Annotated[str, typer.Option(help="The segmenter.")] = "nuclei-fluo",
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    objects: Annotated[
        bool, typer.Option(help="Find objects, and write their table.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="300 images.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Result.")] = None,
) -> None:
    """Measure."""
    settings = BatchSettings(
        model,
        objects=ObjectConfig() if objects else None,
        formats=("csv",) if objects else (),
    )
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        write_images(images, QUICK if quick else count, side)
        segmenter = open_model(settings)
        sample = sorted(images.iterdir())[:BARE]
        before = bare_rate(segmenter, sample)
        run = folder_run(images, Path(name) / "labels", settings, workers)
        after = bare_rate(segmenter, sample)
    bare, bare_cpu = (sum(pair) / 2 for pair in zip(before, after, strict=True))
    result = {"model": model, "side": side, "workers": workers, "objects": objects}
    result |= run | {
        "bare_rate": bare,
        "bare_cpu_seconds": bare_cpu,
        "share": run["rate"] / bare,
        "cpu_share": bare_cpu / run["cpu_seconds"],
    }
    typer.echo(
        f"{run['images']} images of {side} × {side}, {model}, {workers} process(es): "
        f"{run['rate']:.1f} images/s, {result['share']:.0%} of the bare model's "
        f"{bare:.1f} ({result['cpu_share']:.0%} by the time of the processor, in one "
        f"process); memory grew by {run['growth_mb']:.1f} MB from the first tenth "
        f"({run['tenth_mb']:.0f} MB) to the end, {run['failed']} failed."
    )
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_images(folder: Path, count: int, side: int) -> None:
    """Write images that differ, drawing only a few."""
    folder.mkdir(parents=True)
    scenes = [scene.image[0] for scene in make_two_kinds(SCENES, 0, side)]
    for index in range(count):
        image = scenes[index % SCENES]
        image = image[:: -1 if index % 2 else 1].T if index % 3 else image
        tifffile.imwrite(folder / f"{index:06d}.tif", image)


def bare_rate(segmenter: AnySegmenter, paths: list[Path]) -> tuple[float, float]:
    """Return images a second of the model alone, and processor seconds an image."""
    images = [read_image(path).plane() for path in paths]
    segmenter.predict(images[0])
    started, cpu = time.perf_counter(), time.process_time()
    for image in images:
        segmenter.predict(image)
    cpu = time.process_time() - cpu
    return len(images) / (time.perf_counter() - started), cpu / len(images)


def folder_run(
    images: Path, out: Path, settings: BatchSettings, workers: int
) -> dict[str, Any]:
    """Segment the folder; return rate and memory."""
    job = segment_batch([images], out, settings, workers=workers)
    tenth = last = most = 0.0
    started: float | None = None
    while True:
        try:
            report = next(job)
        except StopIteration as done:
            result = done.value
            break
        if started is None and report.step:
            # the model is loaded, and the first image is done
            started, first = time.perf_counter(), report.step
            cpu = time.process_time()
        if report.total and report.step % 20 == 0:
            last = memory()
            most = max(most, last)
            if report.step <= report.total // 10:
                tenth = last
    assert started is not None
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    finished = len(result.done) + len(result.failed)
    return {
        "images": finished,
        "failed": len(result.failed),
        "rate": (finished - first) / seconds,
        "cpu_seconds": cpu / (finished - first),
        "tenth_mb": tenth,
        "end_mb": memory(),
        "growth_mb": memory() - tenth,
        "most_mb": most,
    }


def memory() -> float:
    """Return what this process and its workers hold, in megabytes."""
    own = psutil.Process()
    every = [own, *own.children(recursive=True)]
    return sum(each.memory_info().rss for each in every) / 1e6


if __name__ == "__main__":
    app()
