"""Find the recipe of prompt tuning, which its paper does not give.

    python benchmarks/sweep.py run --data DIR [--out RESULTS.jsonl]
    python benchmarks/sweep.py table [--out RESULTS.jsonl]

One setting is changed at a time, on three sets to choose by; the choice is confirmed
on the others. The score is Dice on test images that were never tuned on. What is done
is not done again.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import StudiedSegmenter, measure, read
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.models.backbone import load_backbone
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.tuning import study_of

CHOOSE = ("phase", "membrane", "heart")
"""Sets that decide."""

IMAGES = 16

CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "rate 0.01": {"learning_rate": 0.01},
    "rate 0.02": {"learning_rate": 0.02},
    "rate 0.1": {"learning_rate": 0.1},
    "100 steps": {"steps": 100},
    "400 steps": {"steps": 400},
    "4 prompts": {"prompts": 4},
    "16 prompts": {"prompts": 16},
    "begin with a click": {"initial": "click"},
    "output 1": {"output": 1},
    "cross-entropy alone": {"dice": 0.0},
    "Dice alone": {"cross_entropy": 0.0},
    "no changed views": {"views": 0},
    "6 changed views": {"views": 6},
    "batch 6": {"batch": 6},
    "384 pixels": {"working_size": 384},
    "768 pixels": {"working_size": 768},
    "no images held out": {"validate": 0},
}
"""Settings that differ from the defaults."""

app = typer.Typer(add_completion=False, no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Results, a line a run.")]

RESULTS = Path("benchmarks/results/sweep.jsonl")


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Out = RESULTS,
    sets: Annotated[str, typer.Option(help="Sets, by commas.")] = ",".join(CHOOSE),
    changes: Annotated[str, typer.Option(help="Only these, by commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Draws of images.", min=1)] = 1,
    sam: Annotated[str, typer.Option(help="The SAM to tune.")] = "nano",
) -> None:
    """Do the runs that are missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = load_backbone(sam).digest[:12]
    rows = [row for row in read(out) if row.get("sam") == digest]
    done = {(row["change"], row["set"], row["seed"]) for row in rows}
    wanted = changes.split(",") if changes else list(CHANGES)
    for seed, change, name in product(range(seeds), wanted, sets.split(",")):
        if (change, name, seed) in done:
            continue
        started = time.monotonic()
        config = replace(PromptTuning(sam=sam, seed=seed), **CHANGES[change])
        torch.manual_seed(seed)
        study = study_of(ClassGoal(SETS[name].draw(data, IMAGES, seed)), config)
        finish(study.run())
        row = {"sam": digest, "change": change, "set": name, "seed": seed}
        row["seconds"] = round(time.monotonic() - started, 1)
        row |= measure(StudiedSegmenter(study), SETS[name].test(data))
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


@app.command()
def table(out: Out = RESULTS) -> None:
    """Print Dice by change and set, in Markdown."""
    rows = read(out)
    # of the SAM that was measured last
    rows = [row for row in rows if row["sam"] == rows[-1]["sam"]]
    names = [name for name in SETS if any(row["set"] == name for row in rows)]
    print(f"| changed | {' | '.join(names)} | mean | seconds |")
    print("|---" * (len(names) + 3) + "|")
    for change in CHANGES:
        own = [row for row in rows if row["change"] == change]
        each = [[r["dice"] for r in own if r["set"] == name] for name in names]
        if not own:
            continue
        texts = [f"{np.mean(values):.3f}" if values else "" for values in each]
        mean = np.mean([np.mean(values) for values in each if values])
        seconds = np.mean([row["seconds"] for row in own])
        print(f"| {change} | {' | '.join(texts)} | {mean:.3f} | {seconds:.0f} |")


if __name__ == "__main__":
    app()
