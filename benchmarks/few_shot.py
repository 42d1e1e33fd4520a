"""What prompt tuning buys against every other way to adapt a SAM to a few images.

    python benchmarks/few_shot.py run --data DIR [--quick] [--out RESULTS.jsonl]
    python benchmarks/few_shot.py table [--out RESULTS.jsonl] [--curve CURVE.png]

``run`` goes through sets × numbers of images × seeds × methods, most telling first,
each in a process of its own (so that its peak memory is its own), and writes a line
for each. It can be stopped at any time: what is done with the same weights of the SAM
is not done again. All methods get the same images and views; PTSAM takes its usual
steps, and the others as many seconds as the package's PTSAM took on the same images.
Seconds are those of the processor, on one thread, so that other work on the computer
makes no difference. With 8 or more images a quarter is held out and the best step is
kept; with fewer all are trained on.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from adaptations import WAYS, Way
from safetensors.torch import save
from sets import SETS, TEST_IMAGES
from unet import train_unet

from napari_medseg import metrics
from napari_medseg._types import AnySegmenter, Prediction, default_classes, finish
from napari_medseg.inference import open_segmenter
from napari_medseg.io.pairs import Pairs
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.prompts import PromptedSam, trained_count
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.fineness import how_compared
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.learners import AdaptedSam, WholeNetwork
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.splits import HOLD_OUT_FROM
from napari_medseg.training.study import Study
from napari_medseg.training.supervised import Supervised
from napari_medseg.training.trainer import FitConfig, fit
from napari_medseg.windowed import Plan, predict_probabilities

LEADER = "PTSAM"
"""The package's default, whose seconds the others get."""

LEADING = {"fine": "PTSAM fine", "embedding": "PTSAM compared"}
"""What the default amounts to, by how prompts are compared with the embedding."""

PUBLISHED = "PTSAM decoder"
"""The same without what the package adds, of as many steps."""

LIGHT = "Med-2D SegNet"
"""The package's own light network, from scratch, which looks as coarsely as fits."""

METHODS = (
    "untuned", "Otsu", LEADER, *WAYS, "U-Net", LIGHT
)  # fmt: skip
"""What is compared."""

COUNTS = (16, 4, 1, 8, 2)
"""Numbers of annotated images, most telling first."""

FULL_ONLY = (*LEADING.values(), PUBLISHED, LIGHT)
"""Methods that ``--quick`` leaves out."""

SEEDS = (0, 1, 2)

QUICK_SETS, QUICK_IMAGES, QUICK_TEST = ("membrane", "phase"), 8, 6
"""What ``--quick`` does: sets, annotated images, test images."""

QUICK_SHARE = 0.15
"""Share of the usual steps that ``--quick`` takes."""

RESULTS = Path("benchmarks/results/few_shot.jsonl")

QUICK_RESULTS = Path("benchmarks/results/few_shot_quick.jsonl")

PROBE_STEPS = 3
"""Steps that are timed to know how many fit into the seconds."""

EVALUATIONS = 13
"""Times that a study measures itself in a training."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    set: str
    images: int
    seed: int
    method: str


@dataclass(frozen=True)
class StudiedSegmenter:
    """What a study trained, with what it needs to be applied."""

    study: Study
    identity: str = "study"

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, background first."""
        return default_classes(self.study.goal.classes)

    def predict(self, image: np.ndarray) -> Prediction:
        """Segment an image ``float32 (C, Y, X)``."""
        study, network = self.study, self.study.trained
        if isinstance(study.learner, AdaptedSam) and study.learner.keeps_inputs:
            network = PromptedSam(study.learner.backbone.sam.image_encoder, network)
        probabilities, note = predict_probabilities(
            image,
            network.eval(),
            study.normalisation,
            Plan(study.view_config.framing, 1, study.device),
        )
        return Prediction(probabilities, self.classes, note)


def planned(quick: bool) -> list[Cell]:
    """List the runs, most telling first."""
    names = QUICK_SETS if quick else tuple(SETS)
    counts, seeds = ((QUICK_IMAGES,), SEEDS[:1]) if quick else (COUNTS, SEEDS)
    return [
        Cell(name, count, seed, method)
        for seed, count, name, method in product(seeds, counts, names, METHODS)
        if not (quick and method in FULL_ONLY)
    ]


