"""Images chosen by predicted quality and unlikeness against images drawn at random.

    python benchmarks/review.py run --data DIR [--quick] [--sets fluo,worms] [--seeds 3]
    python benchmarks/review.py table

``run`` plays somebody who works with *Review*: 4 images are annotated and a model is
tuned on them; then, three times, 4 more are annotated and the tuning goes on from the
model (``start_from``). Which 4 is either what "annotate this next" says, with all that
is annotated by then as references, or the next of a random order. Both begin with the
same model and go through the same trainings. Dice of the foreground on test images
that were never tuned on. A line is written after each training, and what is done is
not done again.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.inference import Segmenter
from napari_medseg.io.model_file import load, save
from napari_medseg.io.pairs import Pairs, gather
from napari_medseg.metrics import class_scores
from napari_medseg.quality.choosing import annotate_next
from napari_medseg.quality.estimating import prepare
from napari_medseg.quality.settings import QualitySettings
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path("benchmarks/results/review.jsonl")

NAMES = ("fluo", "worms")
"""Sets: nuclei of many kinds that the bundled SAM has seen, and worms it has not."""

CHOSEN, RANDOM = "chosen", "random"
"""The two ways."""

COUNTS = (4, 8, 12, 16)
"""Annotated images."""

POOL = 48
"""Images that may be annotated, at most."""

FULL = {"first": {"steps": 200}, "later": {"steps": 100}, "size": None}
QUICK = {
    "first": {"steps": 80, "views": 2, "working_size": 256},
    "later": {"steps": 40, "views": 2, "working_size": 256},
    "size": 256,
}
"""``--quick`` looks at a quarter of the pixels and takes fewer steps."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


class Case(NamedTuple):
    """One way, on one draw of a set."""

    name: str
    seed: int
    way: str
    quick: bool

    @property
    def place(self) -> str:
        """Name of its folder of models."""
        return f"{self.name}-{self.seed}-{self.way}-{'quick' if self.quick else 'full'}"


class Material(NamedTuple):
    """What a draw of a set consists of: images by name, and test images."""

    pool: dict[str, Any]
    kind: str
    test: Pairs

    def annotated(self, names: list[str]) -> Pairs:
        """Return images that are annotated by now."""
        return gather([self.pool[name] for name in names], annotation=self.kind)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Results, a line each.")] = RESULTS,
    kept: Annotated[
        Path, typer.Option(help="Folder for models, so that a run goes on.")
    ] = Path("medseg-review"),
    quick: Annotated[bool, typer.Option(help="256 pixels a side, 80 steps.")] = False,
    sets: Annotated[str, typer.Option(help="These sets, by commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Draws; one with --quick.")] = 3,
    seconds: Annotated[
        float, typer.Option(help="Stop after so many seconds of the processor.")
    ] = float("inf"),
) -> None:
    """Do what is missing: all sets with one draw, then the next draw."""
    torch.set_num_threads(1)
    names = sets.split(",") if sets else list(NAMES)
    for seed in range(1 if quick else seeds):
        for name in names:
            for way in (CHOSEN, RANDOM):
                for row in worked(Case(name, seed, way, quick), data, out, kept):
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row | {"annotated": ""}), flush=True)
                    if time.process_time() > seconds:
                        raise typer.Exit


def worked(case: Case, data: Path, out: Path, kept: Path) -> Iterator[dict[str, Any]]:
    """Annotate and tune in turn; give the lines that are not there yet."""
    done = {row["count"]: row for row in read(out) if _is_of(row, case)}
    if len(done) == len(COUNTS):
        return
    how = QUICK if case.quick else FULL
    material = drawn(case, data)
    names: list[str] = []
    before: Path | None = None
    for count in COUNTS:
        row = done.get(count)
        first = before is None
        # both ways begin with one model
        place = kept / (case._replace(way="start") if first else case).place
        model = place / f"{count}.medseg"
        if row is not None:
            names = row["annotated"]
        elif first:
            names = list(material.pool)[:count]
        else:
            names = names + more(case, material, names, before, how)
        seconds = made(model, case, material.annotated(names), before, how)
        if row is None:
            dice, spread = measured(model, material.test)
            yield case._asdict() | {
                "count": count,
                "dice": dice,
                "lowest": spread,
                "seconds": seconds,
                "annotated": names,
            }
        before = model


def drawn(case: Case, data: Path) -> Material:
    """Draw images with something on them, in a random order, and read the tests."""
    chosen = SETS[case.name]
    pool = chosen.draw(data, POOL, case.seed)
    kind = "instances" if chosen.instances else "dense"
    return Material({pair.name: pair for pair in pool}, kind, chosen.test(data))


