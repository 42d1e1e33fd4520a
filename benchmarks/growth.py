"""How the cost of tuning and of segmenting grows.

    python benchmarks/growth.py run --data DIR [--quick] [--out RESULTS.jsonl]
    python benchmarks/growth.py table [--out RESULTS.jsonl]

Tuning of ``nano`` with the package's settings, from where 16 images of 512² with one
class are changed in one respect at a time: their number, their side, their classes,
how finely prompts are compared. The images are pieces of a set's images (phase
contrast), repeated where they are too small; classes are shares of its cells. Then an
image of each side is segmented with what was tuned. Seconds are the processor's on one
thread, memory is that of the whole process, and every row is a process of its own.
``--quick`` takes a tenth of the steps and leaves the largest out. What is done is not
done again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import read_current, weights
from sets import SETS

from napari_medseg.api import train_job
from napari_medseg.inference import Segmenter
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.training.prompt_tuning import PromptTuning

RESULTS = Path("benchmarks/results/growth.jsonl")

QUICK_RESULTS = Path("benchmarks/results/growth_quick.jsonl")

QUICK_STEPS, QUICK_SIDE, QUICK_IMAGES = 20, 1024, 32
"""What ``--quick`` does: steps, and the largest side and number of images."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


@dataclass(frozen=True)
class Case:
    """What is tuned on.

    Attributes
    ----------
    images, side, classes : int
        How many annotated images, of how many pixels a side, showing how many classes
        of objects.
    comparison : str
        As of `PromptTuning`.
    """

    images: int = 16
    side: int = 512
    classes: int = 1
    comparison: str = "embedding"


CASES = (
    Case(),
    *(Case(images=count) for count in (8, 32, 64, 256)),
    *(Case(side=side) for side in (256, 1024, 2048)),
    *(Case(classes=count) for count in (2, 4)),
    *(Case(comparison=name) for name in ("none", "fine")),
    Case(side=2048, comparison="fine"),
)
"""One respect at a time; the last is the most that 16 images ask for."""


def piece(pair: Pair, case: Case, number: int) -> Pair:
    """Return a square piece of an annotated image, its objects shared among classes."""
    place = np.random.default_rng(number).integers(0, pair.annotation.shape)
    rows, columns = (
        (start + np.arange(case.side)) % length
        for start, length in zip(place, pair.annotation.shape, strict=True)
    )
    ids = pair.annotation[np.ix_(rows, columns)]
    labels = np.where(ids > 0, ids % case.classes + 1, 0).astype(np.int32)
    return Pair(f"{number:04}", pair.image[:, rows][:, :, columns], labels)


def pieces(data: Path, case: Case) -> Pairs:
    """Return the images to tune on."""
    paths, _ = SETS["phase"].paths(data)
    found = SETS["phase"].pairs(paths)
    return gather(
        [piece(found[index % len(found)], case, index) for index in range(case.images)],
        annotation="dense",
    )


@app.command()
def one(
    data: Annotated[Path, typer.Option()],
    case: Annotated[str, typer.Option(help="The case, as JSON.")],
    steps: Annotated[int, typer.Option()],
) -> None:
    """Do one case and print its figures."""
    torch.set_num_threads(1)
    chosen = Case(**json.loads(case))
    pairs = pieces(data, chosen)
    config = PromptTuning(comparison=chosen.comparison, steps=steps, device="cpu")
    began = time.process_time()
    embedded = None
    job = train_job(pairs, config)
    while True:
        try:
            progress = next(job)
        except StopIteration as ended:
            trained = ended.value
            break
        if progress.message == "embedded":
            embedded = time.process_time() - began
    tuning = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
    segmenter = Segmenter(trained.model_file, "cpu")
    segmenter.predict(pairs[0].image)
    began = time.process_time()
    segmenter.predict(pairs[1].image)
    figures = {
        "embedding": round(embedded or 0.0, 1),
        "tuning": round(tuning, 1),
        "peak_mb": peak,
        "segmenting": round(time.process_time() - began, 2),
        "numbers": trained.report.parameters,
    }
    print(json.dumps(figures))


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a case.")] = None,
    quick: Annotated[bool, typer.Option(help="Few steps, no large images.")] = False,
) -> None:
    """Do the cases that are missing."""
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = [row["case"] for row in read_current(out)]
    steps = QUICK_STEPS if quick else PromptTuning().steps
    for case in CASES:
        large = case.side > QUICK_SIDE or case.images > QUICK_IMAGES
        if asdict(case) in done or (quick and large):
            continue
        row = {"sam": weights(), "case": asdict(case), "steps": steps}
        row |= in_process(data, case, steps)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def in_process(data: Path, case: Case, steps: int) -> dict[str, Any]:
    """Do a case in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "one", "--data", str(data)]
    command += ["--case", json.dumps(asdict(case)), "--steps", str(steps)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation."""
    rows = read_current(out)
    print(
        "| images | side | classes | compared | numbers | embedding | tuning | "
        "peak memory | segmenting one |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        case = Case(**row["case"])
        print(
            f"| {case.images} | {case.side} | {case.classes} | {case.comparison} | "
            f"{row['numbers']:,} | {row['embedding']:.0f} s | {row['tuning']:.0f} s | "
            f"{row['peak_mb'] / 1000:.1f} GB | {row['segmenting']:.1f} s |"
        )


if __name__ == "__main__":
    app()