def key(row: dict[str, Any]) -> Cell:
    """Return the run that a line is of."""
    return Cell(row["set"], row["images"], row["seed"], row["method"])


@cache
def weights() -> str:
    """Return the first digits of the hash of the SAM that is measured."""
    return load_backbone(PromptTuning().sam).digest[:12]


def read(out: Path) -> list[dict[str, Any]]:
    """Read the lines that are there; one that was cut off is left out."""
    rows = []
    for line in out.read_text().splitlines() if out.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def read_current(out: Path) -> list[dict[str, Any]]:
    """Read the lines that were made with the weights of the SAM in the package."""
    return [row for row in read(out) if row.get("sam") == weights()]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Results, a line a run; of --quick apart from the others."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            help="Two sets, 8 images, one seed, a seventh of the steps: ten minutes."
        ),
    ] = False,
    sets: Annotated[str, typer.Option(help="Only these sets, by commas.")] = "",
    images: Annotated[int, typer.Option(help="Only this number of images.")] = 0,
    methods: Annotated[str, typer.Option(help="Only these, by commas.")] = "",
    draws: Annotated[int, typer.Option(help="Draws of images.")] = len(SEEDS),
    minutes: Annotated[float, typer.Option(help="Begin no run after these.")] = 1e9,
) -> None:
    """Do the runs that are missing."""
    started = time.monotonic()
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {key(row): row for row in read_current(out)}
    most = QUICK_TEST if quick else TEST_IMAGES
    for cell in planned(quick):
        if sets and cell.set not in sets.split(","):
            continue
        if images and cell.images != images:
            continue
        if cell.seed not in SEEDS[:draws]:
            continue
        if methods and cell.method not in methods.split(","):
            continue
        if time.monotonic() - started > 60 * minutes:
            break
        leader = Cell(cell.set, cell.images, cell.seed, LEADER)
        if cell in done:
            continue
        budget = done[leader]["seconds"] if leader in done else 0.0
        way = leading(drawn(data, cell)) if cell == leader else cell.method
        twin = replace(cell, method=way)
        if twin not in done:
            share = QUICK_SHARE if quick else 1.0
            done[twin] = keep(in_process(data, twin, budget, most, share), out)
        if twin != cell:
            done[cell] = keep(done[twin] | {"method": LEADER}, out)


