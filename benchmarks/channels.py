"""What a channel that is added to a network is worth, and what it costs.

    python benchmarks/channels.py run --data DIR [--quick] [--seeds 3]
    python benchmarks/channels.py table [--out RESULTS.jsonl]

Worms in bright field and GFP (BBBC010), at half the resolution; foreground against
background. First a UNETR learns the bright field of 24 images. Then the same images
have GFP as well, and there are three ways to use it:

- a channel is added by LoRA, or by DoRA: the first network stays, few numbers are
  trained;
- early fusion: a UNETR with two channels is trained whole, from scratch, as many steps
  as the first network and the added channel together.

Each is measured on images that no training saw: with both channels, with bright field
alone and with GFP alone. Early fusion has no way to be without a channel; the missing
one is black. Nothing is held out, and the last step is measured. ``off`` is the added
channel switched off again, which has to be the first network to the last digit.

``--quick`` is one seed with a quarter of the steps, 8 images and 8 to measure on. Each
line of the results is a run; what is done is not done again. Seconds are those of the
processor, on one thread.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import measure, read
from sets import SETS
from skimage.transform import resize

from napari_medseg import api
from napari_medseg._types import Prediction, default_classes, finish
from napari_medseg.inference import Segmenter, open_segmenter
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.adapters import WithoutAdapter
from napari_medseg.training.channel_training import ChannelTraining
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.network_training import UnetrTraining
from napari_medseg.windowed import predict_probabilities

RESULTS = Path("benchmarks/results/channels.jsonl")

QUICK_RESULTS = Path("benchmarks/results/channels_quick.jsonl")

WORMS = replace(SETS["worms"], channel=None)

GFP, BRIGHT_FIELD = 0, 1
"""Channels of the images."""

SHRINK = 2
"""Pixels of the image per pixel that networks see."""

IMAGES, TEST = 24, 16

WINDOW = 128

FIRST_STEPS, ADDED_STEPS = 600, 300

QUICK_STEPS, QUICK_IMAGES, QUICK_TEST = 4, 8, 8
"""What ``--quick`` divides the steps by, and has of images."""

ARMS = ("first", "lora", "dora", "early fusion")

SEEN = ("both", "bright field", "GFP", "off")

KEYS = ("seed", "arm", "shortened")

app = typer.Typer(add_completion=False, no_args_is_help=True)


def smaller(pair: Pair) -> Pair:
    """Return a pair at a fraction of its resolution, foreground against background."""
    shape = tuple(length // SHRINK for length in pair.annotation.shape)
    image = resize(pair.image, (len(pair.image), *shape), anti_aliasing=True)
    inside = (pair.annotation > 0).astype(np.int32)
    labels = resize(inside, shape, order=0, preserve_range=True, anti_aliasing=False)
    return replace(
        pair, image=image.astype(np.float32), annotation=labels.astype(np.int32)
    )


def chosen(pairs: Pairs, channels: list[int]) -> Pairs:
    """Return the pairs with some of their channels."""
    return gather([replace(pair, image=pair.image[channels]) for pair in pairs])


def images(data: Path, seed: int, quick: bool) -> tuple[Pairs, Pairs]:
    """Return images to train on and to measure on."""
    drawn = WORMS.draw(data, QUICK_IMAGES if quick else IMAGES, seed)
    test = WORMS.test(data)[: QUICK_TEST if quick else TEST]
    return gather([*map(smaller, drawn)]), gather([*map(smaller, test)])


def trained(pairs: Pairs, config: Any, path: Path) -> dict[str, Any]:
    """Train, write the model file, and say what it took."""
    began = time.process_time()
    found = finish(api.train_job(pairs, config, Conduct()))
    model_file.save(path, found.model_file)
    return {
        "steps": found.report.steps,
        "parameters": found.report.parameters,
        "bytes": path.stat().st_size,
        "seconds": round(time.process_time() - began, 1),
    }


def first_network(pairs: Pairs, steps: int, seed: int, path: Path) -> dict[str, Any]:
    """Train the network of bright field, unless it is there."""
    noted = path.with_suffix(".json")
    if path.exists() and noted.exists():
        return json.loads(noted.read_text())
    config = UnetrTraining(
        steps=steps, window=WINDOW, seed=seed, validate=0, device="cpu"
    )
    facts = trained(chosen(pairs, [BRIGHT_FIELD]), config, path)
    noted.write_text(json.dumps(facts))
    return facts


class Off:
    """An added channel, switched off."""

    identity = "off"
    classes = default_classes(2)

    def __init__(self, path: Path) -> None:
        self.whole: Segmenter = api.load(path, "cpu")
        self.network = WithoutAdapter(self.whole.network.base)

    def predict(self, image: np.ndarray) -> Prediction:
        """Segment an image ``float32 (C, Y, X)``."""
        whole = self.whole
        probabilities, note = predict_probabilities(
            image, self.network, whole.normalisation, whole.plan
        )
        return Prediction(probabilities, self.classes, note)


def blackened(pairs: Pairs, channel: int) -> Pairs:
    """Return the pairs with one channel black."""
    shown = []
    for pair in pairs:
        image = pair.image.copy()
        image[channel] = 0.0
        shown.append(replace(pair, image=image))
    return gather(shown)


def scores_of(arm: str, path: Path, test: Pairs) -> dict[str, float]:
    """Return mean Dice by which channels are seen."""
    if arm == "first":
        one = chosen(test, [BRIGHT_FIELD])
        return {"bright field": measure(open_segmenter(str(path), "cpu"), one)["dice"]}
    both = open_segmenter(str(path), "cpu")
    found = {"both": measure(both, test)["dice"]}
    if arm == "early fusion":
        found["bright field"] = measure(both, blackened(test, GFP))["dice"]
        found["GFP"] = measure(both, blackened(test, BRIGHT_FIELD))["dice"]
        return found
    for name, alone in (("bright field", "old"), ("GFP", "new")):
        segmenter = open_segmenter(str(path), "cpu", alone=alone)
        found[name] = measure(segmenter, test)["dice"]
    return found | {"off": measure(Off(path), test)["dice"]}


def one(data: Path, seed: int, arm: str, quick: bool, part: int) -> dict[str, Any]:
    """Do one run."""
    pairs, test = images(data, seed, quick)
    first, more = FIRST_STEPS // part, ADDED_STEPS // part
    shared: dict[str, Any] = {"seed": seed, "validate": 0, "device": "cpu"}
    folder = Path(tempfile.gettempdir()) / f"channels-{len(pairs)}-{first}"
    folder.mkdir(parents=True, exist_ok=True)
    old = folder / f"first-{seed}.medseg"
    facts = first_network(pairs, first, seed, old)
    path = folder / f"{arm.replace(' ', '-')}-{seed}.medseg"
    if arm == "early fusion":
        config: Any = UnetrTraining(steps=first + more, window=WINDOW, **shared)
        facts = trained(pairs, config, path)
    elif arm != "first":
        config = ChannelTraining(
            steps=more, start_from=str(old), add_channel=GFP, adapter=arm, **shared
        )
        facts = trained(pairs, config, path)
    return facts | {
        "test": len(test),
        **scores_of(arm, old if arm == "first" else path, test),
    }


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path | None, typer.Option(help="Results, a line a run.")] = None,
    quick: Annotated[
        bool, typer.Option(help="One seed, few steps and images.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Draws of images.")] = 3,
    part: Annotated[
        int | None, typer.Option(help="Divide the steps by this, to try it out.")
    ] = None,
) -> None:
    """Do the runs that are missing."""
    out = out or (QUICK_RESULTS if quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    part = part or (QUICK_STEPS if quick else 1)
    done = {tuple(row[key] for key in KEYS) for row in read(out)}
    for seed in range(1 if quick else seeds):
        for arm in ARMS:
            if (seed, arm, part) in done:
                continue
            row = {"seed": seed, "arm": arm, "shortened": part}
            row |= one(data, seed, arm, quick, part)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Results of `run`.")] = RESULTS,
) -> None:
    """Print the table of the documentation."""
    rows = read(out)
    whole = [row["parameters"] for row in rows if row["arm"] == "early fusion"]
    print(
        f"| way | {' | '.join(SEEN)} | numbers trained | of early fusion's | seconds |"
    )
    print("|---" * (len(SEEN) + 4) + "|")
    for arm in ARMS:
        found = [row for row in rows if row["arm"] == arm]
        if not found:
            continue
        texts = [_spread([row[seen] for row in found if seen in row]) for seen in SEEN]
        count = found[0]["parameters"]
        share = f"{count / whole[0]:.1%}" if whole else ""
        seconds = np.mean([row["seconds"] for row in found])
        print(f"| {arm} | {' | '.join(texts)} | {count:,} | {share} | {seconds:.0f} |")


def _spread(values: list[float]) -> str:
    """Return a mean over the seeds, and its spread where there are several."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


if __name__ == "__main__":
    app()
