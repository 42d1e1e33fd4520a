"""Train the networks that come with the package, and say how well they do.

    python benchmarks/train_networks.py --data DIR --work FOLDER [--minutes 20]

Each is a Med-2D SegNet, trained whole by the package's own training on all kinds of
images of its parts, and measured on the very images that the specialists of
`train_specialists.py` are measured on, each kind by itself: Otsu's threshold and the
specialist for that kind beside it. Minutes are those of the processor, so that what
else the computer does makes no difference; the steps are planned to fit and kept in
``--work``, as checkpoints are, from which a run that was cut off goes on. The files
hold half precision, and are measured as they are. Networks whose file is there are not
trained again.
"""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from main_job import lay_out
from networks import steps_within
from train_specialists import SOURCES, Source, scores_of, split

from napari_medseg import load, read_pairs
from napari_medseg._types import AnySegmenter, finish
from napari_medseg.api import train_job
from napari_medseg.io import model_file
from napari_medseg.io.model_file import ModelFile
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models import bundled
from napari_medseg.models.registry import SPECIALISTS
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.whole import study_of

BRIGHT = Source(
    "dsb2018_nuclei",
    "bf_",
    "instances",
    "nucleus",
    "2018 Data Science Bowl, bright field",
    "CC0-1.0",
)
"""The kind of nuclei that no specialist is for: few images."""


@dataclass(frozen=True)
class Shelved:
    """A network of the shelf.

    Attributes
    ----------
    kinds : mapping of str to Source
        Where its images come from, by the specialist for that kind if there is one.
    most : int
        Images of a kind that are trained on, at most, so that none drowns the others.
    """

    kinds: Mapping[str, Source]
    most: int


NETWORKS = {
    "med2d-nuclei": Shelved(
        {
            "nuclei-fluo": SOURCES["nuclei-fluo"],
            "nuclei-histo": SOURCES["nuclei-histo"],
            "nuclei-bright": BRIGHT,
        },
        most=160,
    ),
    "med2d-phase": Shelved(
        {name: SOURCES[name] for name in ("cells-phase", "outline-phase")}, most=36
    ),
}
"""What is trained, by its name in the registry. All may be redistributed."""


@dataclass(frozen=True)
class Kind:
    """The images of one kind, as they are.

    Attributes
    ----------
    training : Pairs
        To train on.
    unseen : Pairs
        To measure on, trained on by neither this network nor `nano`.
    """

    training: Pairs
    unseen: Pairs


def read_kind(data: Path, source: Source, counts: tuple[int, int]) -> Kind:
    """Read the images of a kind, so many to train on and so many to measure on."""
    folder = data / source.folder
    groups = split(folder, source.prefix, *counts)
    found = []
    for paths in groups:
        with tempfile.TemporaryDirectory() as work:
            target = Path(work)
            lay_out(folder, paths, target)
            places = (target / "images", target / "masks")
            found.append(read_pairs(*places, annotation=source.annotation))
    return Kind(*found)


def together(kinds: Iterable[Kind]) -> Pairs:
    """Put the training images of all kinds together: one channel, one class.

    The one channel is the first: of colour images red, in which stained nuclei stand
    out most.
    """
    pairs = [pair for kind in kinds for pair in kind.training]
    return gather(map(_plain, pairs), annotation="dense")


def _plain(pair: Pair) -> Pair:
    """Return a pair with its first channel, and foreground alone."""
    shown = (pair.annotation != 0).astype(np.int32)
    return Pair(pair.name, pair.image[:1], shown, pair.image_path, pair.annotation_path)


def planned(pairs: Pairs, config: Med2dTraining, minutes: float, note: Path) -> int:
    """Return the steps that fit into minutes of the processor, or were noted before."""
    if note.exists():
        return int(json.loads(note.read_text())["steps"])
    steps = steps_within(study_of(ClassGoal(pairs), config), 60.0 * minutes)
    note.write_text(json.dumps({"steps": steps}) + "\n")
    return steps


