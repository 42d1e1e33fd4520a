"""How well a SAM answers a box, a click, and five corrective clicks.

    python benchmarks/promptable.py --data DIR [--sam nano] [--once] [--sets A,B]
                                    [--out RESULTS.json]

Mean IoU of single objects. Of the sets that `nano` was trained on, only the images
held out from it are used; the other sets it has never seen. Objects are the instances
of a set, or the connected parts of its classes. A corrective click is set in the
middle of the largest wrong region. `--once` looks at each image at one magnification,
as with a SAM that knows objects of all sizes. Beside the likeliest mask stands the best
of those that the window offers by a key, three at most. Sets that are in the results
already are not measured again. Seconds are those of the processor for one answer: to
the first click, to a box, and the mean of those to corrective clicks.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import ndimage

from napari_medseg._types import finish
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.clicks import Prompt, corrected, deepest
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.training.pack import is_held_out

SETS = {
    "dsb2018_nuclei": 0.25,
    "usiigaci_phase_contrast": 0.5,
    "bubil_multiannotator": 0.25,
    "isbi2012_em_membrane": None,
    "vnc_sstem_multiclass": None,
    "acdc_cardiac_mri_scribbles": None,
    "bbbc010_worms_bf_gfp": None,
    "foot_ulcer": None,
    "shenzhen_cxr_lungs": None,
}
"""Share held out from nano; None where nano has seen nothing of the set."""

IMAGES, OBJECTS = 12, 4
"""Images a set, and objects an image, at most."""

CORRECTIONS = 5

KINDS = ("box", "click", "five_clicks")
"""What is asked."""

SMALLEST = 64
"""Objects of fewer pixels are left out."""


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the IoU of two masks."""
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def measure_object(view: InteractiveImage, truth: np.ndarray) -> list[float]:
    """Return the IoU from one box, from one click, after five corrective clicks.

    Behind them stand those of the best mask offered, and the seconds of a box, of the
    first click, of a corrective one.
    """
    rows, columns = np.nonzero(truth)
    edges = (rows.min(), columns.min(), rows.max(), columns.max())
    box = Prompt(box=tuple(float(edge) for edge in edges))
    offered, box_seconds = offered_by(view, box)
    boxed = [iou(mask, truth) for mask in offered]
    prompt = Prompt((deepest(truth),), (True,))
    clicked, seconds = [], []
    for _ in range(1 + CORRECTIONS):
        offered, taken = offered_by(view, prompt)
        clicked.append([iou(mask, truth) for mask in offered])
        seconds.append(taken)
        prompt = corrected(prompt, offered[0], truth)
    scores = [boxed, clicked[0], clicked[-1]]
    means = [box_seconds, seconds[0], float(np.mean(seconds[1:]))]
    return [*(each[0] for each in scores), *map(max, scores), *means]


def offered_by(
    view: InteractiveImage, prompt: Prompt
) -> tuple[list[np.ndarray], float]:
    """Return the masks in the whole image, likeliest first, and processor's seconds."""
    started = time.process_time()
    answer = view.answer(prompt)
    taken = time.process_time() - started
    masks = []
    for found in answer.masks:
        masks.append(np.zeros(view.shape, bool))
        masks[-1][answer.region.slices] = found
    return masks, taken


def objects_of(labels: np.ndarray) -> np.ndarray:
    """Return ids of objects: the given ones, or connected parts of classes."""
    if len(np.unique(labels)) > 6:
        return labels
    ids = np.zeros_like(labels)
    for value in np.unique(labels):
        if value:
            parts, count = ndimage.label(labels == value)
            ids[parts > 0] = parts[parts > 0] + ids.max()
            del count
    return ids


def measure_set(backbone: Backbone, folder: Path, share: float | None) -> dict:
    """Measure some objects of some images of a set."""
    rng = np.random.default_rng(0)
    paths = sorted((folder / "images").iterdir())
    if share is not None:
        paths = [path for path in paths if is_held_out(path.stem, share)]
    picks = rng.permutation(len(paths))[:IMAGES]
    rows = []
    for path in (paths[index] for index in picks):
        file = read_image(path)
        usual = Normalisation.for_channels(file.channels, file.rgb)
        image = normalise(file.plane(), usual)
        mask = next((folder / "masks").glob(f"{path.stem}.*"))
        ids = objects_of(read_annotation(mask).labels)
        area = np.bincount(ids.ravel())
        area[0] = 0
        found = np.nonzero(area >= SMALLEST)[0]
        if not len(found):
            continue
        view = InteractiveImage(image, backbone, "cpu")
        finish(view.embed())
        for index in rng.permutation(found)[:OBJECTS]:
            rows.append(measure_object(view, ids == index))
    table = np.array(rows)
    means = table[:, :6].mean(axis=0).round(3).tolist()
    medians = np.median(table[:, 6:], axis=0).round(3).tolist()
    names = KINDS + tuple(f"{kind}_best" for kind in KINDS)
    times = ("box_seconds", "click_seconds", "correction_seconds")
    scores = dict(zip(names, means, strict=True)) | {"objects": len(rows)}
    return scores | dict(zip(times, medians, strict=True))


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    sam: Annotated[str, typer.Option(help="The SAM to measure.")] = "nano",
    once: Annotated[bool, typer.Option(help="Look at one magnification only.")] = False,
    sets: Annotated[str, typer.Option(help="Names of sets; all by default.")] = "",
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/promptable.json"
    ),
) -> None:
    """Measure each set and write the results."""
    backbone = load_backbone(sam)
    if once:
        backbone = replace(backbone, sizes=None)
    results = json.loads(out.read_text()) if out.exists() else {}
    wanted = sets.split(",") if sets else list(SETS)
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        if name not in results:
            results[name] = measure_set(backbone, data / name, SETS[name])
            out.write_text(json.dumps(results, indent=2) + "\n")
        print(name, results[name], flush=True)
    for which in (*KINDS, *(f"{kind}_best" for kind in KINDS)):
        seen, new = (
            [
                row[which]
                for name, row in results.items()
                if (SETS[name] is None) == unseen and which in row
            ]
            for unseen in (False, True)
        )
        if seen and new:
            print(
                f"{which}: training sets {np.mean(seen):.3f}, others {np.mean(new):.3f}"
            )


if __name__ == "__main__":
    typer.run(main)
