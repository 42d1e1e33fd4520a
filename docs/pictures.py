"""Make the pictures of the documentation from the real window.

    python docs/pictures.py --data DIR [--out docs/images] [--only NAME,NAME]

``DIR`` holds the image sets as the benchmarks use them. A screen is needed; under
Linux without one: ``xvfb-run -s "-screen 0 1600x1000x24 +extension GLX" python …``.
The images are of Usiigaci (Tsai et al., SoftwareX 9, 2019), under the MIT licence.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QApplication, QMenu

from napari_medseg.io.images import read_annotation, read_image

if TYPE_CHECKING:
    from collections.abc import Callable

SET = "usiigaci_phase_contrast"
"""The set that is shown."""

ANNOTATED, SHOWN = 16, 20
"""Images annotated, and images in the stack."""

PATIENCE = 900.0
"""Seconds a step of the script may take."""

SIZE = (1500, 950)
"""Width and height of the window."""


def wait(until: Callable[[], bool]) -> None:
    """Let the window live until something is the case."""
    end = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.01)


def rest(seconds: float = 0.7) -> None:
    """Let the window come to rest."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def stack(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images and objects, the last few images without any annotation."""
    paths = sorted((data / SET / "images").iterdir())[:SHOWN]
    images, masks = [], []
    for path in paths:
        images.append(read_image(path).plane()[0])
        mask = next((data / SET / "masks").glob(f"{path.stem}.*"))
        masks.append(read_annotation(mask).labels)
    annotation = np.stack(masks)
    annotation[ANNOTATED:] = 0
    return np.stack(images), annotation


class Studio:
    """A window, and pictures of it.

    Parameters
    ----------
    data : Path
        Folder of the data sets.
    out : Path
        Where the pictures go.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self.data = data
        self.out = out
        self.images, self.objects = stack(data)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*SIZE)

    def picture(self, name: str) -> None:
        """Take a picture of the window."""
        rest()
        path = self.out / f"{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    def form(self, name: str) -> Any:
        """Dock a form as the menu does, and nothing else beside it."""
        self.viewer.window.remove_dock_widget("all")
        _, form = self.viewer.window.add_plugin_dock_widget("napari-medseg", name)
        form.reset_choices()
        rest()
        return form

    def show(self, *, objects: bool = False) -> tuple[Any, Any]:
        """Show the images alone, and their annotation if it is wanted."""
        self.viewer.layers.clear()
        image = self.viewer.add_image(self.images, name="cells")
        annotation = np.where(self.objects > 0, 1, 0).astype(np.int32)
        labels = None
        if objects:
            labels = self.viewer.add_labels(annotation, name="annotation")
        self.viewer.reset_view()
        return image, labels


def stroke(cell: np.ndarray) -> list[tuple[int, int]]:
    """Return a line through the middle of a cell, as somebody would draw it."""
    rows, columns = np.nonzero(cell)
    turned = np.ptp(rows) > np.ptp(columns)
    along, across = (rows, columns) if turned else (columns, rows)
    low, high = np.quantile(along, (0.25, 0.75)).astype(int)
    line = [(step, int(np.median(across[along == step]))) for step in range(low, high)]
    return line if turned else [(row, column) for column, row in line]


def annotate(studio: Studio) -> None:
    """Scribble, and let SAM suggest a cell, on a phase-contrast image."""
    viewer = studio.viewer
    image, _ = studio.show()
    viewer.dims.set_current_step(0, 0)
    form = studio.form("Annotate")
    form.choose(image)
    kind = form.findChild(object, "kind")
    kind.setCurrentIndex(1)  # scribbles
    press(form, "start")
    rest(1.0)
    annotation = next(layer for layer in viewer.layers if "annotation" in layer.name)
    cells = studio.objects[0]
    values, counts = np.unique(cells[cells > 0], return_counts=True)
    order = values[np.argsort(-counts)]
    annotation.brush_size = 7
    for value in order[:6]:
        for row, column in stroke(cells == value):
            annotation.paint((0, row, column), 2)
    for row in range(20, 780, 3):
        if not cells[row, 395:405].any():
            annotation.paint((0, row, 400), 1)
    told = form.findChild(object, "told")
    wait(lambda: "Ready" in told.text())
    suggested: list[Any] = []
    form._suggester.suggested.connect(suggested.append)
    rows, columns = np.nonzero(cells == order[9])
    form.click((0, rows.mean(), columns.mean()))
    wait(lambda: any(item is not None for item in suggested))
    viewer.camera.zoom *= 1.4
    studio.picture("annotate")


def folder(studio: Studio) -> None:
    """Show a folder of images as a list, some of them done."""
    studio.viewer.layers.clear()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "day 3"
        place.mkdir()
        for path in sorted((studio.data / SET / "images").iterdir())[:9]:
            shutil.copy(path, place / path.name)
        masks = place / "annotations"
        masks.mkdir()
        for path in sorted((studio.data / SET / "masks").iterdir())[:4]:
            shutil.copy(path, masks / path.name)
        form = studio.form("Annotate")
        form.open_folder(place)
        rest(4.0)
        studio.picture("folder")
        studio.viewer.window.remove_dock_widget("all")
        studio.viewer.layers.clear()
        rest()


def review(studio: Studio) -> None:
    """Show the results of a run in Review, some of them accepted."""
    studio.viewer.layers.clear()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        training, new = place / "annotated", place / "day 4"
        paths = sorted((studio.data / SET / "images").iterdir())
        for path in paths[:12]:
            copy_to(path, training / "images")
            mask = next((studio.data / SET / "masks").glob(f"{path.stem}.*"))
            copy_to(mask, training / "masks")
        for path in paths[-8:]:
            copy_to(path, new)
        words = ["segment", new, "--model", "cells-phase", "--references", training]
        # in a process of its own, as torch has no place in that of the viewer
        command = [sys.executable, "-m", "napari_medseg", *words]
        subprocess.run([*command, "--out", place / "results"], check=True)
        form = studio.form("Review")
        form.review(place / "results", training)
        listed = form.annotate.folder
        for _ in range(3):  # the first opens one, the others accept
            listed.done_next()
            rest(6.0)
        studio.picture("review")
        listed.close()
        studio.viewer.window.remove_dock_widget("all")
        studio.viewer.layers.clear()
        rest()


def copy_to(path: Path, folder: Path) -> None:
    """Copy a file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / path.name)


