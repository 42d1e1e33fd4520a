"""Train ``nano``, the bundled SAM: ``make`` a pack of crops, then ``train`` on it.

    python benchmarks/train_nano.py make --data DIR --out pack.npz
    python benchmarks/train_nano.py train --pack pack.npz --run DIR --steps 7000

``train`` resumes from ``DIR/checkpoint.safetensors``. Of each data set, the images
for which `napari_medseg.training.pack.is_held_out` says so are left out.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file

from napari_medseg._types import Job
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.sam import build_nano
from napari_medseg.samples import KINDS
from napari_medseg.training.pack import (
    CROP,
    BatchShape,
    Crop,
    Pack,
    PackBatches,
    crops_of_pair,
    generated_crops,
    is_held_out,
    two_kinds_crops,
)
from napari_medseg.training.promptable import (
    DenseWarmUp,
    Promptable,
    PromptableConfig,
    PromptableModel,
    tie_positions,
)
from napari_medseg.training.trainer import FitConfig, FitResult, fit

SETS = {
    "dsb2018_nuclei": (512, 3, 0.25),
    "usiigaci_phase_contrast": (512, 6, 0.5),
    "bubil_multiannotator": (CROP, 1, 0.25),
}
"""Longest side, crops an image, share held out. All three may be redistributed."""

WEIGHTS = {
    "dsb2018_nuclei": 0.3,
    "usiigaci_phase_contrast": 0.08,
    "bubil_multiannotator": 0.07,
    "generated": 0.43,
    "two_kinds": 0.12,
}
"""How often each source is drawn."""

LARGE = BatchShape(2, 448, zoom=(1.2, 5.0), share=0.3)
"""Now and then two large crops, for objects that fill half of a working image."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


def crops_of_set(folder: Path) -> list[Crop]:
    """Cut the crops of a data set's training images."""
    side, count, share = SETS[folder.name]
    rng = np.random.default_rng(0)
    crops = []
    for path in sorted((folder / "images").iterdir()):
        if is_held_out(path.stem, share):
            continue
        mask = next((folder / "masks").glob(f"{path.stem}.*"))
        file = read_image(path)
        inputs = normalise(
            file.plane(), Normalisation.for_channels(file.channels, file.rgb)
        )
        crops += crops_of_pair(inputs, read_annotation(mask).labels, side, count, rng)
    return crops


@app.command()
def make(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="The pack to write.")],
    generated: Annotated[int, typer.Option(help="Generated scenes.")] = 3000,
) -> None:
    """Make a pack of training crops."""
    sources = [(name, crops_of_set(data / name)) for name in SETS]
    sources.append(("generated", list(generated_crops(generated, seed=1))))
    sources.append(("two_kinds", list(two_kinds_crops(generated // 6, seed=1000))))
    for name, crops in sources:
        print(f"{name}: {len(crops)} crops")
    Pack.from_crops(sources).save(out)


@app.command()
def train(
    pack: Annotated[Path, typer.Option(help="The pack.")],
    run: Annotated[Path, typer.Option(help="Folder of checkpoint and log.")],
    steps: Annotated[int, typer.Option()] = 6000,
    warm_up: Annotated[int, typer.Option()] = 1200,
    batch: Annotated[int, typer.Option()] = 8,
    size: Annotated[int, typer.Option()] = 256,
    learning_rate: Annotated[float, typer.Option()] = 6e-4,
    named: Annotated[int, typer.Option()] = 2,
    filters: Annotated[int, typer.Option()] = 1,
    regions: Annotated[int, typer.Option()] = 1,
    objects: Annotated[int, typer.Option()] = 2,
    start: Annotated[
        Path | None, typer.Option(help="Start from this SAM; no warm-up.")
    ] = None,
    fresh_decoder: Annotated[
        bool, typer.Option(help="Of the start, keep the encoder and the upscaling.")
    ] = False,
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Train, or go on training."""
    run.mkdir(parents=True, exist_ok=True)
    os.nice(5)
    torch.manual_seed(0)
    crops = Pack.load(pack)
    weights = [WEIGHTS[name] for name in crops.names]
    model = PromptableModel(build_nano(), KINDS).train()

    def settings(count: int, peak: float) -> FitConfig:
        return FitConfig(
            steps=count,
            learning_rate=peak,
            warmup=0.03,
            weight_decay=0.02,
            checkpoint_minutes=2.0,
            device=device,
        )

    with (run / "log.jsonl").open("a") as log:
        tie_positions(model.sam)
        if start is not None:
            begin_from(model, start, fresh_decoder)
        else:
            batches = PackBatches(crops, weights, [BatchShape(2 * batch, size)], seed=1)
            peak = settings(warm_up, 1e-3)
            file = run / "warm_up.safetensors"
            report(fit(model, DenseWarmUp(), batches, peak, checkpoint=file), log)
        shapes = [BatchShape(batch, size), LARGE]
        batches = PackBatches(crops, weights, shapes, seed=0)
        mix = Promptable(PromptableConfig(named, filters, regions, objects))
        peak = settings(steps, learning_rate)
        file = run / "checkpoint.safetensors"
        report(fit(model, mix, batches, peak, checkpoint=file), log)


def begin_from(model: PromptableModel, start: Path, fresh_decoder: bool) -> None:
    """Take weights over from a checkpoint of a run.

    With a fresh decoder only the image encoder and the upscaling are taken, which
    the dense warm-up trains too; tokens and transformer begin anew. So does whatever
    has another shape, as the tokens have where tasks were added since.
    """
    state = {
        name.removeprefix("model."): value
        for name, value in load_file(start).items()
        if name.startswith("model.")
    }
    if fresh_decoder:
        kept = ("sam.image_encoder.", "sam.mask_decoder.output_upscaling.", "readout.")
        state = {name: value for name, value in state.items() if name.startswith(kept)}
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    out: Annotated[Path, typer.Option(help="The weights to write.")],
) -> None:
    """Write the weights of a run in float16, as the package ships them."""
    source = run / "checkpoint.safetensors"
    if not source.exists():
        source = run / "warm_up.safetensors"
    weights = {
        name.removeprefix("model.sam."): value.half()
        if value.is_floating_point()
        else value
        for name, value in load_file(source).items()
        if name.startswith("model.sam.")
    }
    save_file(weights, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def report(job: Job[FitResult], log: TextIO, every: int = 50) -> None:
    """Run a training and write the mean of its figures every so many steps."""
    started, count = time.monotonic(), 0
    sums: dict[str, float] = {}
    for progress in job:
        for name, value in progress.metrics.items():
            sums[name] = sums.get(name, 0.0) + value
        count += 1
        if count == every:
            means = {name: round(total / count, 4) for name, total in sums.items()}
            seconds = round(time.monotonic() - started, 1)
            line = {"step": progress.step, "seconds": seconds, **means}
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(line, flush=True)
            sums, count = {}, 0


if __name__ == "__main__":
    app()