def make(name: str, kinds: Mapping[str, Kind], out: Path, trained: ModelFile) -> Path:
    """Measure a network as its users will have it, and write its model file."""
    entry = SPECIALISTS[name]
    half = model_file.halved(trained)
    with tempfile.TemporaryDirectory() as work:
        saved = load(model_file.save(Path(work, entry.file), half), "cpu")
    sources = NETWORKS[name].kinds
    background, foreground = half.card.classes
    (found,) = {source.found for source in sources.values()}
    card = replace(
        half.card,
        title=f"{entry.title} (Med-2D SegNet)",
        classes=(background, replace(foreground, name=found)),
        licence="BSD-3-Clause",
        provenance={
            **half.card.provenance,
            "trained_on": [
                {"name": source.data, "licence": source.licence}
                for source in sources.values()
            ],
        },
        scores={**half.card.scores, "test": test_scores(saved, kinds)},
    )
    return model_file.save(out / entry.file, replace(half, card=card))


def test_scores(segmenter: AnySegmenter, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the scores of each kind of unseen images, and their means over all."""
    rows = {}
    for name, kind in kinds.items():
        otsu = better_otsu(kind.training)
        rows[name] = {
            **scores_of(segmenter, kind.unseen),
            "images": len(kind.unseen),
            "otsu": scores_of(otsu, kind.unseen)["dice"],
        }
    shares = [row["images"] for row in rows.values()]
    over_all = {
        figure: round(
            float(np.average([row[figure] for row in rows.values()], weights=shares)), 4
        )
        for figure in ("dice", "iou", "otsu")
    }
    return {**over_all, "images": sum(shares), "kinds": rows}


def row(path: Path) -> dict[str, Any]:
    """Return the figures of a network, as its card has them, specialists beside."""
    card = model_file.read_card(path)
    beside = {
        name: model_file.read_card(bundled.find(SPECIALISTS[name].file)).scores["test"]
        for name in card.scores["test"]["kinds"]
        if name in SPECIALISTS
    }
    return {
        "title": card.title,
        "data": card.provenance["trained_on"],
        "licence": card.licence,
        "images": card.provenance["images"],
        "steps": card.config["stop_at"][0],
        **card.scores,
        "specialists": {name: test["dice"] for name, test in beside.items()},
        "file_bytes": path.stat().st_size,
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    work: Annotated[Path, typer.Option(help="Folder of plans and checkpoints.")],
    out: Annotated[Path, typer.Option(help="Folder of the model files.")] = Path(
        "src/napari_medseg/weights"
    ),
    results: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/shelf_networks.json"
    ),
    names: Annotated[str, typer.Option(help="Networks, by commas.")] = ",".join(
        NETWORKS
    ),
    minutes: Annotated[float, typer.Option(help="Of the processor, each.")] = 20.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps on a few images.")
    ] = False,
) -> None:
    """Train the networks that are missing and print their figures."""
    table = json.loads(results.read_text()) if results.exists() else {}
    for folder in (out, results.parent, work):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names.split(","):
        path = out / SPECIALISTS[name].file
        if not path.exists():
            shelved, began = NETWORKS[name], time.process_time()
            counts = (4, 2) if quick else (shelved.most, 40)
            kinds = {
                kind: read_kind(data, source, counts)
                for kind, source in shelved.kinds.items()
            }
            pairs = together(kinds.values())
            config = Med2dTraining(validate=2 if quick else 12, device="cpu")
            steps = (
                4 if quick else planned(pairs, config, minutes, work / f"{name}.json")
            )
            conduct = Conduct(datetime.date.today().isoformat(), work)
            job = train_job(pairs, replace(config, steps=steps), conduct)
            make(name, kinds, out, finish(job).model_file)
            spent = time.process_time() - began
            print(f"{name}: {steps} steps, {spent:.0f} s of the processor", flush=True)
        # from the card, so that table and files never disagree
        table[name] = row(path)
        results.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
        print(json.dumps(table[name], indent=2, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    typer.run(main)
