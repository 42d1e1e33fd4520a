"""How well quality is predicted without labels: of a folder, and of single images.

    python benchmarks/quality.py run --data DIR [--quick] [--sets fluo,lungs]
    python benchmarks/quality.py table

``run`` tunes the bundled SAM on 16 images of a set and keeps 12 earlier states. Those
16 are the references. Other images of the set are segmented by each state, and what
is predicted of the folder for each state, and of each image for the last, is written
beside what is true, a line each. Lines are fitted twice: to the states, and to true
masks made worse, as for a model without states. A set that is done is not done again.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import pearsonr, spearmanr
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.earlier import states_of
from napari_medseg.inference import Segmenter
from napari_medseg.io.model_file import load, save
from napari_medseg.metrics import class_scores
from napari_medseg.quality.estimating import Prepared, prepare
from napari_medseg.quality.folder import predict_folder
from napari_medseg.quality.references import fingerprint
from napari_medseg.quality.reverse import Example
from napari_medseg.quality.settings import QualitySettings
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path("benchmarks/results/quality.jsonl")

NAMES = ("fluo", "lungs", "phase", "worms", "membrane", "heart", "outline", "ulcer")
"""Sets, most telling first."""

SCORES = ("dice", "iou", "hd95")

STATES = 12
"""Earlier states of each model."""

ANNOTATED = 16
"""Images that are tuned on, and are the references."""

FULL = {"test": 60, "tuning": {"validate": 4}, "size": None}
QUICK = {
    "test": 24,
    "tuning": {"validate": 4, "steps": 80, "views": 1, "working_size": 256},
    "size": 256,
}
"""``--quick`` looks at a quarter of the pixels and takes fewer steps."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Results, a line each.")] = RESULTS,
    kept: Annotated[
        Path, typer.Option(help="Folder for models and labels, so that a run goes on.")
    ] = Path("medseg-quality"),
    quick: Annotated[bool, typer.Option(help="256 pixels a side, 80 steps.")] = False,
    sets: Annotated[str, typer.Option(help="These sets, by commas.")] = "",
    seed: Annotated[int, typer.Option(help="Of the draw and the tuning.")] = 0,
    seconds: Annotated[
        float, typer.Option(help="Stop after so many seconds of the processor.")
    ] = float("inf"),
) -> None:
    """Do the sets that are missing."""
    torch.set_num_threads(1)
    done = {(row["set"], row["seed"], row["quick"]) for row in read(out)}
    for name in sets.split(",") if sets else NAMES:
        if (name, seed, quick) in done:
            continue
        how = QUICK if quick else FULL
        place = kept / f"{name}-{seed}-{'quick' if quick else 'full'}"
        place.mkdir(parents=True, exist_ok=True)
        for path in prepared_images(name, data, place, seed, how):
            print(name, path, flush=True)
            if time.process_time() > seconds:
                raise typer.Exit
        which = {"set": name, "seed": seed, "quick": quick}
        rows = measured(name, data, place, seed, how)
        with out.open("a") as file:
            file.writelines(json.dumps(which | row) + "\n" for row in rows)
        print(name, len(rows), flush=True)


def prepared_images(
    name: str, data: Path, place: Path, seed: int, how: dict[str, Any]
) -> Iterator[Path]:
    """Tune, and segment each image by each state; give what was written."""
    chosen = SETS[name]
    model = place / "model.medseg"
    if not model.exists():
        pairs = chosen.draw(data, ANNOTATED, seed)
        config = PromptTuning(
            snapshots=STATES, seed=seed, device="cpu", **how["tuning"]
        )
        save(model, finish(tune(pairs, config)).model_file)
        yield model
    states: tuple[Any, ...] = ()
    for path in others(name, data, seed, how["test"]):
        target = place / f"{path.stem}.npz"
        if target.exists():
            continue
        states = states or states_of(Segmenter(load(model), "cpu"))
        pair, truth = chosen.pair(path), chosen.pairs([path]).targets(0)
        labels, scores = [], []
        for state in states:
            prediction = state.predict(pair.image)
            labels.append(prediction.labels.astype(np.uint8))
            found = class_scores(prediction.labels, truth)
            scores.append([found[score] for score in SCORES])
        shares = prediction.probabilities
        sure = shares.max(0)
        objects = labels[-1] > 0
        signs = [
            sure.mean(),
            sure[objects].mean() if objects.any() else np.nan,
            -(shares * np.log(shares + 1e-9)).sum(0).mean(),
        ]
        np.savez_compressed(target, labels=labels, scores=scores, signs=signs)
        yield target