def keep(row: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write a line of the results, and return it."""
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(key(row), row.get("dice", row.get("error")), flush=True)
    return row


def drawn(data: Path, cell: Cell) -> Pairs:
    """Return the annotated images of a run."""
    return SETS[cell.set].draw(data, cell.images, cell.seed)


def leading(pairs: Pairs) -> str:
    """Return which way the package's default is, for these images."""
    config = PromptTuning()
    return LEADING[how_compared(config, load_backbone(config.sam), pairs)]


def in_process(
    data: Path, cell: Cell, budget: float, most: int, share: float
) -> dict[str, Any]:
    """Do one run in a process of its own."""
    command = [sys.executable, __file__, "one", "--data", str(data)]
    command += ["--name", cell.set, "--images", str(cell.images)]
    command += ["--seed", str(cell.seed), "--method", cell.method]
    command += ["--seconds", str(budget), "--test", str(most), "--share", str(share)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    row = {
        "sam": weights(),
        "set": cell.set,
        "images": cell.images,
        "seed": cell.seed,
        "method": cell.method,
    }
    if result.returncode:
        return row | {"error": result.stderr[-300:]}
    return row | json.loads(result.stdout.splitlines()[-1])


@app.command()
def one(
    data: Annotated[Path, typer.Option()],
    name: Annotated[str, typer.Option()],
    images: Annotated[int, typer.Option()],
    seed: Annotated[int, typer.Option()],
    method: Annotated[str, typer.Option()],
    seconds: Annotated[float, typer.Option(help="Budget; 0: as many as it takes.")],
    test: Annotated[int, typer.Option(help="Test images, at most.")] = TEST_IMAGES,
    share: Annotated[float, typer.Option(help="Share of PTSAM's usual steps.")] = 1.0,
) -> None:
    """Do one run and print its figures."""
    torch.set_num_threads(1)
    pairs = drawn(data, Cell(name, images, seed, method))
    started = time.process_time()
    segmenter, facts = trained(method, pairs, seconds, seed, share)
    facts["seconds"] = round(time.process_time() - started, 1)
    facts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(facts | measure(segmenter, SETS[name].test(data)[:test])))


def trained(
    method: str, pairs: Any, seconds: float, seed: int, share: float = 1.0
) -> tuple[AnySegmenter, dict[str, Any]]:
    """Return what a method makes of pairs, and what it trained."""
    if method == "untuned":
        return open_segmenter("nano"), {"parameters": 0, "bytes": 0}
    if method == "Otsu":
        return better_otsu(pairs), {"parameters": 0, "bytes": 0}
    if method == "U-Net":
        unet = train_unet(pairs, seconds, seed, time.process_time)
        count = sum(item.numel() for item in unet.network.parameters())
        weights = {
            key: item.contiguous() for key, item in unet.network.state_dict().items()
        }
        return unet, {"parameters": count, "bytes": len(save(weights))}
    if method == LIGHT:
        study = light(pairs, seconds, seed)
    else:
        usual = (*LEADING.values(), PUBLISHED)
        budget = 0.0 if method in usual else seconds
        study = studied(WAYS[method], pairs, budget, seed, share)
    weights = {
        name: item.detach().contiguous()
        for name, item in study.trained.named_parameters()
        if item.requires_grad and item.numel()
    }
    facts = {"parameters": trained_count(study.trained), "bytes": len(save(weights))}
    return StudiedSegmenter(study), facts | {"steps": study.parts[-1].result.steps}


def studied(
    way: Way, pairs: Any, seconds: float, seed: int, share: float = 1.0
) -> Study:
    """Train one way; with seconds given, as many steps as fit into them."""
    started = time.process_time()
    config = PromptTuning(
        learning_rate=way.learning_rate,
        batch=way.batch,
        steps=round(share * PromptTuning().steps),
        validate=None if len(pairs) >= HOLD_OUT_FROM else 0,
        seed=seed,
    )
    learner = AdaptedSam(load_backbone(config.sam), way.adaptation)

    def begin(config: PromptTuning) -> Study:
        return Study(learner, ClassGoal(pairs), config, Conduct())

    study = begin(config)
    if seconds:
        finish(study.prepare())
        left = seconds - (time.process_time() - started)
        study = begin(replace(config, steps=max(10, int(left / probe(study)))))
    finish(study.run())
    return study


def light(pairs: Any, seconds: float, seed: int) -> Study:
    """Train the light network for as many steps as fit into the seconds."""
    config = Med2dTraining(
        validate=None if len(pairs) >= HOLD_OUT_FROM else 0, seed=seed, device="cpu"
    )

    def begin(config: Med2dTraining) -> Study:
        return Study(WholeNetwork.of(config), ClassGoal(pairs), config, Conduct())

    steps = max(10, int(seconds / probe(begin(config))))
    study = begin(replace(config, steps=steps))
    finish(study.run())
    return study


def probe(study: Study) -> float:
    """Return the seconds of a step, with its share of the evaluations."""
    split = study.splits[0] if study.splits else None
    training = split.training if split else tuple(range(len(study.pairs)))
    model = study.model(training)
    config = FitConfig(steps=PROBE_STEPS + 1, learning_rate=1e-5)
    job = fit(model, Supervised(), study.batches(training), config)
    times = [time.process_time() for _ in job]
    step = (times[-1] - times[0]) / PROBE_STEPS
    if split is None:
        return step
    began = time.process_time()
    study.score(model, split.held_out[:1])
    evaluation = (time.process_time() - began) * len(split.held_out)
    return step + evaluation * EVALUATIONS / PromptTuning().steps


def measure(segmenter: AnySegmenter, pairs: Any) -> dict[str, Any]:
    """Return mean Dice and IoU of the foreground over the test images."""
    rows = []
    for index, pair in enumerate(pairs):
        with torch.inference_mode():
            found = segmenter.predict(pair.image).labels > 0
        truth = pairs.targets(index) == 1
        rows.append((metrics.dice(found, truth), metrics.iou(found, truth)))
    dice, iou = np.nanmean(rows, axis=0)
    return {
        "dice": round(float(dice), 4),
        "iou": round(float(iou), 4),
        "test": len(rows),
    }


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
    curve: Annotated[
        Path | None, typer.Option(help="Picture of Dice by number of images.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of images.")] = len(SEEDS),
) -> None:
    """Print the tables of the documentation, and draw the curve."""
    found = [row for row in read_current(out) if "dice" in row]
    rows = [row for row in found if row["seed"] in SEEDS[:draws]]
    for count in sorted({row["images"] for row in rows}, reverse=True):
        print(f"\n{count} annotated images; Dice on images never tuned on\n")
        print(dice_table([row for row in rows if row["images"] == count]))
    most = max(row["images"] for row in rows)
    print(f"\nAt {most} images, means over the sets\n")
    print(cost_table([row for row in rows if row["images"] == most]))
    if curve is not None:
        draw(rows, curve)


