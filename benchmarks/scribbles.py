"""Training from scribbles: a few strokes an image against dense masks of the same.

    python benchmarks/scribbles.py run --data DIR [--seeds 3] [--out RESULTS.jsonl]
    python benchmarks/scribbles.py table [--out RESULTS.jsonl]

Heart slices (ACDC) with scribbles of right ventricle, muscle, left ventricle and
background, drawn by hand; everything else is unlabelled. Both ways get the same 16
images and the same training; Dice of each class on test patients, against dense masks.
What is done with the same weights of the SAM is not done again.
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
from few_shot import read_current, weights
from sets import SETS

from napari_medseg import metrics
from napari_medseg._types import finish
from napari_medseg.api import train_job
from napari_medseg.inference import Segmenter
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.training.prompt_tuning import PromptTuning

FOLDERS = {"scribbles": "masks_scribble", "dense": "masks"}
"""Folder of each kind of annotation."""

UNLABELLED = 255
"""Value of what no scribble covers."""

CLASSES = ("right ventricle", "muscle", "left ventricle")

IMAGES = 16

RESULTS = Path("benchmarks/results/scribbles.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)


def read_pair(path: Path, folder: str) -> Pair:
    """Read an image with one kind of its annotations."""
    mask = next((path.parent.parent / folder).glob(f"{path.stem}.*"))
    return Pair(path.stem, read_image(path).plane(), read_annotation(mask).labels)


def chosen(data: Path, seed: int) -> list[Path]:
    """Draw images on which all classes are, one a patient as far as they go."""
    pool, _ = SETS["heart"].paths(data)
    order = np.random.default_rng(seed).permutation(len(pool))
    full = [
        pool[index]
        for index in order
        if len(np.unique(read_pair(pool[index], "masks").annotation)) > len(CLASSES)
    ]
    seen: dict[str, int] = {}
    ranks = []
    for path in full:
        patient = path.stem.split("_")[0]
        ranks.append(seen.get(patient, 0))
        seen[patient] = ranks[-1] + 1
    return [full[index] for index in np.argsort(ranks, kind="stable")[:IMAGES]]


def draw(data: Path, seed: int, way: str) -> Pairs:
    """Return the annotated images."""
    pairs = [read_pair(path, FOLDERS[way]) for path in chosen(data, seed)]
    if way == "dense":
        return gather(pairs, annotation="dense")
    return gather(pairs, annotation="sparse", ignore=UNLABELLED)


def measure(segmenter: Segmenter, test: list[Pair]) -> list[float]:
    """Return the mean Dice of each class over the images that have it."""
    rows = []
    for pair in test:
        found = segmenter.predict(pair.image).labels
        rows.append(
            [
                metrics.dice(found == value, pair.annotation == value)
                if (pair.annotation == value).any()
                else np.nan
                for value in range(1, len(CLASSES) + 1)
            ]
        )
    return [round(float(each), 4) for each in np.nanmean(rows, axis=0)]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    seeds: Annotated[int, typer.Option(help="Draws of images.", min=1)] = 3,
    out: Annotated[Path, typer.Option(help="Results, a line a run.")] = RESULTS,
    quick: Annotated[bool, typer.Option(help="One draw, a quarter the steps.")] = False,
) -> None:
    """Do the runs that are missing."""
    torch.set_num_threads(1)
    out = out.with_stem(f"{out.stem}_quick") if quick else out
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["seed"], row["way"]) for row in read_current(out)}
    test = [read_pair(path, "masks") for path in SETS["heart"].paths(data)[1]]
    for seed, way in product(range(1 if quick else seeds), FOLDERS):
        if (seed, way) in done:
            continue
        pairs = draw(data, seed, way)
        config = PromptTuning(seed=seed)
        config = replace(config, steps=config.steps // 4) if quick else config
        started = time.process_time()
        segmenter = Segmenter(finish(train_job(pairs, config)).model_file)
        row: dict[str, Any] = {"sam": weights(), "seed": seed, "way": way}
        row["labelled"] = round(labelled_share(pairs), 4)
        row["seconds"] = round(time.process_time() - started, 1)
        row["dice"] = measure(segmenter, test)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def labelled_share(pairs: Pairs) -> float:
    """Return which share of the pixels is labelled."""
    return float(np.mean([(pairs.targets(i) >= 0).mean() for i in range(len(pairs))]))


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation."""
    rows = read_current(out)
    print(f"| annotation | labelled pixels | {' | '.join(CLASSES)} | mean |")
    print("|---" * (len(CLASSES) + 3) + "|")
    for way in FOLDERS:
        own = [row for row in rows if row["way"] == way]
        if not own:
            continue
        dice = np.array([row["dice"] for row in own])
        share = np.mean([row["labelled"] for row in own])
        cells = [_spread(column) for column in (*dice.T, dice.mean(axis=1))]
        print(f"| {way} | {share:.1%} | {' | '.join(cells)} |")


def _spread(values: np.ndarray) -> str:
    """Return a mean with its standard deviation over the draws."""
    if len(values) < 2:
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


if __name__ == "__main__":
    app()
