"""Objects without annotation: SAM everything against what else needs no training.

    python benchmarks/everything.py --data DIR [--sets fluo,phase,histo] [--images 8]

Average precision at IoU 0.5 and 0.75 and panoptic quality on test images that neither
`nano` was trained on nor its settings were chosen by: all objects that the bundled SAM
finds at a grid of points, the same SAM untuned with the watershed of its probability,
and Otsu's threshold with the watershed, of bright and of dark objects. Seconds are
those of the processor, in one thread, reading not included.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from few_shot import read
from objects import score
from sets import SETS

from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ObjectConfig

WAYS = {
    "SAM everything": "everything",
    "SAM untuned, watershed": "nano",
    "Otsu (bright), watershed": "otsu",
    "Otsu (dark), watershed": "otsu_dark",
}
"""What is compared."""

CHOSEN_BY = {"fluo": 7, "phase": 4, "histo": 3}
"""Test images, from the first, that the settings of `nano` were chosen by."""


def run_way(model: str, test: Any) -> dict[str, Any]:
    """Segment the images and score the objects."""
    segmenter = open_segmenter(model, "cpu")
    started = time.process_time()
    predictions = [segmenter.predict(pair.image) for pair in test]
    seconds = (time.process_time() - started) / len(test)
    facts = {"images": len(test), "seconds": round(seconds, 2)}
    return facts | score(predictions, test, ObjectConfig())


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    sets: Annotated[str, typer.Option(help="Sets, by commas.")] = "fluo,phase,histo",
    images: Annotated[int, typer.Option(help="Images a set, at most.", min=1)] = 8,
    out: Annotated[Path, typer.Option(help="Results, a line a way.")] = Path(
        "benchmarks/results/everything.jsonl"
    ),
) -> None:
    """Measure, and print the table in Markdown."""
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["set"], row["way"]) for row in read(out)}
    for name in sets.split(","):
        first = CHOSEN_BY[name]
        paths = SETS[name].paths(data)[1][first : first + images]
        test = SETS[name].pairs(paths)
        for way, model in WAYS.items():
            if (name, way) in done:
                continue
            row = {"set": name, "way": way} | run_way(model, test)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print("| set | way | images | seconds an image | AP@0.5 | AP@0.75 | PQ |")
    print("|---|---|---|---|---|---|---|")
    for row in sorted(read(out), key=lambda row: (row["set"], -row["seconds"])):
        figures = " | ".join(f"{row[name]:.3f}" for name in ("ap50", "ap75", "pq"))
        facts = f"{row['way']} | {row['images']} | {row['seconds']:.1f}"
        print(f"| {row['set']} | {facts} | {figures} |")


if __name__ == "__main__":
    typer.run(main)
