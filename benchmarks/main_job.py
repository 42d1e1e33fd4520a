"""The main job on real images: 16 annotated images in, the rest segmented.

    python benchmarks/main_job.py --data DIR [--sam nano] [--out RESULTS.json]

For each set: `napari-medseg train` on 16 images, `segment` and `evaluate` on the
rest, each in a process of its own whose seconds and peak memory are taken; beside it
the untuned SAM, Otsu's threshold and a U-Net of two million parameters trained on the
same 16 images for the same seconds. The second training, from the run file, must give
the same bytes. Sets that are done are not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from unet import train_unet

from napari_medseg import metrics
from napari_medseg._types import finish
from napari_medseg.batch import segment_files
from napari_medseg.evaluation import evaluate_folders
from napari_medseg.io import model_file
from napari_medseg.io.pairs import read_pairs
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.pack import is_held_out

SETS = {
    "usiigaci_phase_contrast": ("", 0.5),
    "dsb2018_nuclei": ("fluo_", 0.25),
    "isbi2012_em_membrane": ("", 0.0),
}
"""Prefix of the files used, and the share that was held out when training nano."""

TRAINING = 16
"""Images tuned on."""


def split(folder: Path, prefix: str, share: float) -> tuple[list[Path], list[Path]]:
    """Choose 16 images, none of them held out from nano, and return the others too."""
    paths = sorted((folder / "images").glob(f"{prefix}*"))
    usable = [path for path in paths if not is_held_out(path.stem, share)]
    if folder.name == "isbi2012_em_membrane":
        chosen = usable[:TRAINING]  # neighbouring slices are alike: a block, not a draw
    else:
        order = np.random.default_rng(0).permutation(len(usable))[:TRAINING]
        chosen = [usable[index] for index in sorted(order)]
    return chosen, [path for path in paths if path not in chosen]


def lay_out(folder: Path, paths: list[Path], target: Path) -> None:
    """Link images and masks into two folders."""
    for path in paths:
        mask = next((folder / "masks").glob(f"{path.stem}.*"))
        for source, name in ((path, "images"), (mask, "masks")):
            (target / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name / source.name)


def command(*arguments: str) -> tuple[dict[str, Any], float, float]:
    """Run a command; return its JSON, its seconds and its peak memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_medseg", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed: {output}")
    return json.loads(output), seconds, usage.ru_maxrss / 1024


def dice_of(pred: Path, truth: Path, names: set[str] | None = None) -> float:
    """Return the mean Dice of a folder, or of the images of some names."""
    result = finish(evaluate_folders(pred, truth))
    rows = {
        name: row
        for name, row in result.per_image.items()
        if names is None or Path(name).stem in names
    }
    return metrics.summarise(rows)["dice"] if rows else float("nan")


def measure(folder: Path, sam: str, work: Path, options: list[str]) -> dict[str, Any]:
    """Do the main job on one set."""
    prefix, share = SETS[folder.name]
    chosen, rest = split(folder, prefix, share)
    lay_out(folder, chosen, work / "train")
    lay_out(folder, rest, work / "test")
    truth = work / "test" / "masks"
    unseen = {path.stem for path in rest if is_held_out(path.stem, share)}
    if share == 0.0:
        unseen = {path.stem for path in rest}
    model = work / "model.medseg"
    data = ["--images", str(work / "train" / "images")]
    data += ["--masks", str(work / "train" / "masks")]
    trained, train_s, train_mb = command(
        "train", *data, "--out", str(model), "--sam", sam, "--seed", "0", *options
    )
    again = work / "again.medseg"
    run_file = str(trained["run_file"])
    command("train", "--config", run_file, "--out", str(again))
    images = str(work / "test" / "images")
    _, segment_s, segment_mb = command(
        "segment", images, "--model", str(model), "--out", str(work / "tuned")
    )
    scores, _, _ = command(
        "evaluate", "--pred", str(work / "tuned"), "--truth", str(truth)
    )
    bare = _untuned(model, work / "untuned.medseg")
    command("segment", images, "--model", str(bare), "--out", str(work / "untuned"))
    pairs = read_pairs(work / "train" / "images", work / "train" / "masks")
    otsu = better_otsu(pairs)
    finish(segment_files([Path(images)], otsu, work / "otsu"))
    unet = train_unet(pairs, trained["seconds"])
    finish(segment_files([Path(images)], unet, work / "unet"))
    return {
        "set": folder.name,
        "sam": sam,
        "images": len(rest),
        "unseen_by_nano": len(unseen),
        "dice": scores["mean"]["dice"],
        "dice_unseen": dice_of(work / "tuned", truth, unseen),
        "untuned": dice_of(work / "untuned", truth),
        "otsu": dice_of(work / "otsu", truth),
        "unet": dice_of(work / "unet", truth),
        "unet_unseen": dice_of(work / "unet", truth, unseen),
        "held_out": trained["held_out"],
        "train_seconds": trained["seconds"],
        "train_wall_seconds": round(train_s, 1),
        "train_peak_mb": round(train_mb),
        "segment_seconds_per_image": round(segment_s / len(rest), 3),
        "segment_peak_mb": round(segment_mb),
        "file_bytes": trained["bytes"],
        "parameters": trained["parameters"],
        "replay_identical": model.read_bytes() == again.read_bytes(),
    }


def _untuned(model: Path, path: Path) -> Path:
    """Write the same model without its prompts."""
    tuned = model_file.load(model)
    bare = {"decoder_prompts": tuned.tensors["decoder_prompts"][:, :0]}
    return model_file.save(path, replace(tuned, tensors=bare))


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    sam: Annotated[str, typer.Option(help="The SAM to tune.")] = "nano",
    sets: Annotated[str, typer.Option(help="Sets, by commas.")] = ",".join(SETS),
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/main_job.json"
    ),
    option: Annotated[
        list[str] | None, typer.Option(help="More options of `train`.")
    ] = None,
) -> None:
    """Do the main job on each set and print the table."""
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in sets.split(","):
        if name not in results:
            with tempfile.TemporaryDirectory() as folder:
                results[name] = measure(data / name, sam, Path(folder), option or [])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results[name], indent=2), flush=True)


if __name__ == "__main__":
    typer.run(main)
