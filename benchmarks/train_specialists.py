"""Tune the specialists that come with the package, and say how well they do.

    python benchmarks/train_specialists.py --data DIR [--out FOLDER] [--overwrite]

Each is a prompt file (PTSAM on ``nano``) of a few kilobytes. It is tuned on at most 64
images of its set, none of which was held out from ``nano``, and measured on up to 40
that were: so neither the prompts nor the SAM underneath have seen those. Beside it the
untuned SAM and Otsu's threshold. The figures go into the card of the model file, which
is written last; specialists whose file is there are not tuned again. A file holds for
the ``nano`` it was tuned on: after another training of ``nano``, add ``--overwrite``.
"""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from main_job import lay_out
from train_nano import SETS as NANO_SETS

from napari_medseg import PromptTuning, load, metrics, read_pairs
from napari_medseg._types import AnySegmenter, finish
from napari_medseg.api import train_job
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pairs
from napari_medseg.models.registry import SPECIALISTS
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.pack import is_held_out


@dataclass(frozen=True)
class Source:
    """What a specialist is tuned on.

    Attributes
    ----------
    folder : str
        Folder of the set.
    prefix : str
        What the names of the images used begin with.
    annotation : str
        What the values of the masks mean.
    found : str
        Name of the class that is found.
    data : str
        The set, in words, for the card.
    licence : str
        Of the set.
    rate : float or None
        Learning rate; where the untuned SAM finds nearly all, small steps do better.
    """

    folder: str
    prefix: str
    annotation: Literal["dense", "instances"]
    found: str
    data: str
    licence: str
    rate: float | None = None


SOURCES = {
    "nuclei-fluo": Source(
        "dsb2018_nuclei",
        "fluo_",
        "instances",
        "nucleus",
        "2018 Data Science Bowl, fluorescence",
        "CC0-1.0",
        rate=0.05,
    ),
    "nuclei-histo": Source(
        "dsb2018_nuclei",
        "histo_",
        "instances",
        "nucleus",
        "2018 Data Science Bowl, stained tissue",
        "CC0-1.0",
    ),
    "cells-phase": Source(
        "usiigaci_phase_contrast",
        "",
        "instances",
        "cell",
        "Usiigaci, phase contrast",
        "MIT",
    ),
    "outline-phase": Source(
        "bubil_multiannotator",
        "",
        "dense",
        "cell",
        "BU-BIL 1 to 3, phase contrast",
        "BSD-style, Boston University",
    ),
}
"""Where the images of each specialist come from. All may be redistributed."""


def draw(paths: list[Path], count: int) -> list[Path]:
    """Return so many of the paths, all where there are fewer; always the same."""
    order = np.random.default_rng(0).permutation(len(paths))[:count]
    return [paths[index] for index in sorted(order)]


def split(
    folder: Path, prefix: str, training: int, testing: int
) -> tuple[list[Path], list[Path]]:
    """Choose images to tune on and images to measure on, as `nano` had them."""
    *_, share = NANO_SETS[folder.name]
    paths = sorted((folder / "images").glob(f"{prefix}*"))
    unseen = [path for path in paths if is_held_out(path.stem, share)]
    seen = [path for path in paths if not is_held_out(path.stem, share)]
    if not seen or not unseen:
        raise SystemExit(f"{folder} must hold images and masks, {prefix}* among them.")
    return draw(seen, training), draw(unseen, testing)


def scores_of(segmenter: AnySegmenter, pairs: Pairs) -> dict[str, float]:
    """Return the mean Dice and IoU of the foreground."""
    dice, iou = [], []
    for index, pair in enumerate(pairs):
        target = pairs.targets(index)
        known = target >= 0
        masks = segmenter.predict(pair.image).labels[known] > 0, target[known] > 0
        dice.append(metrics.dice(*masks))
        iou.append(metrics.iou(*masks))
    return {"dice": round(mean(dice), 4), "iou": round(mean(iou), 4)}


def mean(values: Iterable[float]) -> float:
    """Return the mean as a plain number, as JSON holds it."""
    return float(np.mean(list(values)))


def make(
    name: str, data: Path, out: Path, config: PromptTuning, counts: tuple[int, int]
) -> Path:
    """Tune one specialist, measure it, and write its model file."""
    source, entry = SOURCES[name], SPECIALISTS[name]
    folder = data / source.folder
    groups = split(folder, source.prefix, *counts)
    with tempfile.TemporaryDirectory() as work:
        train, test = Path(work, "train"), Path(work, "test")
        for target, paths in zip((train, test), groups, strict=True):
            lay_out(folder, paths, target)
        pairs, unseen = (
            read_pairs(
                target / "images", target / "masks", annotation=source.annotation
            )
            for target in (train, test)
        )
        job = train_job(pairs, config, Conduct(datetime.date.today().isoformat()))
        tuned = finish(job).model_file
        # measured as its users will have it: written, and read again
        saved = load(model_file.save(Path(work, entry.file), tuned), config.device)
        bare = {"decoder_prompts": tuned.tensors["decoder_prompts"][:, :0]}
        untuned = Segmenter(replace(tuned, tensors=bare), config.device)
        test_scores = {
            **scores_of(saved, unseen),
            "images": len(unseen),
            "untuned": scores_of(untuned, unseen)["dice"],
            "otsu": scores_of(better_otsu(pairs), unseen)["dice"],
        }
    background, foreground = tuned.card.classes
    card = replace(
        tuned.card,
        title=f"{entry.title} (PTSAM on SAM {config.sam})",
        classes=(background, replace(foreground, name=source.found)),
        provenance={
            **tuned.card.provenance,
            "trained_on": [{"name": source.data, "licence": source.licence}],
        },
        scores={**tuned.card.scores, "test": test_scores},
    )
    return model_file.save(out / entry.file, replace(tuned, card=card))


def row(path: Path) -> dict[str, Any]:
    """Return the figures of a specialist, as the card in its file has them."""
    card = model_file.read_card(path)
    return {
        "title": card.title,
        "data": card.provenance["trained_on"],
        "licence": card.licence,
        "images": card.provenance["images"],
        "base_sha256": card.base["sha256"],
        **card.scores,
        "file_bytes": path.stat().st_size,
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Folder of the model files.")] = Path(
        "src/napari_medseg/weights"
    ),
    results: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/specialists.json"
    ),
    names: Annotated[str, typer.Option(help="Specialists, by commas.")] = ",".join(
        SPECIALISTS
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    training: Annotated[int, typer.Option(help="Most images tuned on.")] = 64,
    testing: Annotated[int, typer.Option(help="Most images measured on.")] = 40,
    steps: Annotated[int, typer.Option(help="Steps of tuning.")] = 400,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Tune the specialists that are missing and print their figures."""
    # by few_shot.py these kinds gain little from more, and it takes longer to use
    config = PromptTuning(
        sam="nano",
        seed=0,
        steps=steps,
        views=2,
        device=device,
        comparison="embedding",
    )
    table = json.loads(results.read_text()) if results.exists() else {}
    for folder in (out, results.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names.split(","):
        path = out / SPECIALISTS[name].file
        if overwrite or not path.exists():
            started = time.monotonic()
            own = replace(config, learning_rate=SOURCES[name].rate)
            make(name, data, out, own, (training, testing))
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        # from the card, so that table and files never disagree
        table[name] = row(path)
        results.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
        print(json.dumps(table[name], indent=2, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    typer.run(main)
