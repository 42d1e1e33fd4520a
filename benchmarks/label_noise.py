"""What wrong labels cost, and how much of it is won back by doubting them.

    python benchmarks/label_noise.py run --data DIR [--quick] [--minutes M]
    python benchmarks/label_noise.py run --data DIR --segmenter med2d
    python benchmarks/label_noise.py table [--out RESULTS.jsonl]

``--quick`` is one set, one level, 16 images with one changed view each.

Sets × seeds × levels of noise × ways to train: on the clean labels, on the noisy ones
as they are, and on the noisy ones with ``--label-noise spatial``. All ways get the same
images, views, embeddings, steps and held-out images (whose labels are as noisy); Dice
is that on clean labels of test images. PTSAM learns, or with ``--segmenter med2d`` the
light network from scratch, which sees no image twice alike. Where labels were doubted,
it is also measured how well the suspect labels are those that were made wrong. Each
line of the results is a run; what is done is not done again, and ``--minutes`` ends
between two runs.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from corruption import CONTOURS, OBJECTS, corrupt_contour, corrupt_objects
from few_shot import StudiedSegmenter, measure, read, read_current, weights
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.io.images import read_annotation
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.backbone import load_backbone
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.learners import AdaptedSam, Learner, WholeNetwork
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.noisy import find_suspects, spatial_noise
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.study import Study, supervised
from napari_medseg.training.tuning import Prompts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from torch import Tensor

    from napari_medseg.models.backbone import Backbone
    from napari_medseg.training.settings import TrainingSettings
    from napari_medseg.training.study import ObjectiveFactory

    Learns: TypeAlias = Callable[[int], tuple[TrainingSettings, Learner]]

RESULTS = Path("benchmarks/results/label_noise.jsonl")

QUICK_RESULTS = Path("benchmarks/results/label_noise_quick.jsonl")

SEEDS = (0, 1, 2)

WAYS = ("plain", "spatial")

STEPS = {"ptsam": 300, "med2d": 600}
"""Steps of every way, by what learns: from noisy labels it takes longer than usual to
find what is wanted, and a network begins from nothing."""

QUICK_TASK, QUICK_IMAGES, QUICK_TEST, QUICK_VIEWS = "lungs", 16, 12, 1

LEVELS = ("middle", "high", "low")
"""Most telling first."""


@dataclass(frozen=True)
class Noisy:
    """A set with a kind of noise.

    Attributes
    ----------
    set : str
        Of `sets.SETS`.
    images, test : int
        Images to train on, and to measure on.
    kind : str
        ``contours``, ``objects``, or ``expert``: the masks of one person.
    """

    set: str
    images: int
    test: int
    kind: str


TASKS = {
    "lungs": Noisy("lungs", 48, 40, "contours"),
    "nuclei": Noisy("fluo", 32, 40, "objects"),
    "outline": Noisy("outline", 20, 16, "expert"),
}
"""The comparisons by name."""


class Remembering:
    """A SAM that embeds no window twice, so that all ways share their embeddings.

    Parameters
    ----------
    backbone : Backbone
        The SAM.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._known: dict[bytes, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def embed(self, inputs: Tensor, device: torch.device, fineness: int = 1) -> Tensor:
        """Return the embedding of a window, computed or remembered."""
        key = inputs.numpy().tobytes()
        if key not in self._known:
            self._known[key] = self._backbone.embed(inputs, device, fineness)
        return self._known[key]


def images_of(name: str, data: Path, seed: int) -> tuple[Pairs, Pairs]:
    """Return images to train on and images to measure on, with clean labels.

    Of sets that the bundled SAM was trained on, both are images it was not.
    """
    task = TASKS[name]
    source = SETS[task.set]
    pool, _ = source.paths(data)
    found = sorted((data / source.folder / "images").glob(f"{source.prefix}*"))
    apart = [path for path in found if path not in set(pool)]
    order = np.random.default_rng(1).permutation(len(apart))
    test, rest = order[: task.test], order[task.test :]
    drawn = [apart[index] for index in rest] if source.seen else pool
    picked = np.random.default_rng(seed).permutation(len(drawn))[: task.images]
    return (
        source.pairs([drawn[index] for index in picked]),
        source.pairs([apart[index] for index in sorted(test)]),
    )


def corrupted(name: str, clean: Pairs, level: str, seed: int, data: Path) -> Pairs:
    """Return the pairs with labels made worse."""
    kind = TASKS[name].kind
    worse = [
        replace(pair, annotation=_worse(pair, kind, level, (seed, index), data))
        for index, pair in enumerate(clean)
    ]
    return gather(worse, annotation=clean.annotation_kind)


def _worse(
    pair: Pair, kind: str, level: str, seed: tuple[int, int], data: Path
) -> np.ndarray:
    rng = np.random.default_rng((7, *seed))
    if kind == "contours":
        return corrupt_contour(pair.annotation, CONTOURS[level], rng)
    if kind == "objects":
        return corrupt_objects(pair.annotation, OBJECTS[level], rng)
    folder = data / SETS["outline"].folder / "masks_experts"
    person = f"Person{seed[0] % 3 + 1}_ImageJ"
    (path,) = folder.glob(f"*{person}/{pair.name}.*")
    return (read_annotation(path).labels > 0).astype(np.int32)


def trained(
    learns: Learns, pairs: Pairs, seed: int, objective: ObjectiveFactory
) -> Study:
    """Train one way."""
    config, learner = learns(seed)
    study = Study(learner, ClassGoal(pairs), config, Conduct(), objective)
    finish(study.run())
    return study


def ptsam(backbone: Any, views: int | None) -> Learns:
    """Return how prompts of a SAM begin, by the seed.

    Wrong labels shall not change how finely they are compared.
    """

    def begin(seed: int) -> tuple[TrainingSettings, Learner]:
        config = PromptTuning(seed=seed, steps=STEPS["ptsam"], views=views)
        return config, AdaptedSam(
            backbone, Prompts.of(config, "embedding"), None, views
        )

    return begin


def med2d(seed: int) -> tuple[TrainingSettings, Learner]:
    """Return how the light network begins."""
    config = Med2dTraining(seed=seed, steps=STEPS["med2d"], device="cpu")
    return config, WholeNetwork.of(config)


def found_wrong(study: Study, clean: Pairs) -> dict[str, float]:
    """Compare the suspect labels with those that were made wrong.

    Precision and recall over the pixels of all images, and the area under the curve
    of precision and recall over the images' share of wrong labels.
    """
    right = found = made = 0
    shares = []
    for index, suspect in enumerate(finish(find_suspects(study))):
        wrong = clean.targets(index) != study.pairs.targets(index)
        doubted = suspect.probability > 0.5
        right += int((wrong & doubted).sum())
        found += int(doubted.sum())
        made += int(wrong.sum())
        shares.append((float(wrong.mean()), suspect.share))
    ranks = np.argsort(np.argsort(np.array(shares), axis=0), axis=0)
    return {
        "precision": round(right / found, 4) if found else float("nan"),
        "recall": round(right / made, 4) if made else float("nan"),
        "rank_correlation": round(float(np.corrcoef(ranks.T)[0, 1]), 4),
        "wrong": round(float(np.mean([share[0] for share in shares])), 4),
    }


def planned(
    quick: bool, names: list[str], seeds: list[int]
) -> list[tuple[str, int, str, str]]:
    """List the runs (task, seed, level, way), most telling first."""
    levels = LEVELS[:1] if quick else LEVELS
    runs = []
    for level in levels:
        for name in names:
            for seed in seeds:
                if TASKS[name].kind == "expert" and level != LEVELS[0]:
                    continue
                runs += [(name, seed, level, way) for way in WAYS]
                runs += [(name, seed, "none", "plain")] * (level == LEVELS[0])
    return runs


app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[bool, typer.Option(help="One seed, the middle level.")] = False,
    segmenter: Annotated[str, typer.Option(help="ptsam, or med2d.")] = "ptsam",
    only: Annotated[str, typer.Option(help="Only these tasks, by commas.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds, by commas.")] = "",
    minutes: Annotated[float, typer.Option(help="Begin no run after these.")] = 1e9,
) -> None:
    """Do the runs that are missing."""
    started = time.monotonic()
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    keys = ("task", "seed", "level", "way")
    done = {tuple(row[key] for key in keys) for row in of_segmenter(out, segmenter)}
    learns: dict[tuple[str, int], Learns] = {}
    names = [QUICK_TASK] if quick else only.split(",") if only else [*TASKS]
    chosen = [int(seed) for seed in seeds.split(",") if seed]
    chosen = chosen or list(SEEDS[:1] if quick else SEEDS)
    for name, seed, level, way in planned(quick, names, chosen):
        if (name, seed, level, way) in done:
            continue
        if time.monotonic() - started > 60 * minutes:
            break
        if (name, seed) not in learns:
            # the runs of one set and seed share their embeddings
            learns = {(name, seed): learning(segmenter, quick)}
        row = one(learns[name, seed], data, name, seed, level, way, quick)
        with out.open("a") as file:
            known = {"sam": weights(), "segmenter": segmenter}
            file.write(json.dumps(known | row) + "\n")
        print(json.dumps(row), flush=True)


