"""An image too large for memory: how much memory and how long it takes.

    python benchmarks/large.py [--side 20000] [--model nuclei-fluo] [--json FILE]

A generated image of fluorescent cells is written to a zarr folder, segmented into
objects in a process of its own, and the peak memory of that process is compared with
that of the same process on an image of 512 × 512 pixels, which holds the model.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import zarr

from napari_medseg._types import finish
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.images import read_image
from napari_medseg.large import segment_large_file
from napari_medseg.samples import two_kinds_scene

app = typer.Typer(add_completion=False)

SMALL = 512


@app.command()
def main(
    side: Annotated[int, typer.Option(help="Side of the image, in pixels.")] = 20_000,
    model: Annotated[str, typer.Option(help="The segmenter.")] = "nuclei-fluo",
    json_path: Annotated[Path | None, typer.Option("--json", help="Result.")] = None,
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure."""
    if child is not None:
        print(json.dumps(segment(child, model)))
        return
    with tempfile.TemporaryDirectory() as name:
        small = measured(Path(name) / "small.zarr", SMALL, model)
        large = measured(Path(name) / "large.zarr", side, model)
    result = {
        "side": side,
        "model": model,
        "seconds": large["seconds"],
        "objects": large["objects"],
        "megapixels_a_second": round(side**2 / 1e6 / large["seconds"], 2),
        "peak_gb": round(large["peak"] / 1e9, 2),
        "above_the_model_gb": round((large["peak"] - small["peak"]) / 1e9, 2),
        "image_gb": round(2 * side**2 / 1e9, 2),
    }
    print(json.dumps(result, indent=1))
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1) + "\n")


def measured(path: Path, side: int, model: str) -> dict[str, Any]:
    """Make an image and segment it in a fresh process."""
    write(path, side)
    command = [sys.executable, __file__, "--child", str(path), "--model", model]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def write(path: Path, side: int) -> None:
    """Write an image that repeats a generated one, each time turned otherwise."""
    array = zarr.create_array(
        str(path),
        shape=(side, side),
        chunks=(SMALL, SMALL),
        dtype=np.uint16,
        dimension_names=("y", "x"),
    )
    scene = two_kinds_scene(np.random.default_rng(0), SMALL)
    grey = scene.image[0].astype(np.uint16) * 200
    draw = np.random.default_rng(0)
    for top in range(0, side, SMALL):
        for left in range(0, side, SMALL):
            turned = np.rot90(grey, draw.integers(4))
            rows, columns = min(SMALL, side - top), min(SMALL, side - left)
            array[top : top + rows, left : left + columns] = turned[:rows, :columns]


def segment(path: Path, model: str) -> dict[str, Any]:
    """Segment a file; say how long it took and how much memory was taken."""
    segmenter = open_segmenter(model, "cpu")
    started = time.monotonic()
    target = path.with_suffix(".tif")
    job = segment_large_file(read_image(path), segmenter, ObjectConfig(), target)
    made = finish(job)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "objects": made.highest,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    app()