def dice_table(rows: list[dict[str, Any]]) -> str:
    """Return sets × methods in Markdown, the spread over seeds where there is one."""
    lines = ["| set | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for name in SETS:
        texts = []
        for method in METHODS:
            found = _values(rows, name, method, "dice")
            spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
            texts.append(f"{np.mean(found):.3f}{spread}" if found else "")
        if any(texts):
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def cost_table(rows: list[dict[str, Any]]) -> str:
    """Return what each method costs, in Markdown."""
    lines = [
        "| method | numbers trained | file | seconds | peak memory | Dice | IoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        found = [row for row in rows if row["method"] == method]
        if found:
            mean = {
                name: float(np.mean([row[name] for row in found]))
                for name in ("parameters", "bytes", "seconds", "peak_mb", "dice", "iou")
            }
            cells = (
                method,
                f"{mean['parameters']:,.0f}",
                f"{mean['bytes'] / 1e3:,.0f} kB",
                f"{mean['seconds']:.0f}",
                f"{mean['peak_mb'] / 1e3:.1f} GB",
                f"{mean['dice']:.3f}",
                f"{mean['iou']:.3f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _values(
    rows: list[dict[str, Any]], name: str, method: str, figure: str
) -> list[float]:
    """Return a figure of a set and a method, one value a seed."""
    return [
        row[figure] for row in rows if (row["set"], row["method"]) == (name, method)
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw Dice by number of images: a panel a set, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = {
        name: sorted({row["images"] for row in rows if row["set"] == name})
        for name in SETS
    }
    names = [name for name, found in counts.items() if len(found) > 1]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, panels = pyplot.subplots(
        lines,
        columns,
        figsize=(2.6 * columns, 2.9 * lines + 0.6),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    # what the default amounts to is drawn as the default
    methods = [method for method in METHODS if method not in LEADING.values()]
    colours = dict(zip(methods, pyplot.colormaps["tab10"].colors, strict=False))
    for name, axes in zip(names, panels.flat, strict=False):
        for method in methods:
            points = [
                (count, float(np.mean(found)))
                for count in counts[name]
                if (found := _values_at(rows, name, method, count))
            ]
            if len(points) > 1:
                style = {"marker": "o", "markersize": 4, "color": colours[method]}
                axes.plot(*zip(*points, strict=True), label=method, **style)
        axes.set_title(name, fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts[name], [str(count) for count in counts[name]])
        axes.set_xlabel("annotated images")
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("Dice")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)


def _values_at(
    rows: list[dict[str, Any]], name: str, method: str, count: int
) -> list[float]:
    """Return Dice of a set and a method with a number of images."""
    of_count = [row for row in rows if row["images"] == count]
    return _values(of_count, name, method, "dice")


if __name__ == "__main__":
    app()
