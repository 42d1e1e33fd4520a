"""Train the judge, which chooses among the masks that ``nano`` offers.

    python benchmarks/train_judge.py collect --data DIR --out FOLDER
    python benchmarks/train_judge.py features --offered FOLDER --out TABLE.npz
    python benchmarks/train_judge.py validate --table TABLE.npz
    python benchmarks/train_judge.py train --table TABLE.npz --out judge.safetensors

``collect`` asks `nano` on training images of the three sets that it was trained on, for
which `napari_medseg.training.pack.is_held_out` does not say that they are left out, and
on generated scenes, and keeps all masks offered with their true IoU: one file an image,
so that it goes on where it was stopped. ``validate`` leaves out one source after the
other: what is learned on the others must hold there. Other sets of the benchmarks play
no part here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from judge_scenes import MADE, REAL, SEED, Scenery, scenery_of
from numpy.typing import NDArray
from promptable import SMALLEST, iou
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.candidates import GRID, Candidates
from napari_medseg.models.clicks import Prompt, as_asked, corrected, deepest
from napari_medseg.models.found import Found
from napari_medseg.models.judge import VOICES, Judge, Voice, were_corrected
from napari_medseg.models.mask_features import NAMES, agreement, describe
from napari_medseg.models.sized import SizedView

ROUND = (
    "dsb2018_nuclei",
    "mixed",
    "organs",
    "usiigaci_phase_contrast",
    "mixed",
    "bubil_multiannotator",
    "mixed",
    "dsb2018_nuclei",
    "mixed",
    "organs",
    "two_kinds",
)
"""Sources in the order in which their images come, again and again."""

OBJECTS = {"usiigaci_phase_contrast": 4}
"""Objects an image, where not three."""

KINDS = ("click", "box", "correction")
"""Kinds of prompts."""

MOST = 18
"""Masks a prompt, at most."""

SOURCES = (*REAL, *MADE)
"""All sources."""

STEPS, BATCH, PEAK, DECAY = 500, 64, 2e-3, 1e-2
"""Of the training: steps, prompts a step, highest learning rate, weight decay."""

RANKING, SHARPNESS = 2.0, 4.0
"""Weight of the loss that ranks, and how sharply it prefers what looks better."""

LEFT_OUT = 0.15
"""Share of masks that are left out of each step, so that the rest must do."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


def first_click(truth: NDArray[np.bool_], rng: np.random.Generator) -> Prompt:
    """Click on an object, in its very middle or somewhere near."""
    place = deepest(truth)
    if rng.random() < 0.4:
        depth = ndimage.distance_transform_edt(np.pad(truth, 1))[1:-1, 1:-1]
        rows, columns = np.nonzero(depth >= 0.5 * depth.max())
        pick = rng.integers(len(rows))
        place = (float(rows[pick]), float(columns[pick]))
    return Prompt((place,), (True,))


def box_round(truth: NDArray[np.bool_], rng: np.random.Generator) -> Prompt:
    """Draw a box round an object, exactly or by hand."""
    rows, columns = np.nonzero(truth)
    edges = np.array([rows.min(), columns.min(), rows.max(), columns.max()], float)
    if rng.random() < 0.4:
        sides = np.tile(edges[2:] - edges[:2] + 1, 2)
        edges += rng.normal(0, 0.03, 4) * sides
        limits = np.tile(np.array(truth.shape) - 1, 2)
        edges = np.clip(edges, 0, limits)
        edges[2:] = np.maximum(edges[2:], edges[:2])
    points = (deepest(truth),) if rng.random() < 0.1 else ()
    return Prompt(points, (True,) * len(points), tuple(edges.tolist()))


def true_iou(found: Found, truth: NDArray[np.bool_]) -> float:
    """Return the IoU of what was found with an object."""
    mask, part = found.in_image(), truth[found.look.box.slices]
    both = int((mask & part).sum())
    return both / max(1, int(mask.sum()) + int(truth.sum()) - both)


def ask(
    view: SizedView, prompt: Prompt, truth: NDArray[np.bool_]
) -> tuple[dict[str, np.ndarray], NDArray[np.bool_]]:
    """Ask once: what is offered, small enough to keep, and the mask that is best."""
    asked = as_asked(prompt)
    found = view.offered(asked, prompt.extent)
    candidates = view.candidates(found, asked)
    row = packed(candidates)
    row["iou"] = np.array([true_iou(each, truth) for each in found], np.float32)
    best = view.ordered(found, candidates, candidates.rule, asked)[0]
    mask = np.zeros(truth.shape, bool)
    mask[best.look.box.slices] = best.in_image()
    return row, mask