def others(name: str, data: Path, seed: int, count: int) -> list[Path]:
    """Return images of a set that are neither tuned on nor references."""
    chosen = SETS[name]
    taken = {pair.name for pair in chosen.draw(data, ANNOTATED, seed)}
    found = sorted((data / chosen.folder / "images").glob(f"{chosen.prefix}*"))
    rest = [path for path in found if path.stem not in taken]
    order = np.random.default_rng(1).permutation(len(rest))[:count]
    return [rest[index] for index in order]


def measured(
    name: str, data: Path, place: Path, seed: int, how: dict[str, Any]
) -> list[dict[str, Any]]:
    """Predict what was segmented; return the lines of a set."""
    chosen = SETS[name]
    pairs = chosen.draw(data, ANNOTATED, seed)
    segmenter = Segmenter(load(place / "model.medseg"), "cpu")
    states = states_of(segmenter)
    settings = QualitySettings(device="cpu", working_size=how["size"])
    classes = len(segmenter.classes)
    by = {
        "states": finish(prepare(pairs, classes, settings, states)),
        "worse": finish(prepare(pairs, classes, settings)),
    }
    rows: list[dict[str, Any]] = []
    examples: list[list[tuple[Example, ...]]] = []
    real: list[list[dict[str, float]]] = []
    for path in others(name, data, seed, how["test"]):
        image = chosen.pair(path).image
        started = time.process_time()
        looks = by["states"].judge.annotated.looker.looks(image, 9)
        looked = time.process_time() - started
        with np.load(place / f"{path.stem}.npz") as file:
            signs = file["signs"]
            scores = [dict(zip(SCORES, row, strict=True)) for row in file["scores"]]
            labels = file["labels"].astype(np.int32)
        seen = [
            tuple(Example(look, look.cells(each)) for look in looks) for each in labels
        ]
        examples.append(seen)
        real.append(scores)
        row = image_row(fingerprint(image), seen[-1], scores[-1], by)
        row["seconds"] = round(looked + row["seconds"], 3)
        names = ("confidence", "object_confidence", "entropy")
        signed = {key: plain(sign) for key, sign in zip(names, signs, strict=True)}
        rows.append({"kind": "image", "name": path.stem, **signed, **row})
    return rows + [
        folder_row(place, [each[place] for each in examples], real, by)
        for place in range(len(states))
    ]


def image_row(
    owner: str,
    examples: tuple[Example, ...],
    real: dict[str, float],
    by: dict[str, Prepared],
) -> dict[str, Any]:
    """Return what is predicted of one image, and what is true."""
    row: dict[str, Any] = {}
    for name, prepared in by.items():
        started = time.process_time()
        judged = prepared.judge.judged(examples, owner)
        row["seconds"] = time.process_time() - started
        for score in SCORES:
            row[f"real_{score}"] = plain(real[score])
            row[f"reverse_{score}"] = plain(judged.reverse[score])
            row[f"forward_{score}"] = plain(judged.forward[score])
            row[f"{name}_{score}"] = [plain(each) for each in judged.predicted[score]]
    return row


def folder_row(
    place: int,
    examples: list[tuple[Example, ...]],
    real: list[list[dict[str, float]]],
    by: dict[str, Prepared],
) -> dict[str, Any]:
    """Return what is predicted of the folder for one state, and what is true."""
    row: dict[str, Any] = {"kind": "folder", "state": place}
    for name, prepared in by.items():
        predicted, reverse = predict_folder(prepared.judge, prepared.folder, examples)
        for score in SCORES:
            values = [each[place][score] for each in real]
            row[f"real_{score}"] = plain(float(np.nanmean(values)))
            row[f"reverse_{score}"] = plain(reverse.get(score, float("nan")))
            row[f"{name}_{score}"] = [plain(each) for each in predicted[score]]
    return row