def learning(segmenter: str, quick: bool) -> Learns:
    """Return how a segmenter begins."""
    if segmenter == "med2d":
        return med2d
    backbone = Remembering(load_backbone(PromptTuning().sam))
    return ptsam(backbone, QUICK_VIEWS if quick else None)


def of_segmenter(out: Path, segmenter: str) -> list[dict[str, Any]]:
    """Return the rows of a segmenter; of PTSAM those of the SAM in the package."""
    rows = read_current(out) if segmenter == "ptsam" else read(out)
    return [row for row in rows if row.get("segmenter", "ptsam") == segmenter]


def one(
    learns: Learns,
    data: Path,
    name: str,
    seed: int,
    level: str,
    way: str,
    quick: bool,
) -> dict[str, Any]:
    """Do one run."""
    clean, test = images_of(name, data, seed)
    if quick:
        clean, test = clean[:QUICK_IMAGES], test[:QUICK_TEST]
    given = clean if level == "none" else corrupted(name, clean, level, seed, data)
    began = time.monotonic()
    objective = spatial_noise if way == "spatial" else supervised
    study = trained(learns, given, seed, objective)
    seconds = time.monotonic() - began
    facts = {
        "task": name,
        "seed": seed,
        "level": level,
        "way": way,
        "best_step": study.parts[-1].result.best_step,
        "held_out": [
            round(entry["score"], 3) for entry in study.parts[-1].result.history
        ],
        "seconds": round(seconds, 1),
        **measure(StudiedSegmenter(study), test),
    }
    return facts | (found_wrong(study, clean) if way == "spatial" else {})


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
    segmenter: Annotated[str, typer.Option(help="What learned.")] = "ptsam",
) -> None:
    """Print the table of the documentation."""
    rows = of_segmenter(out, segmenter)
    print("| task | level | clean | plain | spatial | gap closed | wrong | suspect |")
    print("|---|---|---|---|---|---|---|---|")
    for name in TASKS:
        for level in CONTOURS:
            line = _line([row for row in rows if row["task"] == name], level)
            if line:
                print(f"| {name} | {level} | {line} |")


