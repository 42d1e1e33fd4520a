"""Make the pictures of the documentation from the real window.

    python docs/pictures.py --data DIR [--out docs/images]

``DIR`` holds the image sets as the benchmarks use them. A screen is needed; under
Linux without one: ``xvfb-run -s "-screen 0 1600x1000x24 +extension GLX" python …``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.widgets.segment import SegmentWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable

SET = "usiigaci_phase_contrast"
"""The set that is shown."""

ANNOTATED, SHOWN = 16, 20
"""Images annotated, and images in the stack."""

PATIENCE = 900.0
"""Seconds a step of the script may take."""


def wait(until: Callable[[], bool]) -> None:
    """Let the window live until something is the case."""
    end = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.01)


def stack(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images and masks, the last few of them without any annotation."""
    paths = sorted((data / SET / "images").iterdir())[:SHOWN]
    images, masks = [], []
    for path in paths:
        images.append(read_image(path).plane()[0])
        mask = next((data / SET / "masks").glob(f"{path.stem}.*"))
        masks.append((read_annotation(mask).labels > 0).astype(np.int32))
    annotation = np.stack(masks)
    annotation[ANNOTATED:] = 0
    return np.stack(images), annotation


def main() -> None:
    """Open the window, work in it, and take pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    images, annotation = stack(arguments.data)
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)

    def picture(name: str) -> None:
        end = time.monotonic() + 0.5
        wait(lambda: time.monotonic() > end)
        path = arguments.out / f"{name}.png"
        viewer.screenshot(str(path), canvas_only=False, flash=False)

    image = viewer.add_image(images, name="cells")
    labels = viewer.add_labels(annotation, name="annotation")
    form = TuneWidget(viewer)
    viewer.window.add_dock_widget(form, name="Tune")
    form.reset_choices()
    form.source.choose_layers(image, labels)
    viewer.dims.set_current_step(0, SHOWN - 1)
    tune(form)
    wait(lambda: len(form.curve.dices) >= 6)
    picture("tune")
    done: list[str] = []
    form.tuned.connect(done.append)
    wait(lambda: bool(done))
    picture("card")
    segment(viewer, form, Path(done[0]), image)
    picture("segment")
    viewer.close()


def tune(form: Any) -> None:
    """Press Tune."""
    form.findChild(object, "Tune").click()


def segment(viewer: Any, form: TuneWidget, model: Path, image: Any) -> None:
    """Apply the tuned model to the slice in view, as objects."""
    for layer in list(viewer.layers):
        layer.visible = layer is image
    viewer.window.remove_dock_widget(form)
    applied = SegmentWidget(viewer)
    viewer.window.add_dock_widget(applied, name="Segment")
    applied.reset_choices()
    applied.findChild(object, "result").setCurrentText("objects")
    before = len(viewer.layers)
    applied.segment_with(model, image)
    told = applied.findChild(object, "told")
    wait(lambda: len(viewer.layers) > before and told.text() == "Done.")


if __name__ == "__main__":
    main()