def tune(studio: Studio) -> None:
    """Show Tune in mid-training, then its card, then what the model does."""
    image, labels = studio.show(objects=True)
    form = studio.form("Tune")
    form.source.choose_layers(image, labels)
    studio.viewer.dims.set_current_step(0, SHOWN - 1)
    done: list[str] = []
    form.tuned.connect(done.append)
    press(form, "Tune")
    wait(lambda: len(form.curve.dices) >= 6)
    studio.picture("tune")
    wait(lambda: bool(done))
    studio.picture("card")
    studio.viewer.layers.clear()
    segment(studio, Path(done[0]))


def segment(studio: Studio, model: Path) -> None:
    """Apply a model to a slice, as objects, with their table."""
    image, _ = studio.show()
    studio.viewer.dims.set_current_step(0, SHOWN - 1)
    form = studio.form("Segment")
    form.findChild(object, "result").setCurrentText("objects")
    form.segment_with(model, image)
    wait(lambda: len(studio.viewer.layers) > 1)
    labels = studio.viewer.layers[-1]
    wait(lambda: "area" in " ".join(map(str, labels.features.columns)))
    _, _ = studio.viewer.window.add_plugin_dock_widget(
        "napari", "Features table widget"
    )
    studio.viewer.layers.selection.active = labels
    studio.picture("segment")


def menus(studio: Studio) -> None:
    """Show the entries of the Layers menu."""
    studio.show()
    studio.viewer.window.remove_dock_widget("all")
    rest()
    window = studio.viewer.window._qt_window
    bar = window.menuBar()
    layers = next(each for each in bar.actions() if "ayers" in each.text())
    menu = layers.menu()
    menu.popup(bar.mapToGlobal(bar.actionGeometry(layers).bottomLeft()))
    rest()
    entry = next(each for each in menu.actions() if each.text() == "Segment")
    below: QMenu = entry.menu()
    corner = menu.actionGeometry(entry).topRight()
    below.popup(menu.mapToGlobal(corner))
    rest()
    screen = QApplication.primaryScreen()
    corner = window.mapToGlobal(QPoint(0, 0))
    grabbed = screen.grabWindow(0, corner.x(), corner.y(), 900, 480)
    grabbed.save(str(studio.out / "menus.png"))
    below.close()
    menu.close()


def press(form: Any, name: str) -> None:
    """Press a button."""
    form.findChild(object, name).click()


PICTURES = {
    "annotate": annotate,
    "folder": folder,
    "menus": menus,
    "review": review,
    "tune": tune,
}
"""What can be made; ``tune`` makes the card and the segmented layer, too."""


def main() -> None:
    """Open the window, work in it, and take pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", default=",".join(PICTURES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    studio = Studio(arguments.data, arguments.out)
    for name in arguments.only.split(","):
        PICTURES[name](studio)
    studio.viewer.close()


if __name__ == "__main__":
    main()
