"""One binary network a class against one network for all classes.

    python benchmarks/lesions.py run --data DIR [--quick] [--minutes M]
    python benchmarks/lesions.py table [--out RESULTS.jsonl]

Two tasks: membranes, mitochondria, synapses and glia of one volume of electron
microscopy (the last quarter is tested on, the first half trained on), and nuclei by
kind of image (fluorescence, histology, bright field: a class each, grey values alone).
All arms have the same network, images, windows and steps in all, so that they take as
long: of four classes each binary network gets a quarter of the steps.

- ``all``: one network, Dice and cross-entropy over all classes;
- ``each``: one binary network a class, with its own loss, threshold and windows;
- ``each, CLAHE``: the same on images whose contrast was equalised.

Measured on images of which training saw nothing: Dice of the labels a user gets, AUPR
of each class's probability and the lesions found, over all pixels of all test images.
Pixel accuracy is not: it rewards finding nothing. ``--quick`` is one seed of the small
network on few images. Each line is a run; what is done is not done again. Seconds are
those of the processor.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import read
from scipy import ndimage

from napari_medseg import metrics
from napari_medseg._types import finish
from napari_medseg.api import train_job
from napari_medseg.inference import of_model_file
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.precision_recall import Ranking
from napari_medseg.training.lesion_training import KINDS, LesionTraining

RESULTS = Path("benchmarks/results/lesions.jsonl")

QUICK_RESULTS = Path("benchmarks/results/lesions_quick.jsonl")

TASKS = {
    "vnc": ("membrane", "mitochondria", "synapse", "glia"),
    "nuclei": ("fluo", "histo", "bf"),
}
"""Classes of each task, from 1 on."""

ARMS = ("all", "each", "each, CLAHE")

NETWORKS = ("med2d", "deeplab")

SEEDS = (0, 1, 2)

SIDE, WINDOW, BATCH = 512, 128, 4

STEPS, QUICK_STEPS = 2400, 96
"""Steps in all, of all classes together."""

TRAINED, TESTED, QUICK_TRAINED, QUICK_TESTED = 8, 6, 4, 3
"""Images, of nuclei by kind."""

HELD_OUT = {"vnc": 1, "nuclei": 3}
"""Of the images to train on: for the best step, and the thresholds."""

KEYS = ("task", "network", "arm", "seed")


def vnc(data: Path, quick: bool) -> tuple[Pairs, Pairs]:
    """Return sections to train on and to test on, with five between them."""
    paths = sorted((data / "vnc_sstem_multiclass" / "images").iterdir())
    train, test = (paths[0:10:3], paths[17::2]) if quick else (paths[:10], paths[15:])
    return _sections(train), _sections(test)


def _sections(paths: list[Path]) -> Pairs:
    """Read sections."""
    return gather([_section(path) for path in paths], annotation="dense")


def _section(path: Path) -> Pair:
    """Read the upper left quarter of a section."""
    image = read_image(path).plane()[:, :SIDE, :SIDE]
    mask = next((path.parent.parent / "masks").glob(f"{path.stem}.*"))
    return Pair(path.stem, image, read_annotation(mask).labels[:SIDE, :SIDE])


def nuclei(data: Path, quick: bool) -> tuple[Pairs, Pairs]:
    """Return images of three kinds, grey, in which nuclei are of the kind's class."""
    folder = data / "dsb2018_nuclei" / "images"
    train: list[Pair] = []
    test: list[Pair] = []
    most = (QUICK_TRAINED, QUICK_TESTED) if quick else (TRAINED, TESTED)
    for value, kind in enumerate(TASKS["nuclei"], 1):
        paths = sorted(folder.glob(f"{kind}_*"))
        order = np.random.default_rng(0).permutation(len(paths))
        # of few images of a kind a third is tested on
        tests = min(most[1], len(paths) // 3)
        test += [_nuclei(paths[index], value) for index in order[:tests]]
        rest = order[tests : tests + most[0]]
        train += [_nuclei(paths[index], value) for index in rest]
    return gather(train, annotation="dense"), gather(test, annotation="dense")


def _nuclei(path: Path, value: int) -> Pair:
    """Read an image as grey, and its nuclei as one class."""
    image = read_image(path).plane()[:3].mean(axis=0, keepdims=True)
    mask = next((path.parent.parent / "masks").glob(f"{path.stem}.*"))
    inside = read_annotation(mask).labels > 0
    labels = np.where(inside, value, 0).astype(np.int32)
    return Pair(path.stem, image[:, :SIDE, :SIDE], labels[:SIDE, :SIDE])


LOADERS = {"vnc": vnc, "nuclei": nuclei}


def settings(task: str, network: str, arm: str, seed: int, steps: int) -> Any:
    """Return what an arm is trained with."""
    shared = {"window": WINDOW, "batch": BATCH, "seed": seed, "device": "cpu"}
    scratch = {"encoder_weights": "none"}
    held = {"validate": HELD_OUT[task]}
    if arm == "all":
        own = scratch if network == "deeplab" else {}
        return KINDS[network](steps=steps, **held, **shared, **own)
    clip = 2.0 if arm.endswith("CLAHE") else 0.0
    return LesionTraining(
        class_network=network,
        steps=steps // len(TASKS[task]),
        clip=clip,
        **held,
        **shared,
        **scratch,
    )


def measured(segmenter: Any, test: Pairs, names: tuple[str, ...]) -> dict[str, Any]:
    """Return Dice, AUPR and lesions found of each class over all test images."""
    rankings = {name: Ranking() for name in names}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    truth: dict[str, list[np.ndarray]] = {name: [] for name in names}
    hit: dict[str, list[bool]] = {name: [] for name in names}
    for pair in test:
        prediction = segmenter.predict(pair.image)
        stack = prediction.stack
        alone = prediction.probabilities if stack is None else stack
        for value, name in enumerate(names, 1):
            there, said = pair.annotation == value, prediction.labels == value
            rankings[name].add(alone[value], there)
            truth[name].append(there.ravel())
            found[name].append(said.ravel())
            lesions, count = ndimage.label(there, np.ones((3, 3)))
            hits = ndimage.maximum(said, lesions, np.arange(1, count + 1))
            hit[name] += np.atleast_1d(hits).astype(bool).tolist() if count else []
    return {
        name: {
            "dice": round(
                metrics.dice(np.concatenate(found[name]), np.concatenate(truth[name])),
                4,
            ),
            "aupr": round(rankings[name].aupr, 4),
            "lesion_recall": round(float(np.mean(hit[name])), 4),
        }
        for name in names
    }


def one(
    data: Path, task: str, network: str, arm: str, seed: int, quick: bool, steps: int
) -> dict[str, Any]:
    """Do one run."""
    train, test = LOADERS[task](data, quick)
    names = TASKS[task]
    began = time.process_time()
    config = settings(task, network, arm, seed, steps)
    trained = finish(train_job(train, config))
    seconds = time.process_time() - began
    scores = measured(of_model_file(trained.model_file, "cpu"), test, names)
    return {
        "images": len(train),
        "test": len(test),
        "steps": steps,
        "parameters": trained.report.parameters,
        "seconds": round(seconds, 1),
        "classes": scores,
    }


app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One seed, few images and steps.")
    ] = False,
    networks: Annotated[str, typer.Option(help="Only these, by commas.")] = "",
    steps: Annotated[int | None, typer.Option(help="Steps in all, of a run.")] = None,
    minutes: Annotated[float, typer.Option(help="Begin no run after these.")] = 1e9,
) -> None:
    """Do the runs that are missing."""
    started = time.monotonic()
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    done = {tuple(row[key] for key in KEYS) for row in read(out)}
    plan = [
        (task, network, arm, seed)
        for seed in (SEEDS[:1] if quick else SEEDS)
        for network in (
            networks.split(",") if networks else NETWORKS[: 1 if quick else 2]
        )
        for task in TASKS
        for arm in ARMS
    ]
    for cell in plan:
        if cell in done:
            continue
        if time.monotonic() - started > 60 * minutes:
            break
        row = dict(zip(KEYS, cell, strict=True))
        row |= one(data, *cell, quick, steps or (QUICK_STEPS if quick else STEPS))
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation: means over seeds."""
    rows = read(out)
    heads = " | ".join(f"{arm}: Dice, AUPR, found" for arm in ARMS)
    print(f"| task | network | class | {heads} |")
    print("|---" * (3 + len(ARMS)) + "|")
    for task, names in TASKS.items():
        for network in NETWORKS:
            wanted = (task, network)
            runs = [row for row in rows if (row["task"], row["network"]) == wanted]
            for name in names if runs else ():
                texts = [_cell(runs, arm, name) for arm in ARMS]
                print(f"| {task} | {network} | {name} | {' | '.join(texts)} |")
            if runs:
                seconds = [_seconds(runs, arm) for arm in ARMS]
                print(f"| {task} | {network} | *seconds* | {' | '.join(seconds)} |")


def _cell(runs: list[dict[str, Any]], arm: str, name: str) -> str:
    found = [row["classes"][name] for row in runs if row["arm"] == arm]
    if not found:
        return ""
    figures = ("dice", "aupr", "lesion_recall")
    return ", ".join(f"{np.mean([each[key] for each in found]):.3f}" for key in figures)


def _seconds(runs: list[dict[str, Any]], arm: str) -> str:
    found = [row["seconds"] for row in runs if row["arm"] == arm]
    return f"{np.mean(found):.0f}" if found else ""


if __name__ == "__main__":
    app()
