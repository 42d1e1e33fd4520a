"""How quickly the window answers, and whether it ever waits.

    python benchmarks/window.py --data DIR [--out RESULTS.json]

Seconds to import and dock each form, to start the engine, from a click to the mask
that SAM suggests, and the longest gap of the event loop: of a window at rest, and
while a training goes on. A screen is needed; under Linux without one, ``xvfb-run``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import napari
import numpy as np
import typer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from sets import SETS

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS = {
    "Annotate": ("napari_medseg.widgets.annotate", "AnnotateWidget"),
    "Tune": ("napari_medseg.widgets.tune", "TuneWidget"),
    "Segment": ("napari_medseg.widgets.segment", "SegmentWidget"),
}

IMAGES = 16
CLICKS = 20
WATCHED = 60.0
"""Seconds of a training in which the event loop is watched."""

PATIENCE = 600.0


def wait(until: Callable[[], bool]) -> float:
    """Let the window live until something is the case; return the seconds."""
    started = time.monotonic()
    while not until():
        if time.monotonic() - started > PATIENCE:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.001)
    return time.monotonic() - started


def import_seconds(module: str) -> float:
    """Return what importing a form takes beyond napari itself, in a new process."""
    code = (
        "import napari, time, sys; import napari.layers; from qtpy import QtWidgets\n"
        f"started = time.perf_counter()\nimport {module}\n"
        "print(time.perf_counter() - started, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, torch = done.stdout.split()
    if torch == "True":
        raise RuntimeError(f"{module} brings torch into the viewer's process")
    return float(seconds)


class Heart(QTimer):
    """Beats every few milliseconds and remembers the longest time between two beats."""

    def __init__(self) -> None:
        super().__init__()
        self.setInterval(5)
        self.timeout.connect(self.beat)
        self.longest = 0.0
        self._last = time.monotonic()

    def beat(self) -> None:
        """Note the time since the beat before."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def watch(self, seconds: float, until: Callable[[], bool]) -> float:
        """Return the longest gap in so many seconds, or until something happens."""
        self._last, self.longest = time.monotonic(), 0.0
        self.start()
        end = self._last + seconds
        while time.monotonic() < end and not until():
            QApplication.processEvents()
            time.sleep(0.001)
        self.stop()
        return self.longest


def docked(viewer: Any, name: str) -> tuple[Any, float]:
    """Dock a form as the menu does; return it with the seconds that took."""
    started = time.monotonic()
    _, widget = viewer.window.add_plugin_dock_widget("napari-medseg", name)
    QApplication.processEvents()
    return widget, time.monotonic() - started


def measure_clicks(viewer: Any, image: Any) -> dict[str, float]:
    """Return seconds until SAM is ready, and from a click to the mask."""
    form, _ = docked(viewer, "Annotate")
    form.reset_choices()
    form.choose(image)
    ready: list[bool] = []
    started = time.monotonic()
    form.findChild(object, "start").click()
    form._suggester.ready.connect(lambda: ready.append(True))
    wait(lambda: bool(ready))
    first = time.monotonic() - started
    found: list[Any] = []
    form._suggester.suggested.connect(found.append)
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(CLICKS):
        form.clear()
        found.clear()
        place = rng.uniform(50, 450, 2)
        form.click(image.data_to_world((0, *place)))
        seconds.append(wait(lambda: bool(found) and found[-1] is not None))
    return {
        "engine_start_and_first_embedding": round(first, 2),
        "click_median": round(float(np.median(seconds)), 4),
        "click_worst": round(max(seconds), 4),
    }


def measure_gaps(viewer: Any, image: Any, labels: Any) -> dict[str, float]:
    """Return the longest gap of the event loop at rest, and while tuning."""
    heart = Heart()
    rest = heart.watch(10.0, lambda: False)
    form, _ = docked(viewer, "Tune")
    form.reset_choices()
    form.source.choose_layers(image, labels)
    done: list[str] = []
    form.tuned.connect(done.append)
    form.findChild(object, "Tune").click()
    busy = heart.watch(WATCHED, lambda: bool(done))
    wait(lambda: bool(done))
    return {"gap_at_rest": round(rest, 4), "gap_while_tuning": round(busy, 4)}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/window.json"
    ),
) -> None:
    """Measure and write the results."""
    results: dict[str, float] = {
        f"import_{name}": round(import_seconds(module), 3)
        for name, (module, _) in FORMS.items()
    }
    pairs = SETS["membrane"].draw(data, IMAGES, 0)
    viewer = napari.Viewer()
    image = viewer.add_image(np.stack([pair.image[0] for pair in pairs]), name="images")
    masks = np.stack([pairs.targets(index) for index in range(IMAGES)])
    labels = viewer.add_labels(masks, name="annotation")
    for name in FORMS:
        widget, seconds = docked(viewer, name)
        results[f"dock_{name}"] = round(seconds, 3)
        viewer.window.remove_dock_widget(widget)
    results |= measure_clicks(viewer, image)
    results |= measure_gaps(viewer, image, labels)
    viewer.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    typer.run(main)
