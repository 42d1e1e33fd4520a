"""How quickly the window answers, and whether it ever waits.

    python benchmarks/window.py --data DIR [--out RESULTS.json]

Seconds to import and dock each form, to start the engine, from a click to the mask
that SAM suggests, and the longest gaps of the event loop: of a window at rest, of one
in which napari repaints a layer of its own now and then, and while a training goes on.
What the second has, a form cannot do without; the third says how much is ours. Every
time is given twice: by the clock, which other programs lengthen, and by the processor's
seconds of the window's process. A screen is needed; under Linux without one,
``xvfb-run``.
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
    "Folders": ("napari_medseg.widgets.batch", "BatchWidget"),
    "Measure": ("napari_medseg.widgets.measure", "MeasureWidget"),
    "Review": ("napari_medseg.widgets.review", "ReviewWidget"),
}

IMAGES = 16
CLICKS = 20

LOOKS_AROUND = 15.0
"""Seconds in which SAM has embedded what clicks on the image may need."""

WATCHED = 60.0
"""Seconds of a training in which the event loop is watched."""

PATIENCE = 1800.0


def wait(until: Callable[[], bool]) -> float:
    """Let the window live until something is the case; return the seconds."""
    started = time.monotonic()
    while not until():
        if time.monotonic() - started > PATIENCE:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.001)
    return time.monotonic() - started


def import_seconds(module: str) -> tuple[float, float]:
    """Return what importing a form takes in a new process with a viewer."""
    code = (
        "import napari, time, sys\nviewer = napari.Viewer(show=False)\n"
        "started, before = time.perf_counter(), time.process_time()\n"
        f"import {module}\n"
        "print(time.perf_counter() - started, time.process_time() - before,"
        " 'torch' in sys.modules, flush=True)\nimport os\nos._exit(0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, processor, torch = done.stdout.split()
    if torch == "True":
        raise RuntimeError(f"{module} brings torch into the viewer's process")
    return float(seconds), float(processor)


def both(name: str, seconds: tuple[float, float]) -> dict[str, float]:
    """Return seconds by the clock and of the processor as results."""
    clock, processor = seconds
    return {name: round(clock, 3), f"{name}_processor": round(processor, 3)}


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


def docked(viewer: Any, name: str) -> tuple[Any, tuple[float, float]]:
    """Dock a form as the menu does; return it with the seconds that took."""
    started, before = time.monotonic(), time.process_time()
    _, widget = viewer.window.add_plugin_dock_widget("napari-medseg", name)
    QApplication.processEvents()
    return widget, (time.monotonic() - started, time.process_time() - before)


def measure_clicks(viewer: Any, image: Any) -> dict[str, float]:
    """Return seconds until SAM is ready, and from a click to the mask.

    Clicks come at once, while SAM still looks around, and again when it has.
    """
    form, _ = docked(viewer, "Annotate")
    form.reset_choices()
    form.choose(image)
    ready: list[bool] = []
    started = time.monotonic()
    form.findChild(object, "start").click()
    form._suggester.ready.connect(lambda: ready.append(True))
    wait(lambda: bool(ready))
    first = time.monotonic() - started
    at_once = click_seconds(form, image)
    wait_quietly(LOOKS_AROUND)
    later = click_seconds(form, image)
    return {
        "engine_start_and_first_embedding": round(first, 2),
        "click_at_once_median": round(float(np.median(at_once)), 4),
        "click_median": round(float(np.median(later)), 4),
        "click_worst": round(max(later), 4),
    }


def click_seconds(form: Any, image: Any) -> list[float]:
    """Click, and return the seconds until each mask is there."""
    found: list[Any] = []
    form._suggester.suggested.connect(found.append)
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(CLICKS):
        form.clear()
        QApplication.processEvents()  # nobody clicks while the window clears
        found.clear()
        place = rng.uniform(50, 450, 2)
        form.click(image.data_to_world((0, *place)))
        seconds.append(wait(lambda: bool(found) and found[-1] is not None))
    form._suggester.suggested.disconnect(found.append)
    return seconds


def wait_quietly(seconds: float) -> None:
    """Let the window be for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def measure_gaps(viewer: Any, image: Any, labels: Any) -> dict[str, float]:
    """Return the longest gap of the event loop at rest, and while tuning."""
    heart = Heart()
    rest = heart.watch(10.0, lambda: False)
    painter = QTimer()
    painter.setInterval(250)
    painter.timeout.connect(lambda: labels.refresh(thumbnail=False, extent=False))
    painter.start()
    painting = heart.watch(10.0, lambda: False)
    painter.stop()
    form, _ = docked(viewer, "Tune")
    form.reset_choices()
    form.source.choose_layers(image, labels)
    done: list[str] = []
    form.tuned.connect(done.append)
    started, before = time.monotonic(), time.process_time()
    form.findChild(object, "Tune").click()
    pressed = time.monotonic() - started, time.process_time() - before
    QApplication.processEvents()
    busy = heart.watch(WATCHED, lambda: bool(done))
    if not done:
        form.findChild(object, "Stop").click()
    wait(lambda: bool(done))
    return {
        "gap_at_rest": round(rest, 4),
        "gap_while_napari_repaints": round(painting, 4),
        "gap_while_tuning": round(busy, 4),
        **both("press_tune", pressed),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = Path(
        "benchmarks/results/window.json"
    ),
) -> None:
    """Measure and write the results."""
    results: dict[str, float] = {}
    for name, (module, _) in FORMS.items():
        results |= both(f"import_{name}", import_seconds(module))
    pairs = SETS["membrane"].draw(data, IMAGES, 0)
    viewer = napari.Viewer()
    image = viewer.add_image(np.stack([pair.image[0] for pair in pairs]), name="images")
    masks = np.stack([pairs.targets(index) for index in range(IMAGES)])
    labels = viewer.add_labels(masks, name="annotation")
    for name in FORMS:
        widget, seconds = docked(viewer, name)
        results |= both(f"dock_{name}", seconds)
        viewer.window.remove_dock_widget(widget)
    results |= measure_clicks(viewer, image)
    results |= measure_gaps(viewer, image, labels)
    viewer.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    typer.run(main)
