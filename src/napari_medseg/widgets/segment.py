"""Segment: any segmenter on the slice, the region, the layer or several layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from magicgui.widgets import create_widget
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import MedsegError, Progress
from napari_medseg.widgets._command import segment_command
from napari_medseg.widgets._jobs import Activity, engine_of
from napari_medseg.widgets._layers import (
    Plane,
    all_slices,
    class_colours,
    empty_labels,
    is_there,
    placement,
    region_in_view,
    slice_in_view,
)
from napari_medseg.widgets._measuring import Measurer
from napari_medseg.widgets._models import ModelChoice
from napari_medseg.widgets._segmenting import Order, SegmentRun
from napari_medseg.widgets._sliders import ObjectSliders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import napari
    from magicgui.widgets import ComboBox
    from numpy.typing import NDArray

    from napari_medseg.engine import Engine

SCOPES = ("this slice", "the region in view", "all slices")
"""What of the layer is segmented."""

MEASURE_DELAY = 400
"""Milliseconds that labels rest before their objects are measured."""

RESULTS = ("classes", "objects")
"""What the labels mean: each class a value, or each object."""


class SegmentWidget(QWidget):
    """Segments image layers of a viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.
    """

    def __init__(self, viewer: napari.Viewer, engine: Engine | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._run: SegmentRun | None = None
        self._activity: Activity | None = None
        self._target: Labels | None = None
        self._measurer: Measurer | None = None
        self._measuring = QTimer(self)
        self._measuring.setSingleShot(True)
        self._measuring.setInterval(MEASURE_DELAY)
        self._measuring.timeout.connect(self._measure)
        self._top = 0
        self._layers = cast("ComboBox", create_widget(annotation=Image, label="image"))
        self.models = ModelChoice()
        self.models.refused.connect(self._tell)
        self._scope = _combo("scope", SCOPES, "What of the layer is segmented")
        self._result = _combo(
            "result", RESULTS, "One value for each class, or for each object"
        )
        self._result.currentTextChanged.connect(self._on_result_changed)
        self._sliders = ObjectSliders()
        self._sliders.setEnabled(False)
        self._sliders.changed.connect(self._relabel)
        self._button = QPushButton("Segment")
        self._button.setObjectName("segment")
        self._button.clicked.connect(self._on_segment_clicked)
        self._cancel = QPushButton("Cancel")
        self._cancel.setObjectName("cancel")
        self._cancel.setEnabled(False)
        self._cancel.clicked.connect(self._on_cancel_clicked)
        self._bar = QProgressBar()
        self._bar.setVisible(False)
        self._told = QLabel()
        self._told.setObjectName("told")
        self._told.setWordWrap(True)
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("image", self._layers.native)
        form.addRow("model", self.models)
        form.addRow("what", self._scope)
        form.addRow("result", self._result)
        copy = QPushButton("Copy as command")
        copy.setObjectName("copy")
        copy.setToolTip("The line for the terminal that segments the same file so")
        copy.clicked.connect(self._on_copy_clicked)
        row = QHBoxLayout()
        for button in (self._button, self._cancel, copy):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(row)
        layout.addWidget(self._bar)
        layout.addWidget(self._sliders)
        layout.addWidget(self._told)
        layout.addStretch(1)

    def reset_choices(self, event: Any = None) -> None:
        """List the image layers; napari calls it when layers come and go."""
        self._layers.reset_choices()

    def showEvent(self, event: Any) -> None:
        """List the image layers: those of the viewer that the widget is now in."""
        super().showEvent(event)
        self.reset_choices()

    @property
    def layer(self) -> Image | None:
        """The chosen image layer."""
        chosen: Image | None = self._layers.value
        return chosen

    def segment_with(self, model: Path, layer: Image | None) -> None:
        """Choose a model file and a layer, and segment the slice in view."""
        self.models.refresh()
        self.models.open(model)
        if layer is not None:
            self._layers.value = layer
        self._on_segment_clicked()

    def objects(self) -> dict[str, Any] | None:
        """Return the settings of objects, or None for classes."""
        if self._result.currentText() == "classes":
            return None
        return self._sliders.values()

    def _planes(self, layer: Image) -> list[Plane]:
        scope = self._scope.currentText()
        if scope == SCOPES[0]:
            return [slice_in_view(layer, self._viewer)]
        if scope == SCOPES[1]:
            return [region_in_view(layer, self._viewer)]
        return all_slices(layer)

    def _on_segment_clicked(self) -> None:
        layer = self.layer
        if layer is None:
            self._tell("There is no image. Open one, or File > Open Sample > medseg.")
            return
        try:
            planes = tuple(self._planes(layer))
        except MedsegError as error:
            self._tell(str(error))
            return
        run = self._new_run()
        self._target = None
        self._set_running(True)
        self._activity = Activity("segment")
        run.start(Order(layer, planes, self.models.model, self.objects()))

    def _new_run(self) -> SegmentRun:
        """Return a run whose signals arrive here, and let the last one go."""
        if self._run is not None:
            self._run.deleteLater()
        run = SegmentRun(self._engine or engine_of(self), self)
        run.progressed.connect(self._on_progressed)
        run.labelled.connect(self._on_labelled)
        run.noted.connect(self._tell)
        run.ended.connect(self._on_ended)
        self._run = run
        return run

    def _on_copy_clicked(self) -> None:
        layer = self.layer
        path = layer.source.path if layer is not None else None
        if path is None:
            self._tell("The image is no file yet; save it first, and open the file.")
            return
        source = Path(path)
        out = source.parent / "segmented"
        line = segment_command(
            [source], out, model=self.models.model, objects=self.objects()
        )
        QApplication.clipboard().setText(line)
        self._tell(f"Copied: {line}")

    def _on_cancel_clicked(self) -> None:
        if self._run is not None:
            self._tell("Cancelling…")
            self._run.cancel()

    def _on_progressed(self, progress: Progress) -> None:
        self._bar.setRange(0, progress.total or 0)
        self._bar.setValue(progress.step)
        self._tell(progress.message)
        if self._activity is not None:
            self._activity.show(progress)

    def _on_labelled(
        self,
        plane: Plane,
        labels: NDArray[Any],
        classes: Sequence[Mapping[str, str]] | None,
    ) -> None:
        order = self._run.order if self._run else None
        if order is None or not is_there(order.layer, self._viewer):
            return
        if self._target is not None and not is_there(self._target, self._viewer):
            if classes is None:
                return  # a slider of a result that is gone
            self._target = None
        if self._target is None:
            self._target = self._add_target(order, classes or ())
        plane.of(self._target.data)[...] = self._numbered(order, plane, labels)
        self._target.refresh()
        if self._result.currentText() == "objects":
            self._measuring.start()

    def _numbered(self, order: Order, plane: Plane, labels: Any) -> Any:
        """Return objects with numbers that no slice before has: one row each."""
        if self._result.currentText() == "classes":
            return labels
        if plane == order.planes[0]:
            self._top = 0
        numbered = np.where(labels > 0, labels + self._top, 0)
        self._top = max(self._top, int(numbered.max(initial=0)))
        return numbered

    def _measure(self) -> None:
        """Fill the features table of the result, once it has come to rest."""
        run, target = self._run, self._target
        order = run.order if run else None
        if run is None or order is None or target is None:
            return
        if not is_there(order.layer, self._viewer):
            return
        if run.running:
            self._measuring.start()
            return
        if self._measurer is None:
            self._measurer = Measurer(self._engine or engine_of(self), self)
            self._measurer.ended.connect(self._tell)
        self._measurer.start(target, order.layer)

    def _add_target(self, order: Order, classes: Sequence[Mapping[str, str]]) -> Labels:
        """Add a labels layer over the image layer."""
        name = f"{order.layer.name}: {self.models.title}"
        names = [str(item["name"]) for item in classes]
        options: dict[str, Any] = {
            "name": name,
            "metadata": {"classes": names, "model": order.model},
            **placement(order.layer),
        }
        if order.objects is None:
            colours = class_colours(classes)
            options["colormap"] = DirectLabelColormap(color_dict=colours)
            options["features"] = {"index": range(len(names)), "class": names}
        target: Labels = self._viewer.add_labels(empty_labels(order.layer), **options)
        return target

    def _on_ended(self, told: str) -> None:
        self._set_running(False)
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._tell(told or "Done.")

    def _on_result_changed(self) -> None:
        self._sliders.setEnabled(self._result.currentText() == "objects")

    def _relabel(self) -> None:
        if self._run is not None and self._target is not None:
            self._run.relabel(self.objects())

    def _set_running(self, running: bool) -> None:
        self._button.setEnabled(not running)
        self._cancel.setEnabled(running)
        self._bar.setVisible(running)
        self._bar.setRange(0, 0)

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _combo(name: str, choices: Sequence[str], tip: str) -> QComboBox:
    box = QComboBox()
    box.setObjectName(name)
    box.addItems(list(choices))
    box.setToolTip(tip)
    return box
