"""What images without annotation add to a few annotated ones.

    python benchmarks/semi.py run --data DIR [--quick] [--minutes M]
    python benchmarks/semi.py table [--out RESULTS.jsonl]

Three sets: lungs, the heart by patient (three classes), fluorescent nuclei. Of the
images to train on, 5 or 10 % keep their labels (of the heart: one patient in one phase
of the beat, or in both); the others are given without. Arms: each of three ways to
segment, on the annotated images alone and with the others too. Both get the same
annotated images, steps, views a step and seed; nothing is held out, and the last step
is measured: Dice on images of which training saw nothing. One way is XNet-Plus whose
U-Nets all see the image itself, for what the wavelets are worth. Networks work on
images of 128 pixels, PTSAM on 256. The nuclei are of a set that the bundled SAM was
trained on.

``--quick`` is one draw of 10 % of each set, a quarter of the steps and fewer images.
Each line of the results is a run; what is done is not done again, and ``--minutes``
begins no run after so many. Seconds are those of the processor.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from few_shot import StudiedSegmenter, read, weights
from sets import SETS
from skimage.transform import resize

from napari_medseg._types import finish
from napari_medseg.io.images import read_annotation
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.training import tuning, whole
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.network_training import (
    Med2dTraining,
    NetworkTraining,
    XnetTraining,
)
from napari_medseg.training.objectives import objective_of
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.scoring import score_image
from napari_medseg.training.unlabelled import NONE, Unlabelled
from napari_medseg.training.views import Example

if TYPE_CHECKING:
    from napari_medseg.training.study import Study

RESULTS = Path("benchmarks/results/semi.jsonl")

QUICK_RESULTS = Path("benchmarks/results/semi_quick.jsonl")

CHOSEN = ("lungs", "heart", "fluo")

SHARES = (0.1, 0.05)
"""Shares of the images that keep their labels, most telling first."""

SEEDS = (0, 1, 2)

WAYS = ("med2d", "xnet", "xnet, no wavelets", "ptsam")

ARMS = ("alone", "more")

SIDES = {"med2d": 128, "xnet": 128, "xnet, no wavelets": 128, "ptsam": 256}
"""Pixels of the longer side of images, by way."""

STEPS = {"med2d": 600, "xnet": 600, "xnet, no wavelets": 600, "ptsam": 300}

MOST, TEST = 160, 40
"""Images without labels, and images to measure on, at most."""

QUICK_STEPS, QUICK_MOST, QUICK_TEST = 4, 24, 12
"""What ``--quick`` divides the steps by, and has of images."""


def paths_of(name: str, data: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Return images to train on and to measure on; no patient is in both."""
    source = SETS[name]
    pool, _ = source.paths(data)
    found = sorted((data / source.folder / "images").glob(f"{source.prefix}*"))
    apart = [path for path in found if path not in set(pool)]
    order = np.random.default_rng(1).permutation(len(apart))[:count]
    return pool, [apart[index] for index in sorted(order)]


def drawn(
    name: str, pool: list[Path], share: float, seed: int
) -> tuple[list[Path], list[Path]]:
    """Return which images keep their labels, and the others."""
    rng = np.random.default_rng((seed, 3))
    if name == "heart":
        patients = sorted({path.stem.split("_")[0] for path in pool})
        patient = patients[int(rng.integers(len(patients)))]
        kept = [path for path in pool if path.stem.startswith(f"{patient}_")]
        phases = sorted({path.stem.split("_")[1] for path in kept})
        if share < SHARES[0]:
            kept = [path for path in kept if path.stem.split("_")[1] == phases[0]]
    else:
        order = rng.permutation(len(pool))
        kept = [pool[index] for index in order[: max(2, round(share * len(pool)))]]
    others = [path for path in pool if path not in set(kept)]
    return kept, [others[index] for index in rng.permutation(len(others))]


def pair_of(name: str, path: Path, side: int) -> Pair:
    """Read an image with its classes, made smaller."""
    pair = SETS[name].pair(path)
    labels = pair.annotation
    if name == "heart":
        mask = next((path.parent.parent / "masks").glob(f"{path.stem}.*"))
        labels = read_annotation(mask).labels
    if SETS[name].instances:
        labels = (labels > 0).astype(np.int32)
    factor = min(1.0, side / max(labels.shape))
    shape = tuple(max(32, round(factor * length)) for length in labels.shape)
    small = resize(pair.image, (len(pair.image), *shape), anti_aliasing=factor < 1)
    fewer = resize(labels, shape, order=0, preserve_range=True, anti_aliasing=False)
    return replace(
        pair, image=small.astype(np.float32), annotation=fewer.astype(np.int32)
    )


def pairs_of(name: str, paths: list[Path], side: int) -> Pairs:
    """Read images with their classes."""
    return gather([pair_of(name, path, side) for path in paths], annotation="dense")


