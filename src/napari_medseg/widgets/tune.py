"""Tune: from annotated layers or folders to a model, watched as it learns."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.theme import get_theme
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import MedsegError, Progress
from napari_medseg.widgets._annotated import Row, pairs_of_layers, rows_of_layers
from napari_medseg.widgets._card import Card
from napari_medseg.widgets._command import save_annotated, train_command
from napari_medseg.widgets._comparing import Comparing
from napari_medseg.widgets._curve import Curve
from napari_medseg.widgets._folded import Folded
from napari_medseg.widgets._jobs import Relay, engine_of
from napari_medseg.widgets._long_job import LongJob
from napari_medseg.widgets._method_choice import MethodChoice
from napari_medseg.widgets._models import tuned_folder
from napari_medseg.widgets._opening import list_models_again, segment_form
from napari_medseg.widgets._preview import Preview
from napari_medseg.widgets._rows import RowList
from napari_medseg.widgets._source import Source
from napari_medseg.widgets._suspects import SuspectLabels
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image, Labels

    from napari_medseg.engine import Engine


class TuneWidget(QWidget):
    """Tunes a model on annotated images of a viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.

    Attributes
    ----------
    tuned : Signal
        With the path of a model that was tuned, once the form is ready for the next.
    """

    tuned = Signal(str)

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self, viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._preview = Preview(viewer)
        self._suspects = SuspectLabels(viewer)
        self._model: Path | None = None
        self._is_new = False
        self.source = Source()
        self.source.changed.connect(self._rows_are_old)
        self.curve = Curve()
        self.card = Card()
        self._choice = MethodChoice()
        self._list = RowList()
        self._told = Words("told")
        self._bar = QProgressBar()
        self._job = LongJob("tune", self._bar, self)
        self._job.progressed.connect(self.curve.add)
        self._job.shown.connect(self._show_progress)
        self._job.told.connect(self._tell)
        self._job.cancelled.connect(lambda: self._tell("Cancelled; nothing is kept."))
        self._job.done.connect(self._on_done)
        self._job.ended.connect(self._on_ended)
        self._job.taken_over.connect(self._on_begun)
        self.comparing = Comparing(self._annotated, self._choice.base, self._the_engine)
        self.comparing.taken.connect(self._on_taken)
        self._buttons = {
            name: _button(name, tip, slot)
            for name, tip, slot in (
                ("Check", "Look for problems before tuning", self._on_check_clicked),
                ("Tune", "Train on the annotated images", self._on_tune_clicked),
                ("Pause", "Wait at the next step", self._on_pause_clicked),
                ("Stop", "End now and keep the best so far", self._on_stop_clicked),
                ("Cancel", "End now and keep nothing", self._on_cancel_clicked),
                ("Copy as command", "The line that trains so", self._on_copy_clicked),
                ("Save…", "Save the model file elsewhere", self._on_save_clicked),
                ("Apply", "Segment the image in view", self._on_apply_clicked),
            )
        }
        self._lay_out()
        self.tuned.connect(lambda _: list_models_again(viewer))
        self._viewer.events.theme.connect(self._take_theme)
        self._set_state(running=False)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.addWidget(self.source)
        layout.addWidget(self._choice)
        layout.addWidget(Folded("which method? try all of them", self.comparing))
        for names in (
            ("Check", "Tune", "Copy as command"),
            ("Pause", "Stop", "Cancel"),
        ):
            row = QHBoxLayout()
            for name in names:
                row.addWidget(self._buttons[name])
            layout.addLayout(row)
        for part in (self._list, self._bar, self._told, self.curve, self.card):
            layout.addWidget(part)
        row = QHBoxLayout()
        row.addWidget(self._buttons["Save…"])
        row.addWidget(self._buttons["Apply"])
        layout.addLayout(row)
        layout.addStretch(1)

    def reset_choices(self, event: Any = None) -> None:
        """List the layers; napari calls it when layers come and go."""
        self.source.reset_choices()

    def showEvent(self, event: Any) -> None:
        """List the layers: those of the viewer that the widget is now in."""
        super().showEvent(event)
        self.reset_choices()
        self._take_theme()
        self.curve.prepare()
        self._job.take_over()
        self.comparing.take_over()

    def _take_theme(self, event: Any = None) -> None:
        theme = get_theme(self._viewer.theme)
        self.curve.take_colours(theme.background.as_hex(), theme.text.as_hex())

    # ------------------------------------------------------------------ settings

    @property
    def method(self) -> str:
        """Name of the method."""
        return self._choice.method

    def config(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        return self._choice.config()

    def set_config(self, values: dict[str, Any]) -> None:
        """Show settings in the form."""
        self._choice.set_config(values)

    def go_on_from(self, model: str) -> None:
        """Ask for a training that goes on from a tuned model, where there is a way.

        Parameters
        ----------
        model : str
            A model file, or a name of the shelf.
        """
        if self._choice.go_on_from(model):
            self._tell(f"Goes on from {model}.")
        else:
            self._tell(f"Tune cannot go on from {model}; it begins afresh.")

    # --------------------------------------------------------------------- check

    def _on_check_clicked(self) -> None:
        if self.source.from_folders:
            relay = Relay(self)
            relay.done.connect(lambda rows: self._show_rows([Row(**r) for r in rows]))
            relay.failed.connect(lambda error: self._tell(str(error)))
            relay.ended.connect(relay.deleteLater)
            self._the_engine().submit("check", self.source.describe(), relay)
            return
        self._show_rows(self._layer_rows())

    def _layer_rows(self) -> list[Row]:
        image, labels = self.source.image, self.source.labels
        if image is None or labels is None:
            told = "choose an image layer and a labels layer that is painted on it"
            return [Row("no annotated image", told, "error")]
        return rows_of_layers(image, labels, self.source.kind)

    def _show_rows(self, rows: list[Row]) -> None:
        self._tell(self._list.show_rows(rows))

    def _rows_are_old(self) -> None:
        self._list.clear()

    # ---------------------------------------------------------------------- tune

    def _on_tune_clicked(self) -> None:
        try:
            arguments = self._arguments()
        except (MedsegError, OSError, ValueError) as error:
            self._tell(str(error))
            return
        if arguments is None:
            return
        self._job.start(self._the_engine(), "train", arguments)
        self._on_begun()
        if not self.source.from_folders:
            self._preview.begin()  # of folders it is not sure that there will be one

    def _on_begun(self) -> None:
        self.curve.clear_curve()
        self.card.setVisible(False)
        self._set_state(running=True)

    def _arguments(self) -> dict[str, Any] | None:
        """Return what the job ``train`` takes; None where the list says why."""
        now = datetime.datetime.now()
        watch = self._preview.watch(self.source.image)
        arguments: dict[str, Any] = {
            "method": self.method,
            "config": self.config(),
            "watch": watch,
            "out": str(self._free_place(now)),
            "date": now.date().isoformat(),
            "checkpoints": None,
        }
        pairs = self._annotated()
        return None if pairs is None else arguments | pairs

    def _annotated(self) -> dict[str, Any] | None:
        """Return the annotated images as jobs take them; None where the list says why.

        They are ``pairs`` or folders, with ``annotation``: what the values mean.
        """
        if self.source.from_folders:
            self._suspects.watch(None, None)
            if self.source.folders() is None:
                self._tell("Choose the folders of images and masks first.")
                return None
            return {"pairs": None, **self.source.describe()}
        layers = self._fitting_layers()
        if layers is None:
            return None
        self._suspects.watch(*layers)
        return {"pairs": pairs_of_layers(*layers), "annotation": self.source.kind}

    def _fitting_layers(self) -> tuple[Image, Labels] | None:
        """Return the image and its annotation; None where the list says why."""
        rows = self._layer_rows()
        self._show_rows(rows)
        image, labels = self.source.image, self.source.labels
        broken = [row for row in rows if row.severity == "error"]
        if broken or image is None or labels is None:
            self._tell(f"{broken[0].name}: {broken[0].told}." if broken else "")
            return None
        return image, labels

    def _free_place(self, now: datetime.datetime) -> Path:
        """Return a file for the model that is not there yet."""
        layer = self.source.image
        folders = self.source.folders()
        name = folders[0].name if self.source.from_folders and folders else "model"
        if layer is not None and not self.source.from_folders:
            name = layer.name
        plain = re.sub(r"[^\w\- ]+", "_", name).strip() or "model"
        return tuned_folder() / f"{plain[:40]} {now:%Y-%m-%d %H.%M.%S}.medseg"

    def _show_progress(self, progress: Progress) -> None:
        """Show progress: all of it at once, since each part repaints the window."""
        told = progress.message, self._preview.remark
        self._tell(" ".join(filter(None, told)))
        self.curve.draw()
        if progress.preview is not None:
            self._preview.show(progress.preview)

    def _on_done(self, result: dict[str, Any]) -> None:
        self._model = Path(result["model"])
        self.card.show_report(result["report"])
        self._suspects.show(result["suspects"])
        self._is_new = True
        self._tell(f"Kept as {self._model.name}.")

    def _on_ended(self) -> None:
        self._set_state(running=False)
        if self._is_new:
            self._is_new = False
            self.tuned.emit(str(self._model))

    # ------------------------------------------------------------------- buttons

    def _on_pause_clicked(self) -> None:
        if self._job.task is None:
            return
        self._job.pause()
        self._buttons["Pause"].setText("Continue" if self._job.paused else "Pause")
        if self._job.paused:
            self._tell("Paused.")

    def _on_stop_clicked(self) -> None:
        if self._job.task is not None:
            self._tell("Ending; the best so far is kept…")
            self._job.task.end_early()

    def _on_cancel_clicked(self) -> None:
        if self._job.task is not None:
            self._tell("Cancelling…")
            self._job.cancel()

    def _on_copy_clicked(self) -> None:
        """Copy the line; annotated layers are saved first, where the user says."""
        places = self.source.folders() if self.source.from_folders else None
        if not self.source.from_folders:
            name = QFileDialog.getExistingDirectory(
                self, "Where to save the annotated images that the command reads"
            )
            places = self.save_annotated(Path(name)) if name else None
        if places is not None:
            self._tell(f"Copied: {self.copy_command(*places)}")

    def save_annotated(self, folder: Path) -> tuple[Path, Path] | None:
        """Write the annotated slices into a new folder; None where that fails."""
        layers = self._fitting_layers()
        try:
            return save_annotated(*layers, folder) if layers else None
        except (MedsegError, OSError) as error:
            self._tell(str(error))
            return None

    def copy_command(self, images: Path, masks: Path) -> str:
        """Put the line that trains as the form says on the clipboard."""
        line = train_command(
            images,
            masks,
            images.parent / "model.medseg",
            method=self.method,
            annotation=self.source.kind,
            config=self.config(),
            channels=self.source.channels,
        )
        QApplication.clipboard().setText(line)
        return line

    def _on_save_clicked(self) -> None:
        if self._model is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the model", self._model.name, "Models (*.medseg)"
        )
        if name:
            self.save(Path(name))

    def save(self, path: Path) -> None:
        """Copy the tuned model to a file of the user's choice."""
        if self._model is None:
            return
        try:
            shutil.copyfile(self._model, path)
        except OSError as error:
            self._tell(f"{path} cannot be written: {error.strerror or error}.")
            return
        self._tell(f"Saved as {path}.")

    def _on_apply_clicked(self) -> None:
        if self._model is None:
            return
        form = segment_form(self._viewer)
        form.segment_with(self._model, self.source.image)

    def _on_taken(self, model: str) -> None:
        """Go on with what a comparison found best."""
        if not model.endswith(".medseg"):
            form = segment_form(self._viewer)
            form.models.choose(model)
            return
        self._model = Path(model)
        self._set_state(running=self._job.task is not None)
        self._tell(f"Kept as {self._model.name}.")
        self.tuned.emit(model)

    def _set_state(self, *, running: bool) -> None:
        for name in ("Check", "Tune", "Copy as command"):
            self._buttons[name].setEnabled(not running)
        for name in ("Pause", "Stop", "Cancel"):
            self._buttons[name].setEnabled(running)
        for name in ("Save…", "Apply"):
            self._buttons[name].setEnabled(not running and self._model is not None)
        is_paused = running and self._job.paused
        self._buttons["Pause"].setText("Continue" if is_paused else "Pause")
        self._bar.setVisible(running)
        self._bar.setRange(0, 0)

    def _the_engine(self) -> Engine:
        return self._engine or engine_of(self)

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _button(name: str, tip: str, slot: Any) -> QPushButton:
    button = QPushButton(name)
    button.setObjectName(name)
    button.setToolTip(tip)
    button.clicked.connect(slot)
    return button
