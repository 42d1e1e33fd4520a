"""What pretraining on images without labels buys, with a tenth of the labels.

    python benchmarks/contrastive.py run --data DIR [--quick] [--out RESULTS.jsonl]
    python benchmarks/contrastive.py table [--out RESULTS.jsonl]

``run`` goes through draws × sets × arms. Of the images that are not for testing a tenth
is drawn with its labels, and the small network is trained on them in three ways: from
scratch; from an encoder pretrained on all of them without labels; and from scratch for
as many seconds of the processor as pretraining and training took together, since
whoever does not pretrain could spend the time so. Nothing is held out, and the last
step is kept. Dice of the foreground on test images, which neither was shown. What is
done is not done again. Seconds are those of the processor, on one thread.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import StudiedSegmenter, measure, read
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.io import encoder_file
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.pretraining import pretrain
from napari_medseg.training.pretraining_settings import Pretraining
from napari_medseg.training.whole import study_of

SCRATCH, PRETRAINED, LONGER = "from scratch", "pretrained", "from scratch, as long"

ARMS = (SCRATCH, PRETRAINED, LONGER, "Otsu")
"""In this order: the third gets the seconds of the second."""

SHARE = 0.1
"""Of the images, those whose labels are used."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes
    ----------
    sets : tuple of str
        Names of `SETS`.
    seeds : int
        Draws.
    pretraining, steps : int
        Steps without labels, and with.
    near, window : int
        Side of a window in pretraining, and in training.
    coarser : int
        Pixels of the image per pixel of the input.
    test : int
        Test images.
    """

    sets: tuple[str, ...] = ("histo", "lungs")
    seeds: int = 3
    pretraining: int = 150
    steps: int = 150
    near: int = 64
    window: int = 128
    coarser: int = 2
    test: int = 16


FULL = Plan()

QUICK = Plan(("histo",), 1, 20, 20, window=64, test=8)
"""What ``--quick`` does."""

SUPERPIXELS = {"histo": 16, "fluo": 12, "lungs": 32}
"""Of each set: side of a superpixel in pixels of the image."""

RESULTS = Path("benchmarks/results/contrastive.jsonl")

QUICK_RESULTS = Path("benchmarks/results/contrastive_quick.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[bool, typer.Option(help="One set, one draw, few steps.")] = False,
    sets: Annotated[str, typer.Option(help="Only these sets, by commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Draws; 0 for those of the plan.")] = 0,
) -> None:
    """Do the runs that are missing."""
    torch.set_num_threads(1)
    plan = QUICK if quick else FULL
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = tuple(sets.split(",")) if sets else plan.sets
    rows = [row for row in read(out) if row["plan"] == asdict(plan) | {"sets": None}]
    done = {(row["seed"], row["set"], row["arm"]): row for row in rows}
    for seed, name, arm in product(range(seeds or plan.seeds), names, ARMS):
        if (seed, name, arm) in done:
            continue
        before = [done.get((seed, name, other), {}) for other in (SCRATCH, PRETRAINED)]
        row: dict[str, Any] = {"set": name, "seed": seed, "arm": arm}
        row |= trained(data, name, arm, seed, plan, before)
        row["plan"] = asdict(plan) | {"sets": None}
        done[seed, name, arm] = row
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def trained(
    data: Path,
    name: str,
    arm: str,
    seed: int,
    plan: Plan,
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    """Train one arm and measure it."""
    pool, _ = SETS[name].paths(data)
    pairs = SETS[name].draw(data, max(4, round(SHARE * len(pool))), seed)
    test = SETS[name].test(data)[: plan.test]
    facts: dict[str, Any] = {"labels": len(pairs), "images": len(pool)}
    if arm == "Otsu":
        return facts | measure(better_otsu(pairs), test)
    config = Med2dTraining(
        steps=plan.steps,
        window=plan.window,
        reduction=plan.coarser,
        validate=0,
        seed=seed,
        device="cpu",
    )
    began = time.process_time()
    if arm == LONGER:
        step = before[0]["seconds"] / plan.steps
        config = replace(config, steps=round(before[1]["seconds"] / step))
    with tempfile.TemporaryDirectory() as folder:
        if arm == PRETRAINED:
            path, told = learned(Path(folder), pool, name, seed, plan)
            config = replace(config, pretrained=str(path))
            facts |= told | {"pretraining": round(time.process_time() - began, 1)}
        study = study_of(ClassGoal(pairs), config)
        finish(study.run())
    facts |= {"steps": config.steps, "seconds": round(time.process_time() - began, 1)}
    return facts | measure(StudiedSegmenter(study), test)


def learned(
    folder: Path, pool: list[Path], name: str, seed: int, plan: Plan
) -> tuple[Path, dict[str, Any]]:
    """Pretrain on the images that are not for testing; none of their labels is read."""
    images = folder / "images"
    images.mkdir()
    for path in pool:
        (images / path.name).symlink_to(path.absolute())
    config = Pretraining(
        steps=plan.pretraining,
        window=plan.near,
        reduction=plan.coarser,
        superpixel=SUPERPIXELS[name] // plan.coarser,
        workers=1,
        seed=seed,
        device="cpu",
    )
    result = finish(pretrain(images, "med2d", config))
    path = encoder_file.save(folder / "encoder.safetensors", result.file)
    return path, {"stride": result.stride, "figures": dict(result.figures)}


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation, of the plan that was run last."""
    rows = read(out)
    rows = [row for row in rows if row["plan"] == rows[-1]["plan"]]
    print(f"| set | labels | {' | '.join(ARMS)} | draws |")
    print("|---" * (len(ARMS) + 3) + "|")
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        texts = [_words([row["dice"] for row in own if row["arm"] == a]) for a in ARMS]
        labels = f"{own[0]['labels']} of {own[0]['images']}"
        draws = len({row["seed"] for row in own})
        print(f"| {name} | {labels} | {' | '.join(texts)} | {draws} |")
    timed = [row for row in rows if row["arm"] != "Otsu"]
    for arm in ARMS[:3]:
        spent = [row["seconds"] for row in timed if row["arm"] == arm]
        if spent:
            print(f"\n{arm}: {np.mean(spent):.0f} s of the processor")


def _words(values: list[float]) -> str:
    """Return a mean with its spread."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" if values else ""


if __name__ == "__main__":
    app()
