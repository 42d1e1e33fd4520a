"""An image too large for memory: how much memory and how long it takes.

Run by ``batch.py``. Pieces of real images, turned, make a large one in a zarr folder.
It is segmented into objects by the job that the command line and the form run, in a
process of its own; the peak memory of that process is compared with that of the same
process on an image of 512 × 512 pixels, which holds the model.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_medseg._types import finish
from napari_medseg.batch import BatchSettings, read_ledger, segment_batch
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.images import read_image

SMALL = 512
"""Side of the small image, of the pieces, and of the chunks in the file."""


def measure(data: Path, work: Path, side: int, model: str) -> dict[str, Any]:
    """Segment a large image; return seconds and memory.

    Parameters
    ----------
    data : Path
        The data sets.
    work : Path
        A folder for images and results.
    side : int
        Side of the image, in pixels.
    model : str
        The segmenter.

    Returns
    -------
    dict
        Seconds, objects, gigabytes.
    """
    small = _segmented(data, work / "small", SMALL, model)
    large = _segmented(data, work / "large", side, model)
    return {
        "side": side,
        "model": model,
        "seconds": large["seconds"],
        "cpu_seconds": large["cpu_seconds"],
        "objects": large["objects"],
        "megapixels_a_second": round(side**2 / 1e6 / large["seconds"], 2),
        "peak_gb": round(large["peak"] / 1e9, 2),
        "above_the_model_gb": round((large["peak"] - small["peak"]) / 1e9, 2),
        "image_gb": round(2 * side**2 / 1e9, 2),
    }


def _segmented(data: Path, work: Path, side: int, model: str) -> dict[str, Any]:
    """Make an image and segment it in a fresh process."""
    image = work / "images" / "large.zarr"
    if not image.exists():
        _write(data, image, side)
    command = [sys.executable, __file__, str(image), str(work / "labels"), model]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _write(data: Path, path: Path, side: int) -> None:
    """Write an image of pieces of real ones."""
    paths = sorted((data / "dsb2018_nuclei" / "images").glob("fluo_*"))[:100]
    planes = [read_image(each).plane()[0].astype(np.uint16) * 100 for each in paths]
    draw = np.random.default_rng(0)
    part = path.with_name("part.zarr")
    array = zarr.create_array(
        str(part),
        shape=(side, side),
        chunks=(SMALL, SMALL),
        dtype=np.uint16,
        dimension_names=("y", "x"),
        overwrite=True,
    )
    for top in range(0, side, SMALL):
        for left in range(0, side, SMALL):
            plane = planes[int(draw.integers(len(planes)))]
            piece = np.rot90(
                np.pad(
                    plane[:SMALL, :SMALL],
                    [(0, max(0, SMALL - length)) for length in plane.shape],
                    mode="reflect",
                ),
                int(draw.integers(4)),
            )
            rows, columns = min(SMALL, side - top), min(SMALL, side - left)
            array[top : top + rows, left : left + columns] = piece[:rows, :columns]
    part.rename(path)


def segment(image: Path, out: Path, model: str) -> dict[str, Any]:
    """Segment a file; say how long it took and how much memory was taken."""
    settings = BatchSettings(model, "cpu", objects=ObjectConfig(), formats=("csv",))
    started = time.monotonic()
    finish(segment_batch([image], out, settings, overwrite=True))
    with read_ledger(out) as ledger:
        (row,) = ledger.rows("done")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "objects": row.objects,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    print(json.dumps(segment(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
