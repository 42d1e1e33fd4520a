"""Segmenting by a phrase: what it chooses, what could be chosen, and Otsu.

    python benchmarks/phrase.py run --data DIR --model DIR_OR_NAME [--quick]
    python benchmarks/phrase.py table [--out RESULTS.jsonl]

``run`` goes through sets × images × τ and writes a row for each: the IoU of the
segments that the phrase chose; of the best choice among the same segments, by the truth
(an upper bound that nobody reaches without knowing the answer); of Otsu's threshold,
for bright or for dark objects, whichever is better over the set by the truth, too; and
of the whole image. Images without any object are left out, as an IoU says nothing
there. What is done is not done again. Seconds are those of the processor.
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
from numpy.typing import NDArray
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.models.classical import Otsu
from napari_medseg.models.phrase import PhraseSegmenter, open_diffusion
from napari_medseg.models.phrase_settings import PhraseConfig

PHRASES = {
    "fluo": ("nuclei", "dark background"),
    "histo": ("nuclei", "tissue background"),
    "ulcer": ("wound", "skin"),
}
"""By set: what is looked for, and what surrounds it."""

TAUS = "0.0001,0.0003,0.001,0.01,0.1,0.9,1.1"
"""From those for a model whose attention is nearly even to the published ones."""

QUICK_IMAGES = 2

RESULTS = Path("benchmarks/results/phrase.jsonl")

QUICK_RESULTS = Path("benchmarks/results/phrase_quick.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)

Mask = NDArray[np.bool_]


def iou(one: Mask, other: Mask) -> float:
    """Return the IoU of two areas, of which one at least is not empty."""
    return float((one & other).sum() / (one | other).sum())


def best_choice(segments: NDArray[np.int32], truth: Mask) -> float:
    """Return the highest IoU that any choice of whole segments has.

    With the best IoU λ a segment belongs to the choice where what it has of the truth
    is more than λ times what it has besides; so the choice is a beginning of the
    segments in the order of their share of truth.
    """
    inside = np.bincount(segments.ravel(), weights=truth.ravel())[1:]
    area = np.bincount(segments.ravel())[1:]
    order = np.argsort(-inside / area)
    hit = np.cumsum(inside[order])
    taken = np.cumsum(area[order])
    return float((hit / (truth.sum() + taken - hit)).max())


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    model: Annotated[str, typer.Option(help="Diffusion model: folder or name.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a row.")] = None,
    quick: Annotated[bool, typer.Option(help="Few images.")] = False,
    sets: Annotated[str, typer.Option(help="Only these sets, by commas.")] = "",
    window: Annotated[int, typer.Option(help="Pixels of a window; 0: as usual.")] = 0,
    timestep: Annotated[int, typer.Option(help="Of the diffusion, of 1000.")] = 300,
    taus: Annotated[str, typer.Option(help="Values of tau, by commas.")] = TAUS,
) -> None:
    """Do the rows that are missing."""
    torch.set_num_threads(1)
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    diffusion = open_diffusion(model, "cpu")
    plan = {
        "model": diffusion.digest[:12],
        "window": window,
        "timestep": timestep,
        "taus": taus,
    }
    done = {
        (row["set"], row["image"])
        for row in read(out)
        if {name: row[name] for name in plan} == plan
    }
    for name in sets.split(",") if sets else PHRASES:
        text, background = PHRASES[name]
        config = PhraseConfig(
            text, background, window=window or None, timestep=timestep
        )
        segmenter = PhraseSegmenter(diffusion, config)
        pairs = SETS[name].test(data)
        pairs = [pair for pair in pairs if pair.annotation.any()]
        for pair in pairs[: QUICK_IMAGES if quick else None]:
            if (name, pair.name) in done:
                continue
            rows = rows_of(segmenter, pair.image, pair.annotation > 0, taus)
            with out.open("a") as file:
                for row in rows:
                    facts = {"set": name, "image": pair.name, "text": text}
                    file.write(json.dumps(facts | row | plan) + "\n")
            print(name, pair.name, rows[-1], flush=True)


def rows_of(
    segmenter: PhraseSegmenter, image: NDArray[np.float32], truth: Mask, taus: str
) -> list[dict[str, Any]]:
    """Look at an image once, and measure every τ."""
    began = time.process_time()
    look = finish(segmenter.look(image))
    looked = time.process_time() - began
    others = {"whole": iou(np.ones_like(truth), truth)}
    for key, dark in (("otsu", False), ("otsu_dark", True)):
        found = Otsu(dark=dark).predict(image).probabilities[1] > 0.5
        others[key] = iou(found, truth)
    rows = []
    for tau in map(float, taus.split(",")):
        began = time.process_time()
        partition = look.partition(tau)
        merged = time.process_time() - began
        chosen = partition.likely()[partition.segments - 1] > 0.5
        row = {
            "tau": tau,
            "segments": len(partition.scores),
            "chosen": iou(chosen, truth),
            "best": best_choice(partition.segments, truth),
            "looking": looked,
            "merging": merged,
        }
        rows.append({key: round(value, 4) for key, value in (row | others).items()})
    return rows


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation, of the model that was run last."""
    rows = read(out)
    names = ("model", "window", "timestep", "taus")
    rows = [row for row in rows if all(row[n] == rows[-1][n] for n in names)]
    print(
        "| set | phrase | images | τ | segments | chosen | best choice | Otsu | whole |"
    )
    print("|---" * 9 + "|")
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        for tau in dict.fromkeys(row["tau"] for row in own):
            these = [row for row in own if row["tau"] == tau]
            mean = {
                key: float(np.mean([row[key] for row in these]))
                for key in ("segments", "chosen", "best", "otsu", "otsu_dark", "whole")
            }
            otsu = max(mean["otsu"], mean["otsu_dark"])
            print(
                f"| {name} | {these[0]['text']} | {len(these)} | {tau} | "
                f"{mean['segments']:.0f} | {mean['chosen']:.3f} | {mean['best']:.3f} | "
                f"{otsu:.3f} | {mean['whole']:.3f} |"
            )
    seconds = [
        float(np.median([row[key] for row in rows])) for key in ("looking", "merging")
    ]
    print(f"\nSeconds an image, median: looking {seconds[0]:.2f}, a τ {seconds[1]:.2f}")


if __name__ == "__main__":
    app()