def _line(rows: list[dict[str, Any]], level: str) -> str:
    """Return one line: means over the seeds that all ways have, and their spread."""
    ways = {"clean": ("none", "plain"), "plain": (level, "plain")}
    ways["spatial"] = (level, "spatial")
    found = {
        title: {
            row["seed"]: row for row in rows if (row["level"], row["way"]) == wanted
        }
        for title, wanted in ways.items()
    }
    seeds = sorted(set.intersection(*(set(item) for item in found.values())))
    if not seeds:
        return ""
    dice = {
        title: np.array([item[seed]["dice"] for seed in seeds])
        for title, item in found.items()
    }
    spread = len(seeds) > 1
    texts = [
        f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if spread else "")
        for values in dice.values()
    ]
    gap = dice["clean"].mean() - dice["plain"].mean()
    won = dice["spatial"].mean() - dice["plain"].mean()
    figures = {
        key: np.nanmean([found["spatial"][seed][key] for seed in seeds])
        for key in ("wrong", "precision", "recall", "rank_correlation")
    }
    texts.append(f"{won:+.3f} of {gap:.3f}")
    texts.append(f"{figures['wrong']:.1%}")
    texts.append(
        f"P {figures['precision']:.2f}, R {figures['recall']:.2f}, "
        f"ranks {figures['rank_correlation']:.2f}"
    )
    return " | ".join(texts)


if __name__ == "__main__":
    app()