def studied(way: str, pairs: Pairs, others: Unlabelled, steps: int, seed: int) -> Study:
    """Train one way, with or without more images."""
    side = SIDES[way]
    # the name says that there are some; they were read already
    more = "given" if len(others) else ""
    shared: dict[str, Any] = {"steps": steps, "seed": seed, "validate": 0}
    shared |= {"unlabelled": more, "device": "cpu"}
    goal = ClassGoal(pairs)
    if way == "ptsam":
        config = PromptTuning(working_size=side, **shared)
        study: Study = tuning.study_of(
            goal, config, Conduct(), objective_of(config), others
        )
    else:
        shared |= {"window": side, "batch": 4}
        settings: NetworkTraining = (
            Med2dTraining(**shared)
            if way == "med2d"
            else XnetTraining(bands="wavelets" if way == "xnet" else "none", **shared)
        )
        study = whole.study_of(
            goal, settings, Conduct(), objective_of(settings), others
        )
    finish(study.run())
    return study


def measured(study: Study, test: Pairs) -> dict[str, float]:
    """Return mean Dice over test images, each that of its classes."""
    segmenter, scores = StudiedSegmenter(study), []
    for index, pair in enumerate(test):
        truth = Example(pair.name, pair.image, test.targets(index))
        found = segmenter.predict(pair.image).labels
        scores.append(score_image(truth, found).dice)
    return {"dice": round(float(np.mean(scores)), 4), "test": len(scores)}


def one(
    data: Path, name: str, share: float, seed: int, way: str, arm: str, quick: bool
) -> dict[str, Any]:
    """Do one run."""
    pool, apart = paths_of(name, data, QUICK_TEST if quick else TEST)
    kept, rest = drawn(name, pool, share, seed)
    side = SIDES[way]
    pairs = pairs_of(name, kept, side)
    others = NONE
    if arm == "more":
        more = [
            pair_of(name, path, side) for path in rest[: QUICK_MOST if quick else MOST]
        ]
        fitting = [pair for pair in more if len(pair.image) == pairs.channels]
        others = Unlabelled(
            tuple(pair.name for pair in fitting), tuple(pair.image for pair in fitting)
        )
    steps = STEPS[way] // (QUICK_STEPS if quick else 1)
    began = time.process_time()
    study = studied(way, pairs, others, steps, seed)
    facts = {
        "annotated": len(pairs),
        "others": len(others),
        "steps": steps,
        "seconds": round(time.process_time() - began, 1),
    }
    return facts | measured(study, pairs_of(name, apart, side))


KEYS = ("set", "share", "seed", "way", "arm")

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[bool, typer.Option(help="One draw of 10 %, few steps.")] = False,
    ways: Annotated[str, typer.Option(help="Only these ways, by semicolons.")] = "",
    minutes: Annotated[float, typer.Option(help="Begin no run after these.")] = 1e9,
) -> None:
    """Do the runs that are missing."""
    started = time.monotonic()
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    done = {
        tuple(row[key] for key in KEYS)
        for row in read(out)
        if row.get("sam") in ("", weights())
    }
    plan = [
        (name, share, seed, way, arm)
        for seed in (SEEDS[:1] if quick else SEEDS)
        for share in (SHARES[:1] if quick else SHARES)
        for way in (ways.split(";") if ways else WAYS)
        for name in CHOSEN
        for arm in ARMS
    ]
    for cell in plan:
        if cell in done:
            continue
        if time.monotonic() - started > 60 * minutes:
            break
        row = dict(zip(KEYS, cell, strict=True)) | one(data, *cell, quick)
        # networks know no SAM
        row |= {"sam": weights() if cell[3] == "ptsam" else ""}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation."""
    rows = [row for row in read(out) if row.get("sam") in ("", weights())]
    print("| set | labels | way | annotated + others | alone | with others | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in CHOSEN:
        for share in SHARES:
            for way in WAYS:
                line = _line(rows, (name, share, way))
                if line:
                    print(f"| {name} | {share:.0%} | {way} | {line} |")


def _line(rows: list[dict[str, Any]], wanted: tuple[str, float, str]) -> str:
    """Return one line: means over the seeds that both arms have, and their spread."""
    found: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in ARMS}
    for row in rows:
        if (row["set"], row["share"], row["way"]) == wanted:
            found[row["arm"]][row["seed"]] = row
    seeds = sorted(set(found["alone"]) & set(found["more"]))
    if not seeds:
        return ""
    last = found["more"][seeds[0]]
    texts = [f"{last['annotated']} + {last['others']}"]
    for arm in ARMS:
        dice = np.array([found[arm][seed]["dice"] for seed in seeds])
        spread = f" ± {dice.std(ddof=1):.3f}" if len(seeds) > 1 else ""
        texts.append(f"{dice.mean():.3f}{spread}")
    seconds = [np.mean([found[arm][seed]["seconds"] for seed in seeds]) for arm in ARMS]
    texts.append(" / ".join(f"{value:.0f}" for value in seconds))
    return " | ".join(texts)


if __name__ == "__main__":
    app()