def packed(candidates: Candidates) -> dict[str, np.ndarray]:
    """Return candidates as small arrays."""
    row = {}
    for name, item in candidates._asdict().items():
        value = item.numpy()
        if name == "masks":
            value = np.packbits(value)
        elif name == "logits":
            value = (8 * value).round().clip(-127, 127).astype(np.int8)
        elif name == "pictures":
            value = (40 * value).round().clip(-127, 127).astype(np.int8)
        elif name in ("within", "around"):
            value = value.astype(np.float16)
        row[name] = value
    return row


def unpacked(row: dict[str, np.ndarray]) -> Candidates:
    """Return what `packed` made small."""
    count = len(row["look"])
    items = {name: row[name] for name in Candidates._fields}
    bits = np.unpackbits(row["masks"], count=count * GRID**2)
    items["masks"] = bits.reshape(count, GRID, GRID).astype(bool)
    items["logits"] = row["logits"].astype(np.float32) / 8
    items["pictures"] = row["pictures"].astype(np.float32) / 40
    for name in ("within", "around"):
        items[name] = row[name].astype(np.float32)
    return Candidates(**{name: torch.from_numpy(item) for name, item in items.items()})


def asked_about(
    backbone: Backbone, scenery: Scenery, count: int, rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """Ask about some objects of an image by click, corrections and box."""
    view = SizedView(scenery.image, backbone, backbone.sizes, torch.device("cpu"))
    area = np.bincount(scenery.ids.ravel())
    area[0] = 0
    rows = []
    # large ones are few, and small ones many
    numbers = np.nonzero(area >= SMALLEST)[0]
    if not len(numbers):
        return []
    share = np.sqrt(area[numbers])
    picks = rng.choice(numbers, min(count, len(numbers)), False, share / share.sum())
    for number in picks:
        truth = scenery.ids == number
        prompt = first_click(truth, rng)
        for step in range(1 + int(rng.integers(0, 4))):
            row, mask = ask(view, prompt, truth)
            rows.append({**row, "step": np.array(step)})
            # now and then somebody corrects nothing much
            prompt = corrected(prompt, mask, truth)
            if iou(mask, truth) > 0.97:
                break
        row, _ = ask(view, box_round(truth, rng), truth)
        rows.append({**row, "step": np.array(-1)})
    return rows


@app.command()
def collect(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Folder of the table.")],
    minutes: Annotated[float, typer.Option(help="Stop after so long.")] = 45,
) -> None:
    """Ask about objects, and keep what was offered with its true IoU."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone("nano")
    started, counts = time.monotonic(), dict.fromkeys(ROUND, 0)
    total = 0
    while time.monotonic() - started < 60 * minutes:
        source = ROUND[total % len(ROUND)]
        index = counts[source]
        counts[source] += 1
        total += 1
        file = out / f"{source}-{index:05d}.npz"
        if file.exists():
            continue
        rng = np.random.default_rng((SEED + 1, len(source), index))
        scenery = scenery_of(data, source, index)
        rows = asked_about(backbone, scenery, OBJECTS.get(source, 3), rng)
        arrays = {f"{i}/{k}": v for i, row in enumerate(rows) for k, v in row.items()}
        with atomic_path(file) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        if total % 20 == 0:
            print(total, round(time.monotonic() - started), flush=True)


class Table(NamedTuple):
    """N prompts with up to `MOST` masks each.

    Attributes
    ----------
    features : Tensor
        ``float32 (N, MOST, F)``.
    alike : Tensor
        ``float32 (N, MOST, MOST)``.
    there : Tensor
        ``float32 (N, MOST)``, 0 where there is no mask.
    iou : Tensor
        ``float32 (N, MOST)``, the truth.
    source, kind : Tensor
        ``int64 (N,)``, index into `SOURCES` and `KINDS`.
    """

    features: Tensor
    alike: Tensor
    there: Tensor
    iou: Tensor
    source: Tensor
    kind: Tensor

    def of(self, rows: Tensor) -> Table:
        """Return some prompts."""
        return Table(*(item[rows] for item in self))

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table from the file that `features` writes."""
        with np.load(path) as file:
            items = [torch.from_numpy(file[name]) for name in cls._fields]
        floats = (item.float() if item.is_floating_point() else item for item in items)
        return cls(*floats)


@app.command()
def features(
    offered: Annotated[Path, typer.Option(help="Folder of what was collected.")],
    out: Annotated[Path, typer.Option(help="The table to write.")],
) -> None:
    """Describe all masks that were collected."""
    torch.set_num_threads(1)
    rows = []
    for file in sorted(offered.glob("*.npz")):
        source = SOURCES.index(file.stem.rsplit("-", 1)[0])
        rows += [described(row, source) for row in rows_of(file)]
    columns = zip(*rows, strict=True)
    arrays = {
        name: torch.stack(column).numpy()
        for name, column in zip(Table._fields, columns, strict=True)
    }
    np.savez_compressed(out, **arrays)
    print(f"{len(rows)} prompts")


def rows_of(file: Path) -> list[dict[str, np.ndarray]]:
    """Return the prompts of one image, as `collect` kept them."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    with np.load(file) as archive:
        for key in archive.files:
            number, name = key.split("/")
            rows.setdefault(number, {})[name] = archive[key]
    return list(rows.values())


def described(row: dict[str, np.ndarray], source: int) -> Table:
    """Describe the masks of one prompt, as one row of a table."""
    candidates = unpacked(row)
    alike = agreement(candidates)
    table, iou_ = describe(candidates, alike), torch.from_numpy(row["iou"])
    rest = MOST - len(iou_)
    step = int(row["step"])
    kind = KINDS.index("box" if step < 0 else "correction" if step else "click")
    return Table(
        functional.pad(table, (0, 0, 0, rest)).half(),
        functional.pad(alike, (0, rest, 0, rest)).half(),
        functional.pad(torch.ones(len(iou_)), (0, rest)),
        functional.pad(iou_, (0, rest)),
        torch.tensor(source),
        torch.tensor(kind),
    )


def fitted(table: Table, steps: int) -> Judge:
    """Train a judge: each of its networks by itself."""
    judge, later = Judge(), were_corrected(table.features)
    first, second = (table.of(rows.nonzero()[:, 0]) for rows in (~later, later))
    for seed in range(VOICES):
        judge.voices[seed] = fitted_voice(first, steps, seed)
        judge.later[seed] = fitted_voice(second, steps, seed)
    return judge.eval()


def fitted_voice(table: Table, steps: int, seed: int) -> Voice:
    """Train one network of a judge.

    The loss is the cross-entropy of the IoU of each mask, and the IoU that is to be
    expected when one mask of a prompt is drawn, the likelier the better it looks.
    """
    torch.manual_seed(seed)
    voice = Voice().train()
    present = table.features[table.there > 0]
    voice.mean.copy_(present.mean(dim=0))
    voice.spread.copy_(present.std(dim=0) + 1e-3)
    optimiser = torch.optim.AdamW(voice.parameters(), PEAK, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK, total_steps=steps, pct_start=0.1
    )
    # every source and kind of prompt counts, the more, the more there is of it
    group = len(KINDS) * table.source + table.kind
    weight = torch.bincount(group).float().rsqrt()[group]
    for _ in range(steps):
        rows = table.of(torch.multinomial(weight, BATCH, replacement=True))
        kept = rows.there * (torch.rand_like(rows.there) > LEFT_OUT)
        kept = torch.where(kept.sum(dim=1, keepdim=True) > 0, kept, rows.there)
        logits = voice(rows.features, rows.alike, kept)
        entropy = functional.binary_cross_entropy_with_logits(
            logits, rows.iou, weight=kept, reduction="sum"
        )
        expected = (SHARPNESS * logits).softmax(dim=1) * rows.iou
        loss = entropy / kept.sum() - RANKING * expected.sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return voice.eval()


def chosen(scores: Tensor, table: Table) -> Tensor:
    """Return the IoU of the mask of the highest score of each prompt, ``(N,)``."""
    best = scores.masked_fill(table.there == 0, -torch.inf).argmax(dim=1)
    return table.iou[torch.arange(len(best)), best]


def judged(judge: Judge, table: Table) -> Tensor:
    """Return the IoU of the masks that a judge chooses, ``(N,)``."""
    with torch.inference_mode():
        return chosen(judge(table.features, table.alike, table.there), table)


@app.command()
def validate(
    table: Annotated[Path, typer.Option(help="The table.")],
    steps: Annotated[int, typer.Option()] = STEPS,
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/judge.json"
    ),
) -> None:
    """Train without each source in turn, and measure on it."""
    torch.set_num_threads(1)
    everything = Table.load(table)
    results = {}
    for number, source in enumerate(SOURCES):
        apart = everything.source == number
        judge = fitted(everything.of((~apart).nonzero()[:, 0]), steps)
        rows = everything.of(apart.nonzero()[:, 0])
        rule = chosen(rows.features[..., NAMES.index("rule")], rows)
        found, best = judged(judge, rows), rows.iou.max(dim=1).values
        results[source] = {
            kind: {
                "prompts": int((rows.kind == index).sum()),
                **{
                    name: round(float(values[rows.kind == index].mean()), 3)
                    for name, values in (
                        ("rule", rule),
                        ("judge", found),
                        ("best offered", best),
                    )
                },
            }
            for index, kind in enumerate(KINDS)
        }
        print(source, results[source], flush=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


@app.command()
def train(
    table: Annotated[Path, typer.Option(help="The table.")],
    out: Annotated[Path, typer.Option(help="The weights to write.")],
    steps: Annotated[int, typer.Option()] = STEPS,
) -> None:
    """Train on all sources, and write the weights as the package ships them."""
    torch.set_num_threads(1)
    everything = Table.load(table)
    judge = fitted(everything, steps)
    save_file(judge.state_dict(), out)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, {len(everything.iou)} prompts")


if __name__ == "__main__":
    app()
