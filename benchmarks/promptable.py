"""How well a SAM answers a box, a click, and five corrective clicks.

    python benchmarks/promptable.py --data DIR [--sam nano] [--out RESULTS.json]

Mean IoU of single objects. Of the sets that `nano` was trained on, only the images
held out from it are used; the other sets it has never seen. Objects are the instances
of a set, or the connected parts of its classes. A corrective click is set in the
middle of the largest wrong region.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import ndimage

from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.interactive import (
    InteractiveImage,
    Prompt,
    corrected,
    deepest,
)
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

SMALLEST = 64
"""Objects of fewer pixels are left out."""


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the IoU of two masks."""
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def measure_object(
    view: InteractiveImage, truth: np.ndarray
) -> tuple[float, float, float]:
    """Return the IoU from one box, from one click, after five corrective clicks."""
    rows, columns = np.nonzero(truth)
    edges = (rows.min(), columns.min(), rows.max(), columns.max())
    box = Prompt(box=tuple(float(edge) for edge in edges))
    from_box = iou(found_by(view, box), truth)
    prompt = Prompt((deepest(truth),), (True,))
    scores = []
    for _ in range(1 + CORRECTIONS):
        found = found_by(view, prompt)
        scores.append(iou(found, truth))
        prompt = corrected(prompt, found, truth)
    return from_box, scores[0], scores[-1]


def found_by(view: InteractiveImage, prompt: Prompt) -> np.ndarray:
    """Return the likeliest mask, in the whole image."""
    answer = view.answer(prompt)
    mask = np.zeros(view.shape, bool)
    mask[answer.region.slices] = answer.masks[0]
    return mask


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
        view = InteractiveImage(image, backbone)
        for index in rng.permutation(found)[:OBJECTS]:
            rows.append(measure_object(view, ids == index))
    means = np.array(rows).mean(axis=0).round(3).tolist()
    names = ("box", "click", "five_clicks")
    return dict(zip(names, means, strict=True)) | {"objects": len(rows)}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    sam: Annotated[str, typer.Option(help="The SAM to measure.")] = "nano",
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/promptable.json"
    ),
) -> None:
    """Measure each set and write the results."""
    backbone = load_backbone(sam)
    results = {}
    for name, share in SETS.items():
        results[name] = measure_set(backbone, data / name, share)
        print(name, results[name], flush=True)
    seen = [results[name]["box"] for name, share in SETS.items() if share is not None]
    new = [results[name]["box"] for name, share in SETS.items() if share is None]
    print(f"box IoU: training sets {np.mean(seen):.3f}, others {np.mean(new):.3f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
