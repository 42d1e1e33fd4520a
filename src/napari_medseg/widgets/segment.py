"""Segment: any segmenter on the slice, the region, the layer or several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.io.containers import file_of
from napari_medseg.widgets._combo import combo, layer_choice
from napari_medseg.widgets._command import segment_command
from napari_medseg.widgets._copy_button import CopyButton
from napari_medseg.widgets._copying import segment_line
from napari_medseg.widgets._jobs import Activity, engine_of
from napari_medseg.widgets._large import is_large
from napari_medseg.widgets._layers import all_slices, region_in_view, slice_in_view
from napari_medseg.widgets._mirrored import is_mirrored, mirrored_box
from napari_medseg.widgets._models import ModelChoice, phrases
from napari_medseg.widgets._phrase import PhrasePanel
from napari_medseg.widgets._preferences import preferences
from napari_medseg.widgets._results import ResultLayers
from napari_medseg.widgets._saving import SaveButtons
from napari_medseg.widgets._segmenting import Order, Part, SegmentRun
from napari_medseg.widgets._sliders import LabelSliders
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari.viewer

    from napari_medseg.engine import Engine

SLICE, REGION, ALL, SELECTED = SCOPES = (
    "this slice",
    "the region in view",
    "all slices",
    "selected layers",
)
"""What is segmented."""

RESULTS = ("classes", "objects")
"""What the labels mean: each class a value, or each object."""

NO_IMAGE = "There is no image. Open one, or File > Open Sample > medseg."
NOT_SELECTED = "Select image layers in the list of layers first."


class SegmentWidget(QWidget):
    """Segments image layers of a viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.
    """

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self, viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._run: SegmentRun | None = None
        self._activity: Activity | None = None
        self._results = ResultLayers(viewer, self._the_engine, self)
        self._results.told.connect(self._on_measured)
        self._outcome: list[str] = []  # of the latest run: what stays to be read
        self._layers = layer_choice(Image, "The image or stack to segment")
        self.models = ModelChoice(more=phrases)
        self.models.refused.connect(self._tell)
        self.phrase = PhrasePanel(viewer, self)
        self.phrase.changed.connect(self._relabel)
        self.phrase.asked.connect(self._start)
        self.models.changed.connect(lambda: self.phrase.choose(self.models.model))
        self._scope = combo("scope", SCOPES, "What is segmented")
        self._result = combo(
            "result", RESULTS, "One value for each class, or for each object"
        )
        self._result.currentTextChanged.connect(self._on_result_changed)
        self._mirrored = mirrored_box(self.models)
        self._sliders = LabelSliders()
        self._sliders.changed.connect(self._relabel)
        self.files = SaveButtons(lambda: self._results.layers, self._the_engine, self)
        self.files.told.connect(self._tell)
        self._button = _button(
            "Segment", "segment", "Segment with the chosen model", self._start
        )
        self._cancel = _button(
            "Cancel", "cancel", "End now; what is there stays", self._on_cancel_clicked
        )
        self._cancel.setEnabled(False)
        self._bar = QProgressBar()
        self._bar.setVisible(False)
        self._told = Words("told")
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("image", self._layers.native)
        form.addRow("model", self.models)
        form.addRow("what", self._scope)
        form.addRow("result", self._result)
        form.addRow(self._mirrored)
        row = QHBoxLayout()
        row.addWidget(self._button)
        row.addWidget(self._cancel)
        copy = CopyButton(
            "The line for the terminal that segments the same files so", self._line
        )
        copy.told.connect(self._tell)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(row)
        layout.insertWidget(1, self.phrase)
        for part in (self._bar, self._sliders, self.files, copy, self._told):
            layout.addWidget(part)
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

    def choose_model(self, model: Path) -> None:
        """Choose a model file; the line below the buttons says if it is none."""
        self.models.refresh()
        self.models.open(model)

    def segment_with(self, model: Path, layer: Image | None) -> None:
        """Choose a model file and a layer, and segment the slice in view."""
        self.choose_model(model)
        if layer is not None:
            self._layers.value = layer
        self._start()

    def how(self) -> dict[str, Any]:
        """Return how labels are made, as the engine's job ``segment`` takes it."""
        made: dict[str, Any] = {"objects": None, "classes": None}
        phrase = self.phrase.values()
        made |= {"phrase": phrase} if phrase is not None else {}
        return made | {self._sliders.kind: self._sliders.values()}

    def save(self, path: Path) -> None:
        """Save the result as label image; see `export`."""
        self.files.save(path)

    def export(self, path: Path, name: str) -> None:
        """Write the result in a format of `napari_medseg.io.exports.FORMATS`.

        The engine writes; ``files.written`` and the line below the buttons say when
        it has. Of several layers the path is the folder.
        """
        self.files.export(path, name)

    # ------------------------------------------------------------------- segment

    def _images(self) -> list[Image]:
        """Return the layers that are meant.

        Raises
        ------
        InputError
            There are none.
        """
        if self._scope.currentText() != SELECTED:
            if self.layer is None:
                raise InputError(NO_IMAGE)
            return [self.layer]
        chosen = self._viewer.layers.selection
        images = [each for each in self._viewer.layers if each in chosen]
        images = [each for each in images if isinstance(each, Image)]
        if not images:
            raise InputError(NOT_SELECTED)
        return images

    def _parts(self) -> tuple[Part, ...]:
        scope, images = self._scope.currentText(), self._images()
        if scope == SLICE:
            return (Part(images[0], slice_in_view(images[0], self._viewer)),)
        if scope == REGION:
            region = region_in_view(images[0], self._viewer)
            if is_large(region):
                raise InputError(
                    "The region in view is too large for memory. Zoom in, or choose "
                    f'"{SLICE}", which is done in pieces.'
                )
            return (Part(images[0], region),)
        return tuple(
            Part(image, plane) for image in images for plane in all_slices(image)
        )

    def _start(self) -> None:
        if self._run is not None and self._run.running:
            return
        try:
            parts = self._parts()
        except MedsegError as error:
            self._tell(str(error))
            return
        model, title = self.models.model, self.models.title
        self.phrase.clear()  # segments are others now
        order = Order(
            parts,
            self.phrase.model(model),
            self.how(),
            device=preferences().device,
            title=self.phrase.title(model, title),
            mirrored=is_mirrored(self._mirrored),
        )
        self.phrase.begin(order)
        run = self._new_run()
        self._outcome = []
        self._results.begin(order, self._sliders.kind)
        self._set_running(True)
        self._activity = Activity("segment")
        run.start(order)

    def _new_run(self) -> SegmentRun:
        """Return a run whose signals arrive here, and let the last one go."""
        if self._run is not None:
            self._run.deleteLater()
        run = SegmentRun(self._the_engine(), self)
        run.progressed.connect(self._on_progressed)
        run.labelled.connect(self._results.take)
        run.labelled.connect(self.phrase.take)
        run.noted.connect(self._on_noted)
        run.ended.connect(self._on_ended)
        self._run = run
        return run

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

    def _on_noted(self, note: str) -> None:
        if self._run is not None and self._run.running and note not in self._outcome:
            self._outcome.append(note)
        self._tell(note)

    def _on_ended(self, told: str) -> None:
        self._set_running(False)
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._outcome += [told] if told else []
        self._tell(" ".join(self._outcome) or "Done.")
        self._results.measure_soon()
        order = self._run.order if self._run else None
        if order is not None and order.how != self.how():
            self._relabel()  # a slider was moved meanwhile

    def _on_measured(self, told: str) -> None:
        self._tell(" ".join([*self._outcome, told]))

    def _set_running(self, running: bool) -> None:
        self._button.setEnabled(not running)
        self._result.setEnabled(not running)
        self._cancel.setEnabled(running)
        self._bar.setVisible(running)
        self._bar.setRange(0, 0)

    # ------------------------------------------------------------------- relabel

    def _on_result_changed(self) -> None:
        self._sliders.choose(self._result.currentText())
        if self._results.change(self._sliders.kind):
            self._relabel()

    def _relabel(self) -> None:
        if self._run is not None:
            self._run.relabel(self.how())

    # ------------------------------------------------------------------- command

    def _line(self) -> Callable[[], str]:
        """Return what looks at the files, and gives the command."""
        objects = self._sliders.values() if self._sliders.kind == "objects" else None
        how: dict[str, Any] = {
            "model": self.phrase.model(self.models.model, whole=True),
            "objects": objects,
            "classes": None if objects else self._sliders.changed_values(),
            "device": preferences().device,
            "mirrored": is_mirrored(self._mirrored),
        }

        def line(files: list[Path], channels: list[int]) -> str:
            # beside the file, which may be an image in a file
            out = file_of(files[0]).parent / "segmented"
            return segment_command(files, out, channels=channels, **how)

        return segment_line(self._images(), line)

    def _the_engine(self) -> Engine:
        return self._engine or engine_of(self)

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _button(text: str, name: str, tip: str, slot: Any) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tip)
    # a click brings a state along, which the slots have no use for
    button.clicked.connect(lambda *_: slot())
    return button
