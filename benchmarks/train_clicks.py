"""Train the decoder of ``nano`` that answers clicks and boxes.

    python benchmarks/train_clicks.py make --data DIR --out pack.npz
    python benchmarks/train_clicks.py train --pack pack.npz --run DIR
    python benchmarks/train_clicks.py export --run DIR --out nano-clicks.safetensors

The crops are those that `nano` was trained on (``train_nano.py``), and generated
organs. ``train`` begins with nano's own decoder, leaves the image encoder as it is, and
resumes from ``DIR/checkpoint.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from judge_scenes import organs
from safetensors.torch import load_file, save_file
from train_nano import SETS, crops_of_set, report

from napari_medseg.models.backbone import load_backbone
from napari_medseg.training.clicking import (
    Clicking,
    ClickingConfig,
    ClickModel,
)
from napari_medseg.training.pack import (
    CROP,
    BatchShape,
    Crop,
    Pack,
    PackBatches,
    generated_crops,
    two_kinds_crops,
)
from napari_medseg.training.trainer import FitConfig, fit

WEIGHTS = {
    "dsb2018_nuclei": 0.27,
    "usiigaci_phase_contrast": 0.15,
    "bubil_multiannotator": 0.08,
    "generated": 0.25,
    "two_kinds": 0.05,
    "organs": 0.2,
}
"""How often each source is drawn."""

SHAPES = (
    BatchShape(8, 256),
    BatchShape(8, 256, zoom=(1.5, 4.0), share=0.5),
    BatchShape(2, 448, zoom=(1.2, 5.0), share=0.2),
)
"""A click is answered in 32 × 32 cells of the embedding, so most crops have as many."""

SEED = 880_000
"""Of the generated organs; the judge has others."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


def organ_crops(count: int) -> Iterator[Crop]:
    """Generate bodies with organs."""
    for index in range(count):
        scenery = organs(np.random.default_rng((SEED, index)), CROP)
        image = (scenery.image.clip(0, 1) * 255).astype(np.uint8)
        kinds = np.zeros((CROP, CROP), np.uint8)
        yield Crop(np.ascontiguousarray(image), scenery.ids.astype(np.uint16), kinds)


@app.command()
def make(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="The pack to write.")],
) -> None:
    """Make a pack of training crops."""
    sources = [(name, crops_of_set(data / name)) for name in SETS]
    sources += [
        ("generated", list(generated_crops(1500, seed=1))),
        ("two_kinds", list(two_kinds_crops(250, seed=1000))),
        ("organs", list(organ_crops(1200))),
    ]
    Pack.from_crops(sources).save(out)


@app.command()
def train(
    pack: Annotated[Path, typer.Option(help="The pack.")],
    run: Annotated[Path, typer.Option(help="Folder of checkpoint and log.")],
    steps: Annotated[int, typer.Option()] = 4000,
    learning_rate: Annotated[float, typer.Option()] = 3e-4,
    objects: Annotated[int, typer.Option()] = 4,
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Train, or go on training."""
    run.mkdir(parents=True, exist_ok=True)
    crops = Pack.load(pack)
    sam = load_backbone("nano").sam
    weights = [WEIGHTS[name] for name in crops.names]
    job = fit(
        ClickModel(sam).train(),
        Clicking(ClickingConfig(objects)),
        PackBatches(crops, weights, SHAPES, seed=7),
        FitConfig(
            steps=steps,
            learning_rate=learning_rate,
            warmup=0.03,
            weight_decay=0.02,
            checkpoint_minutes=2.0,
            device=device,
        ),
        checkpoint=run / "checkpoint.safetensors",
    )
    with (run / "log.jsonl").open("a") as log:
        report(job, log)


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    out: Annotated[Path, typer.Option(help="The weights to write.")],
) -> None:
    """Write what was trained in float16, as the package ships it."""
    parts = ("prompt_encoder.", "mask_decoder.")
    trained = {
        name.removeprefix("model.sam."): value
        for name, value in load_file(run / "checkpoint.safetensors").items()
        if name.startswith("model.sam.")
    }
    state = load_backbone("nano").sam.state_dict() | trained
    weights = {
        name: value.to(torch.float16).contiguous()
        for name, value in state.items()
        if name.startswith(parts) and "mask_downscaling" not in name
    }
    save_file(weights, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app()
