"""The small network against a U-Net of ten times its size: speed, and what it learns.

    python benchmarks/networks.py run --data DIR [--quick] [--out RESULTS.jsonl]
    python benchmarks/networks.py table [--out RESULTS.jsonl]

``run`` first measures each network by itself: parameters, and seconds for one image of
512 × 512 on two cores. Then it trains both from scratch on the same images of five
sets, each for the same seconds of the processor (not of the clock, so that what else
the computer does makes no difference), by the package's own study, and measures Dice
on test images that were never trained on. Where the light network looks coarsely, as
the annotated objects allow, it is also trained at the images' own resolution. What is
done is not done again.
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
from monai.networks.nets import BasicUNet
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.io.pairs import Pairs
from napari_medseg.models.backbone import autocast
from napari_medseg.models.med2d import Med2dSegNet
from napari_medseg.models.networks import Network
from napari_medseg.models.prompts import trained_count
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.coarseness import fitting_reduction
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.learners import WholeNetwork
from napari_medseg.training.network_training import NetworkTraining
from napari_medseg.training.study import Study
from napari_medseg.training.supervised import Supervised
from napari_medseg.training.trainer import FitConfig, fit


class LargeUNet(Network):
    """MONAI's ``BasicUNet``, made ten times as large as Med-2D SegNet."""

    features = (104, 104, 208, 416, 832, 104)

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.unet = BasicUNet(2, in_channels, classes, self.features)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> LargeUNet:
        """Return the network with fresh weights."""
        return cls(in_channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, H, W)`` to logits ``(B, K, H, W)``."""
        found: torch.Tensor = self.unet(images)
        return found


NETWORKS: dict[str, tuple[type[Network], float]] = {
    "Med-2D SegNet": (Med2dSegNet, 2e-3),
    "U-Net": (LargeUNet, 1e-3),
}
"""Networks by name, with their learning rates."""

FINE = "Med-2D SegNet, every pixel"
"""The light network at the images' own resolution, where it would look coarsely."""

ARMS = (*NETWORKS, FINE, "Otsu")
"""What is compared."""

CHOSEN = ("fluo", "phase", "membrane", "lungs", "heart")
"""Sets of the full table."""

IMAGES, TEST, SECONDS, SEEDS = 16, 16, 600.0, 3
"""Annotated images, test images, seconds of the processor, draws."""

QUICK = {"sets": ("fluo", "membrane"), "images": 8, "test": 6, "seconds": 60.0}
"""What ``--quick`` does, with one draw."""

EVALUATIONS = 13
"""Times that a study measures itself in a training."""

PROBE = 3
"""Steps that are timed to know how many fit into the seconds."""

RESULTS = Path("benchmarks/results/networks.jsonl")

QUICK_RESULTS = Path("benchmarks/results/networks_quick.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[
        bool, typer.Option(help="Two sets, few images, one draw.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Seconds of the processor for each training.")
    ] = SECONDS,
    draws: Annotated[int, typer.Option(help="Draws of images.")] = SEEDS,
) -> None:
    """Do the runs that are missing."""
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    plan: dict[str, Any] = {
        "sets": CHOSEN, "images": IMAGES, "test": TEST, "seconds": seconds
    }  # fmt: skip
    plan |= QUICK if quick else {}
    done = {(row["set"], row["network"], row["seed"]) for row in read(out)}
    seeds = range(1 if quick else draws)
    cells = [("", name, 0) for name in NETWORKS]
    cells += list(product(plan["sets"], ARMS, seeds))
    for set_name, network, seed in cells:
        if (set_name, network, seed) in done:
            continue
        row: dict[str, Any] = {"set": set_name, "network": network, "seed": seed}
        if set_name:
            pairs = SETS[set_name].draw(data, plan["images"], seed)
            test = SETS[set_name].test(data)[: plan["test"]]
            if network == FINE and fitting_reduction(pairs) == 1:
                continue
            row |= {"images": len(pairs), "budget": plan["seconds"]}
            row |= trained(network, pairs, test, plan["seconds"], seed)
        else:
            row |= alone(NETWORKS[network][0])
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def alone(kind: type[Network], repeats: int = 3) -> dict[str, Any]:
    """Return what a network costs: the best of a few runs, on two cores and on one."""
    network = kind.build(3, 2).eval()
    images = torch.randn(1, 3, 512, 512)
    facts: dict[str, Any] = {"parameters": trained_count(network)}
    threads = torch.get_num_threads()
    for cores, clock in ((2, time.perf_counter), (1, time.process_time)):
        torch.set_num_threads(cores)
        best = float("inf")
        for _ in range(repeats):
            began = clock()
            with torch.inference_mode(), autocast(torch.device("cpu")):
                network(images)
            best = min(best, clock() - began)
        facts[f"seconds_{cores}"] = round(best, 4)
    torch.set_num_threads(threads)
    return facts


