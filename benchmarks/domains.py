"""Images of a microscope that was not among the annotated ones, with and without help.

    python benchmarks/domains.py run --data DIR [--quick] [--out RESULTS.jsonl]
    python benchmarks/domains.py table [--out RESULTS.jsonl]

``run`` leaves one domain out, trains on images of the others and measures Dice on the
one left out: kinds of microscope of dsb2018 (fluorescence, bright field, stained
tissue), and cell types of BU-BIL. Plain training, restyled features, varied appearance,
both, shades along random curves, and all of it: the same images, windows and steps.
Which step is best is decided on held-out images of the domains trained on. What is done
is not done again.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from few_shot import StudiedSegmenter, measure, read
from sets import DataSet

from napari_medseg._types import finish
from napari_medseg.io.pairs import Pairs
from napari_medseg.models.networks import network_class
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.domain import DomainConfig, other_domains
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.learners import WholeNetwork
from napari_medseg.training.network_training import MambaTraining, Med2dTraining
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.study import AnyStudy, Study, supervised
from napari_medseg.training.tuning import study_of as prompt_study_of

TASKS = {
    "microscopes": (DataSet("dsb2018_nuclei", instances=True), ("fluo", "bf", "histo")),
    "cell types": (DataSet("bubil_multiannotator"), ("fibro", "rabbitSMC", "ratSMC")),
}
"""Sets, and the prefixes of names that are their domains."""

REDUCTION = {"microscopes": 1, "cell types": 2}
"""Pixels of an image per pixel of a window: the cells of BU-BIL are large."""

ARMS = {
    "plain": None,
    "style": DomainConfig(below=0.0, curves=0.0),
    "appearance": DomainConfig(style=0.0, curves=0.0),
    "both": DomainConfig(curves=0.0),
    "curves": DomainConfig(style=0.0, below=0.0),
    "all": DomainConfig(),
}

UNSTYLED = ("plain", "appearance", "curves")
"""What does without restyled features."""

OF_IMAGES = ("appearance", "both")
"""What PTSAM does without, as it learns from embeddings."""

NETWORKS = {"med2d": Med2dTraining, "mamba": MambaTraining}

IMAGES, TEST, STEPS, SEEDS = 12, 16, 200, 3
"""Images a domain, test images, steps, draws."""

QUICK_STEPS = 60

RESULTS = Path("benchmarks/results/domains.jsonl")

QUICK_RESULTS = Path("benchmarks/results/domains_quick.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)


def drawn(task: str, data: Path, domain: str, count: int, seed: int) -> Pairs:
    """Return images of one domain."""
    whole, _ = TASKS[task]
    return replace(whole, prefix=f"{domain}_").draw(data, count, seed)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One task, the small network, few steps, one draw.")
    ] = False,
    networks: Annotated[str, typer.Option(help="Only these, by commas.")] = "",
) -> None:
    """Do the runs that are missing."""
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {tuple(row[name] for name in KEYS) for row in read(out)}
    wanted = networks.split(",") if networks else ["ptsam", *NETWORKS]
    plan = product(
        range(1 if quick else SEEDS),
        ["med2d"] if quick else wanted,
        ["microscopes"] if quick else TASKS,
        range(3),
        (*ARMS, "Otsu"),
    )
    for seed, network, task, left_out, arm in plan:
        domain = TASKS[task][1][left_out]
        key = (seed, network, task, domain, arm)
        if key in done or (network == "ptsam" and arm in OF_IMAGES):
            continue
        steps = QUICK_STEPS if quick else STEPS
        row = dict(zip(KEYS, key, strict=True)) | one(data, *key, steps)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


KEYS = ("seed", "network", "task", "domain", "arm")
"""What tells runs apart."""


def one(
    data: Path, seed: int, network: str, task: str, domain: str, arm: str, steps: int
) -> dict[str, Any]:
    """Train on the other domains, and measure on one."""
    others = [each for each in TASKS[task][1] if each != domain]
    parts = [drawn(task, data, each, IMAGES, seed) for each in others]
    pairs = replace(parts[0], pairs=tuple(pair for part in parts for pair in part))
    test = drawn(task, data, domain, TEST, 99)
    if arm == "Otsu":
        return dict(measure(better_otsu(pairs), test))
    study = study_of(network, task, arm, pairs, seed, steps)
    began = time.process_time()
    finish(study.run())
    seconds = round(time.process_time() - began, 1)
    held_out = study.report().held_out
    facts = {"cpu_seconds": seconds, "seen": held_out and round(held_out.dice, 4)}
    return facts | measure(StudiedSegmenter(study), test)


def study_of(
    network: str, task: str, arm: str, pairs: Pairs, seed: int, steps: int
) -> AnyStudy:
    """Return the study of an arm."""
    parts = ARMS[arm]
    # plain training draws its images at random, as it does by default
    domains = "none" if parts is None else "prefix"
    shared = {"steps": steps, "seed": seed, "device": "cpu", "domains": domains}
    objective = supervised if parts is None else partial(other_domains, parts=parts)
    if network == "ptsam":
        study = prompt_study_of(
            ClassGoal(pairs), PromptTuning(**shared), objective=objective
        )
        curves = 0.0 if parts is None else parts.curves
        study.view_config = replace(study.view_config, curves=curves)
        return study
    config = NETWORKS[network](window=128, reduction=REDUCTION[task], **shared)
    if network == "mamba" and arm in UNSTYLED:
        config = replace(config, style=0.0)
    learner = WholeNetwork(network_class(network), config)
    return Study(learner, ClassGoal(pairs), config, Conduct(), objective)


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation."""
    found: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in read(out):
        place = (row["network"], row["task"], row["domain"])
        found[place][row["arm"]].append(row["dice"])
    names = (*ARMS, "Otsu")
    print(f"| network | task | left out | {' | '.join(names)} |")
    print("|---" * (3 + len(names)) + "|")
    for place, arms in found.items():
        texts = []
        for name in names:
            values = arms[name]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            texts.append(f"{np.mean(values):.3f}{spread}" if values else "")
        print(f"| {' | '.join(place)} | {' | '.join(texts)} |")


if __name__ == "__main__":
    app()
