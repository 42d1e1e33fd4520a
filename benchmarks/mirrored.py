"""What it is worth to see each image mirrored in four ways, and what it costs.

    python benchmarks/mirrored.py run --data DIR [--sets fluo,worms] [--minutes M]
    python benchmarks/mirrored.py table [--out RESULTS.jsonl]

``run`` tunes PTSAM on 16 images of each set as usual, and measures it on test images
that were never tuned on, seen once and seen mirrored (``segment --mirrored``): Dice
and seconds of the processor for an image, on one thread. Each line of the results is a
set; what is done with the same weights of the SAM is not done again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import leading, measure, read_current, trained, weights
from sets import SETS

from napari_medseg.inference import of_model_file
from napari_medseg.training.tuning import model_file_of

RESULTS = Path("benchmarks/results/mirrored.jsonl")

IMAGES = 16
"""Annotated images."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Results, a line a set.")] = RESULTS,
    sets: Annotated[str, typer.Option(help="Only these sets, by commas.")] = "",
    images: Annotated[int, typer.Option(help="Annotated images.")] = IMAGES,
    seeds: Annotated[int, typer.Option(help="Draws of images.")] = 1,
    minutes: Annotated[float, typer.Option(help="Begin no set after these.")] = 1e9,
) -> None:
    """Do the sets that are missing."""
    torch.set_num_threads(1)
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["set"], row["images"], row["seed"]) for row in read_current(out)}
    for seed in range(seeds):
        for name in sets.split(",") if sets else SETS:
            if (name, images, seed) in done:
                continue
            if time.monotonic() - started > 60 * minutes:
                return
            row = {"sam": weights(), "set": name, "images": images, "seed": seed}
            row |= measured(data, name, images, seed)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def measured(data: Path, name: str, images: int, seed: int) -> dict[str, Any]:
    """Tune on a set and measure both ways."""
    pairs, test = SETS[name].draw(data, images, seed), SETS[name].test(data)
    segmenter, _ = trained(leading(pairs), pairs, 0.0, seed)
    study = segmenter.study
    model_file = model_file_of(study, study.report())
    found: dict[str, Any] = {"test": len(test)}
    for kind, mirrored in (("once", False), ("mirrored", True)):
        model = of_model_file(model_file, "cpu", mirrored=mirrored)
        began = time.process_time()
        found[kind] = measure(model, test)["dice"]
        found[f"seconds_{kind}"] = round((time.process_time() - began) / len(test), 3)
    return found


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation: means over the draws."""
    rows = read_current(out)
    print(
        "| set | images | draws | once | mirrored | gain |\n|---|---|---|---|---|---|"
    )
    groups = sorted({(row["images"], row["set"]) for row in rows})
    for count, name in groups:
        some = [row for row in rows if (row["images"], row["set"]) == (count, name)]
        once, mirrored = (
            float(np.mean([row[kind] for row in some])) for kind in ("once", "mirrored")
        )
        gain = f"{mirrored - once:+.3f}"
        cells = (name, str(count), str(len(some)), f"{once:.3f}", f"{mirrored:.3f}")
        print("| " + " | ".join((*cells, gain)) + " |")
    for kind in ("once", "mirrored"):
        seconds = np.mean([row[f"seconds_{kind}"] for row in rows])
        print(f"\n{kind}: {seconds:.2f} seconds of the processor an image")


if __name__ == "__main__":
    app()
