"""Touching objects: prompts for interior and border against connected components.

    python benchmarks/objects.py --data DIR [--sets phase,fluo] [--out RESULTS.json]

16 annotated images in. Average precision at IoU 0.5 and 0.75 and panoptic quality on
test images never tuned on: of `ptsam-objects`, and of plain PTSAM with connected
components and with the watershed of its probability. What is done with the same
weights of the SAM is not done again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from few_shot import read_current, weights
from sets import SETS, DataSet

from napari_medseg import matching
from napari_medseg._types import Prediction, finish
from napari_medseg.api import train_job
from napari_medseg.inference import Segmenter
from napari_medseg.instances import ObjectConfig, labels_of
from napari_medseg.io.pairs import Pairs
from napari_medseg.training.prompt_tuning import ObjectTuning, PromptTuning

IMAGES = 16

WAYS = {
    "plain, components": ("plain", ObjectConfig(split="components")),
    "plain, watershed": ("plain", ObjectConfig()),
    "objects, grown": ("objects", ObjectConfig()),
}
"""What is compared: which model, and how objects are found in its prediction."""


def score(predictions: list[Prediction], test: Pairs, config: ObjectConfig) -> dict:
    """Return the mean scores of the objects."""
    rows = []
    for prediction, pair in zip(predictions, test, strict=True):
        found = labels_of(prediction, config)
        quality = matching.panoptic_quality(found, pair.annotation)
        half, three = (
            matching.average_precision(found, pair.annotation, threshold)
            for threshold in (0.5, 0.75)
        )
        rows.append((half, three, quality.pq))
    means = np.nanmean(np.array(rows, float), axis=0).round(4).tolist()
    return dict(zip(("ap50", "ap75", "pq"), means, strict=True))


def run_set(data: Path, chosen: DataSet, seed: int) -> list[dict[str, Any]]:
    """Tune both on the same images and score all ways."""
    pairs, test = chosen.draw(data, IMAGES, seed), chosen.test(data)
    predictions, facts = {}, {}
    for name, config in (
        ("plain", PromptTuning(seed=seed)),
        ("objects", ObjectTuning(seed=seed)),
    ):
        trained = finish(train_job(pairs, config))
        segmenter = Segmenter(trained.model_file)
        predictions[name] = [segmenter.predict(pair.image) for pair in test]
        facts[name] = {
            "parameters": trained.report.parameters,
            "seconds": round(trained.report.seconds, 1),
        }
    return [
        {"way": way, "test": len(test)}
        | facts[model]
        | score(predictions[model], test, config)
        for way, (model, config) in WAYS.items()
    ]


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    sets: Annotated[str, typer.Option(help="Sets, by commas.")] = "phase,fluo",
    seeds: Annotated[int, typer.Option(help="Draws of images.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Results, a line a way.")] = Path(
        "benchmarks/results/objects.jsonl"
    ),
) -> None:
    """Measure, and print the table in Markdown."""
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = read_current(out)
    done = {(row["set"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for name in sets.split(","):
            if (name, seed) in done:
                continue
            for row in run_set(data, SETS[name], seed):
                line = {"sam": weights(), "set": name, "seed": seed} | row
                rows.append(line)
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print("| set | way | numbers | seconds | AP@0.5 | AP@0.75 | PQ |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        figures = " | ".join(f"{row[name]:.3f}" for name in ("ap50", "ap75", "pq"))
        numbers = f"{row['parameters']:,} | {row['seconds']:.0f}"
        print(f"| {row['set']} | {row['way']} | {numbers} | {figures} |")


if __name__ == "__main__":
    typer.run(main)