def made(
    model: Path, case: Case, pairs: Pairs, before: Path | None, how: dict[str, Any]
) -> float:
    """Tune, going on from the model before; return the processor's seconds."""
    if model.exists():
        return 0.0
    started = time.process_time()
    settings = how["first"] if before is None else how["later"]
    start = "" if before is None else str(before)
    config = PromptTuning(
        seed=case.seed, device="cpu", validate=0, start_from=start, **settings
    )
    model.parent.mkdir(parents=True, exist_ok=True)
    save(model, finish(tune(pairs, config)).model_file)
    return round(time.process_time() - started, 1)


def more(
    case: Case,
    material: Material,
    names: list[str],
    model: Path | None,
    how: dict[str, Any],
) -> list[str]:
    """Return which images to annotate next: as many as there are at first."""
    left = [name for name in material.pool if name not in names]
    if case.way == RANDOM or model is None:
        return left[: COUNTS[0]]
    segmenter = Segmenter(load(model), "cpu")
    settings = QualitySettings(device="cpu", working_size=how["size"])
    prepared = finish(
        prepare(material.annotated(names), len(segmenter.classes), settings)
    )
    judged = []
    for name in left:
        image = material.pool[name].image
        labels = segmenter.predict(image).labels
        judged.append(prepared.judge.judge(image, labels))
    found = annotate_next(
        np.stack([each.summary for each in judged]),
        [each.quality for each in judged],
        COUNTS[0],
        prepared.judge.annotated.summaries,
    )
    return [left[index] for index in found]


def measured(model: Path, test: Pairs) -> tuple[float, float]:
    """Return the mean Dice on the test images, and that of their worst quarter."""
    segmenter = Segmenter(load(model), "cpu")
    values = []
    for index, pair in enumerate(test):
        labels = np.minimum(segmenter.predict(pair.image).labels, 1)
        truth = np.minimum(test.targets(index), 1)
        values.append(class_scores(labels, truth)["dice"])
    known = np.sort(np.asarray(values)[np.isfinite(values)])
    worst = known[: max(1, len(known) // 4)]
    return round(float(known.mean()), 4), round(float(worst.mean()), 4)


def read(out: Path) -> list[dict[str, Any]]:
    """Read the lines that are there; one that was cut off is left out."""
    rows = []
    for line in out.read_text().splitlines() if out.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _is_of(row: dict[str, Any], case: Case) -> bool:
    return all(row[key] == value for key, value in case._asdict().items())


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results.")] = RESULTS,
    quick: Annotated[bool, typer.Option(help="Those of --quick.")] = False,
) -> None:
    """Print Dice against the number annotated, for docs/benchmarks.md."""
    found: dict[tuple[str, str], dict[int, dict[int, float]]] = defaultdict(dict)
    worst: dict[tuple[str, str], dict[int, dict[int, float]]] = defaultdict(dict)
    for row in read(out):
        if row["quick"] == quick:
            key = row["name"], row["way"]
            found[key].setdefault(row["count"], {})[row["seed"]] = row["dice"]
            worst[key].setdefault(row["count"], {})[row["seed"]] = row["lowest"]
    heads = " | ".join(f"{count}" for count in COUNTS)
    print(f"| set | images | draws | {heads} |")
    print("|" + "---|" * (3 + len(COUNTS)))
    for title, values in (("", found), (", worst quarter", worst)):
        for (name, way), by_count in sorted(values.items()):
            # only draws that were done to the end by both ways
            whole = _whole(values, name)
            cells = [
                _spread([by_count[count][seed] for seed in whole]) if whole else ""
                for count in COUNTS
            ]
            print(f"| {name}{title} | {way} | {len(whole)} | {' | '.join(cells)} |")
    for name in dict.fromkeys(name for name, _ in found):
        whole = _whole(found, name)
        for count in COUNTS[1:]:
            pair = found[name, CHOSEN], found[name, RANDOM]
            gains = [pair[0][count][seed] - pair[1][count][seed] for seed in whole]
            print(name, count, "chosen - random:", [f"{gain:+.3f}" for gain in gains])


def _whole(values: dict[tuple[str, str], Any], name: str) -> list[int]:
    """Return the draws of a set that were done to the end by both ways."""
    seeds = [
        set(values[name, way].get(count, {}))
        for way in (CHOSEN, RANDOM)
        for count in COUNTS
    ]
    return sorted(set.intersection(*seeds))


def _spread(values: list[float]) -> str:
    """Return the mean, and from where to where the draws go."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    app()
