"""The whole first job in the window, on real images: annotated, tuned, applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medseg import metrics
from napari_medseg.inference import load
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.widgets.segment import SegmentWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SET = "isbi2012_em_membrane"
"""Never trained on by the SAM that comes with the package."""

ANNOTATED, IMAGES = 16, 18


def stack(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(N, Y, X)`` and their masks."""
    paths = sorted((data / SET / "images").iterdir())[:IMAGES]
    images = [read_image(path).plane()[0] for path in paths]
    masks = [
        read_annotation(next((data / SET / "masks").glob(f"{path.stem}.*"))).labels
        for path in paths
    ]
    return np.stack(images), np.stack(masks).astype(np.int32)


@pytest.mark.slow
def test_annotated_layers_become_a_model_that_gives_the_same_when_reloaded(
    make_napari_viewer_proxy: Callable[[], Any],
    qtbot: Any,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    images, masks = stack(shared_data)
    annotation = masks.copy()
    annotation[ANNOTATED:] = 0
    viewer = make_napari_viewer_proxy()
    image = viewer.add_image(images, name="membranes")
    labels = viewer.add_labels(annotation)
    tune = TuneWidget(viewer)
    viewer.window.add_dock_widget(tune, name="Tune")
    tune.reset_choices()
    tune.source.choose_layers(image, labels)
    viewer.dims.set_current_step(0, IMAGES - 1)
    with qtbot.waitSignal(tune.tuned, timeout=900_000):
        tune.findChild(QPushButton, "Tune").click()
    assert "Dice" in tune.card.text()
    saved = tmp_path / "membranes ö.medseg"
    tune.save(saved)

    form = SegmentWidget(viewer)
    viewer.window.add_dock_widget(form, name="Segment")
    form.reset_choices()
    form.segment_with(saved, image)
    told = form.findChild(QLabel, "told")
    qtbot.waitUntil(lambda: told.text() == "Done.", timeout=300_000)
    shown = viewer.layers[-1].data
    reloaded = load(saved, "cpu").predict(images[-1:].astype(np.float32)).labels
    np.testing.assert_array_equal(shown[-1], reloaded)
    assert not shown[:-1].any()
    assert metrics.dice(shown[-1] > 0, masks[-1] > 0) > 0.55