def plain(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return round(float(value), 5) if np.isfinite(value) else None


def read(out: Path) -> list[dict[str, Any]]:
    """Read the lines that are there; one that was cut off is left out."""
    rows = []
    for line in out.read_text().splitlines() if out.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results, a line each.")] = RESULTS,
    score: Annotated[str, typer.Option(help="dice, iou or hd95.")] = "dice",
) -> None:
    """Print the tables in Markdown."""
    images, folders = defaultdict(list), defaultdict(list)
    for row in read(out):
        target = images if row["kind"] == "image" else folders
        target[f"{row['set']}{' (quick)' if row['quick'] else ''}"].append(row)
    print("| set | states | r | MAE | covered | MAE, worse | covered |")
    print("|" + " --- |" * 7)
    for name, rows in folders.items():
        cells = [correlation(rows, score)]
        cells += [figures(rows, by, score) for by in ("states", "worse")]
        print(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    print()
    ranks = ("both", "reverse", "forward", "object confidence", "entropy")
    print(f"| set | images | {' | '.join(f'ρ {rank}' for rank in ranks)} |", end="")
    print(" worst tenth in first fifth: both | object confidence | MAE | covered |")
    print("|" + " --- |" * 11)
    for name, rows in images.items():
        print(f"| {name} | {len(rows)} | {' | '.join(image_figures(rows, score))} |")


def correlation(rows: list[dict[str, Any]], score: str) -> str:
    """Return Pearson's r of reverse and real scores over the states."""
    both = [(row[f"reverse_{score}"], row[f"real_{score}"]) for row in rows]
    known = [pair for pair in both if None not in pair]
    return f"{pearsonr(*zip(*known, strict=True)).statistic:.3f}"


def figures(rows: list[dict[str, Any]], by: str, score: str) -> str:
    """Return the mean error, and how many true values are within the interval."""
    known = [
        (row[f"real_{score}"], *row[f"{by}_{score}"])
        for row in rows
        if row[f"{by}_{score}"][0] is not None and row[f"real_{score}"] is not None
    ]
    if not known:
        return "— | —"
    wrong = np.mean([abs(real - value) for real, value, *_ in known])
    inside = sum(low <= real <= high for real, _, low, high in known)
    return f"{wrong:.3f} | {inside} of {len(known)}"


def image_figures(rows: list[dict[str, Any]], score: str) -> list[str]:
    """Return rank correlations, shares, error and coverage of single images."""
    better = -1 if score == "hd95" else 1
    ranks = {
        "both": [together(row, score, better) for row in rows],
        "reverse": [signed(row[f"reverse_{score}"], better) for row in rows],
        "forward": [signed(row[f"forward_{score}"], better) for row in rows],
        "object confidence": [row["object_confidence"] for row in rows],
        "entropy": [-row["entropy"] for row in rows],
    }
    real = [signed(row[f"real_{score}"], better) for row in rows]
    found = [f"{spearman(values, real):.2f}" for values in ranks.values()]
    found += [
        f"{worst_share(ranks[name], real):.0%}"
        for name in ("both", "object confidence")
    ]
    known = [
        (row[f"real_{score}"], *row[f"states_{score}"])
        for row in rows
        if row[f"states_{score}"][0] is not None and row[f"real_{score}"] is not None
    ]
    if not known:
        return [*found, "—", "—"]
    wrong = np.mean([abs(truth - value) for truth, value, *_ in known])
    inside = np.mean([low <= truth <= high for truth, _, low, high in known])
    return [*found, f"{wrong:.3f}", f"{inside:.0%} of {len(known)}"]


def signed(value: float | None, better: int) -> float | None:
    """Return a score so that more is better."""
    return value if value is None else better * value


def together(row: dict[str, Any], score: str, better: int) -> float | None:
    """Return the mean of both signs, of those that have a value."""
    both = [row[f"{sign}_{score}"] for sign in ("reverse", "forward")]
    known = [value for value in both if value is not None]
    return better * sum(known) / len(known) if known else None


def spearman(values: list[Any], real: list[Any]) -> float:
    """Return the rank correlation over images that have both."""
    pairs = [pair for pair in zip(values, real, strict=True) if None not in pair]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def worst_share(values: list[Any], real: list[Any]) -> float:
    """Return which share of the worst tenth the first fifth of a list holds."""
    # what has no value comes first in the list
    order = np.argsort([-1e9 if value is None else value for value in values])
    truth = np.argsort([-1e9 if value is None else value for value in real])
    first = set(order[: -(-len(order) // 5)].tolist())
    worst = truth[: max(1, len(truth) // 10)].tolist()
    return float(np.mean([index in first for index in worst]))


if __name__ == "__main__":
    app()
