"""Find the recipe of prompt tuning, which its paper does not give.

    python benchmarks/sweep.py run --data DIR [--out RESULTS.jsonl]
    python benchmarks/sweep.py table [--out RESULTS.jsonl]

One setting is changed at a time, on three sets to choose by, first the learning rate;
the choice is confirmed on the others. The score is Dice on test images that were never
tuned on. What is done is not done again.
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

BEGIN: dict[str, Any] = {"learning_rate": 0.05, "comparison": "none"}
"""Where the search began: PTSAM as published."""

FASTER: dict[str, Any] = BEGIN | {"learning_rate": 0.2}
"""Where it went on, once the first changes had shown that prompts want large steps."""

COMPARED: dict[str, Any] = FASTER | {"comparison": "embedding"}
"""Where it went on from there: prompts that are compared with the embedding as well."""

CHANGES: dict[str, dict[str, Any]] = {
    "rate 0.05, where it began": BEGIN,
    "rate 0.01": BEGIN | {"learning_rate": 0.01},
    "rate 0.02": BEGIN | {"learning_rate": 0.02},
    "rate 0.1": BEGIN | {"learning_rate": 0.1},
    "rate 0.2": FASTER,
    "rate 0.5": BEGIN | {"learning_rate": 0.5},
    "rate 1": BEGIN | {"learning_rate": 1.0},
    "rate 0.05, 100 steps": BEGIN | {"steps": 100},
    "rate 0.05, 400 steps": BEGIN | {"steps": 400},
    "rate 0.05, 768 pixels": BEGIN | {"working_size": 768},
    "rate 0.05, begin with a click": BEGIN | {"initial": "click"},
    "rate 0.2, begin with a click": FASTER | {"initial": "click"},
    "rate 0.2, 16 prompts": FASTER | {"prompts": 16},
    "rate 0.2, 4 prompts": FASTER | {"prompts": 4},
    "rate 0.2, output 1": FASTER | {"output": 1},
    "rate 0.2, cross-entropy alone": FASTER | {"dice": 0.0},
    "rate 0.2, Dice alone": FASTER | {"cross_entropy": 0.0},
    "rate 0.2, no changed views": FASTER | {"views": 0},
    "rate 0.2, 6 changed views": FASTER | {"views": 6},
    "rate 0.2, batch 6": FASTER | {"batch": 6},
    "rate 0.2, 400 steps": FASTER | {"steps": 400},
    "rate 0.2, no images held out": FASTER | {"validate": 0},
    "rate 0.2, 384 pixels": FASTER | {"working_size": 384},
    "compared": COMPARED,
    "compared, rate 0.05": COMPARED | {"learning_rate": 0.05},
    "compared, rate 0.5": COMPARED | {"learning_rate": 0.5},
    "compared, 100 steps": COMPARED | {"steps": 100},
    "compared, 400 steps": COMPARED | {"steps": 400},
    "compared, 4 prompts": COMPARED | {"prompts": 4},
    "compared, 16 prompts": COMPARED | {"prompts": 16},
    "compared, no changed views": COMPARED | {"views": 0},
    "compared, 384 pixels": COMPARED | {"working_size": 384},
}
"""Settings that were tried; what is not named is the default."""

app = typer.Typer(add_completion=False, no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Results, a line a run.")]

RESULTS = Path("benchmarks/results/sweep.jsonl")


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Out = RESULTS,
    sets: Annotated[str, typer.Option(help="Sets, by commas.")] = ",".join(CHOOSE),
    changes: Annotated[str, typer.Option(help="Only these, by semicolons.")] = "",
    seeds: Annotated[int, typer.Option(help="Draws of images.", min=1)] = 1,
    sam: Annotated[str, typer.Option(help="The SAM to tune.")] = "nano",
) -> None:
    """Do the runs that are missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = load_backbone(sam).digest[:12]
    rows = [row for row in read(out) if row.get("sam") == digest]
    done = {(row["change"], row["set"], row["seed"]) for row in rows}
    wanted = changes.split(";") if changes else list(CHANGES)
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
    print(f"| changed | {' | '.join(names)} | mean |")
    print("|---" * (len(names) + 2) + "|")
    for change in CHANGES:
        own = [row for row in rows if row["change"] == change]
        each = [[r["dice"] for r in own if r["set"] == name] for name in names]
        if not own:
            continue
        texts = [f"{np.mean(values):.3f}" if values else "" for values in each]
        mean = np.mean([np.mean(values) for values in each if values])
        print(f"| {change} | {' | '.join(texts)} | {mean:.3f} |")


if __name__ == "__main__":
    app()