def trained(
    name: str, pairs: Pairs, test: Pairs, seconds: float, seed: int
) -> dict[str, Any]:
    """Train for so many seconds of the processor, and measure."""
    if name == "Otsu":
        return dict(measure(better_otsu(pairs), test))
    fine = name == FINE
    kind, rate = NETWORKS["Med-2D SegNet" if fine else name]
    config = NetworkTraining(
        learning_rate=rate, seed=seed, device="cpu", reduction=1 if fine else None
    )

    def begin(config: NetworkTraining) -> Study[WholeNetwork, NetworkTraining]:
        learner = WholeNetwork(kind, config)
        return Study(learner, ClassGoal(pairs), config, Conduct())

    steps = steps_within(begin(config), seconds)
    began = time.process_time()
    study = begin(replace(config, steps=steps))
    finish(study.run())
    tile, size = study.view_config.framing.tile, study.view_config.framing.size
    facts: dict[str, Any] = {"reduction": tile // size}
    facts |= {"steps": steps, "cpu_seconds": round(time.process_time() - began, 1)}
    held_out = study.report().held_out
    facts["held_out"] = round(held_out.dice, 4) if held_out else None
    return facts | measure(StudiedSegmenter(study), test)


def steps_within(study: Study[WholeNetwork, NetworkTraining], seconds: float) -> int:
    """Return how many steps fit into seconds of the processor, with evaluations."""
    (split,) = study.splits
    model = study.model(split.training)
    batches = study.batches(split.training)
    config = FitConfig(steps=PROBE + 1, learning_rate=1e-5, device="cpu")
    times = []
    for _ in fit(model, Supervised(), batches, config):
        times.append(time.process_time())
    step = (times[-1] - times[0]) / (len(times) - 1)
    began = time.process_time()
    study.score(model, split.held_out[:1])
    evaluation = (time.process_time() - began) * len(split.held_out)
    few = int(seconds / (step + evaluation))
    if few < EVALUATIONS:  # then it measures itself after every step
        return max(1, few)
    return max(few, int((seconds - EVALUATIONS * evaluation) / step))


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the tables of the documentation."""
    rows = read(out)
    print(
        "| network | parameters | seconds on two cores | processor seconds, one core |"
    )
    print("|---|---|---|---|")
    for row in rows:
        if not row["set"]:
            times = f"{row['seconds_2']:.3f} | {row['seconds_1']:.3f}"
            print(f"| {row['network']} | {row['parameters']:,} | {times} |")
    names = ARMS
    print(f"\n| set | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for chosen in CHOSEN:
        texts = []
        for name in names:
            own = [
                row for row in rows if (row["set"], row["network"]) == (chosen, name)
            ]
            values = [row["dice"] for row in own]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            texts.append(f"{np.mean(values):.3f}{spread}" if values else "")
        if any(texts):
            print(f"| {chosen} | {' | '.join(texts)} |")


if __name__ == "__main__":
    app()
