"""Saving labels layers as files: what is asked of the user, and the writing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QMessageBox,
    QPushButton,
    QWidget,
)

from napari_medseg._types import MedsegError
from napari_medseg.io.exports import FORMATS
from napari_medseg.layer_data.label_stack import LabelStack, label_stack, to_plain
from napari_medseg.layer_data.writers import with_ending
from napari_medseg.widgets._jobs import Relay
from napari_medseg.widgets._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_medseg.engine import Engine

SAVED = "tif"
"""The format of Save."""

NOTHING = "There are no labels to save yet."


class SaveButtons(QWidget):
    """Save and Export for labels layers; the engine writes, so that nothing waits.

    Parameters
    ----------
    layers : callable
        Returns the layers that are meant when a button is pressed.
    engine : callable
        Returns the engine that writes.
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    told : Signal
        With a sentence: what was written where, or what went wrong.
    written : Signal
        With the path of a file that was written.
    """

    told = Signal(str)
    written = Signal(object)

    def __init__(
        self,
        layers: Callable[[], list[Labels]],
        engine: Callable[[], Engine],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._layers = layers
        self._engine = engine
        self._reading = Reading(self)
        save = QPushButton("Save…")
        save.setObjectName("save")
        save.setToolTip("Save as label image with pixel size and units (TIFF)")
        save.clicked.connect(lambda: self.ask(SAVED))
        export = QPushButton("Export…")
        export.setObjectName("export")
        export.setToolTip("Write outlines, tables and label images for other programs")
        menu = QMenu(export)
        for name, (ending, purpose) in FORMATS.items():
            if name != SAVED:
                action = menu.addAction(f"{ending}: {purpose}")
                action.setObjectName(name)
                action.triggered.connect(lambda *_, name=name: self.ask(name))
        export.setMenu(menu)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(save)
        row.addWidget(export)

    def save(self, path: Path) -> None:
        """Write the label image; see `export`."""
        self.export(path, SAVED)

    def export(self, path: Path, name: str) -> None:
        """Write the layers; `written` and `told` say when they are.

        Parameters
        ----------
        path : Path
            The file, which is replaced if it exists; for several layers the folder,
            in which each gets a file of its name.
        name : str
            One of `napari_medseg.io.exports.FORMATS`.
        """
        layers = self._layers()
        if not layers:
            self.told.emit(NOTHING)
        for layer, place in zip(layers, _places(layers, path, name), strict=True):
            self._write(layer, place, name)

    def ask(self, name: str) -> None:
        """Ask where to write, and whether to replace what is there; then write.

        Parameters
        ----------
        name : str
            One of `napari_medseg.io.exports.FORMATS`.
        """
        layers = self._layers()
        if not layers:
            self.told.emit(NOTHING)
            return
        path = self._asked_folder() if len(layers) > 1 else self._asked(layers[0], name)
        if path is None:
            return
        there = [place for place in _places(layers, path, name) if place.exists()]
        if not there or self._may_replace(there):
            self.export(path, name)

    def _asked(self, layer: Labels, name: str) -> Path | None:
        ending, purpose = FORMATS[name]
        found, _ = QFileDialog.getSaveFileName(
            self,
            f"Save {layer.name}",
            plain_name(layer.name) + ending,
            f"{purpose} (*{ending})",
            # the ending is added first, and then we ask
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        return with_ending(Path(found), name) if found else None

    def _asked_folder(self) -> Path | None:
        found = QFileDialog.getExistingDirectory(
            self, "Choose a folder: each layer becomes a file of its name"
        )
        return Path(found) if found else None

    def _may_replace(self, there: list[Path]) -> bool:
        names = ", ".join(path.name for path in there[:5])
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        verb = "exists" if len(there) == 1 else "exist"
        answer = QMessageBox.question(
            self, "Replace?", f"{names}{more} {verb} in {there[0].parent}. Replace?"
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _write(self, layer: Labels, path: Path, name: str) -> None:
        try:
            stack = label_stack(*layer.as_layer_data_tuple()[:2])
        except MedsegError as error:
            self.told.emit(str(error))
            return
        relay = Relay(self)
        relay.done.connect(self._on_written)
        relay.failed.connect(lambda error: self.told.emit(str(error)))
        relay.cancelled.connect(lambda: self.told.emit(f"{path} was not written."))
        relay.ended.connect(relay.deleteLater)
        self.told.emit(f"Writing {path.name}…")

        def ask(plain: dict[str, Any]) -> None:
            asked = {"stack": plain, "path": str(path), "format": name}
            self._engine().submit("export", asked, relay)

        self._reading.read(
            [stack.labels],
            lambda: to_plain(_copied(stack)),
            ask,
            lambda error: self.told.emit(f"{layer.name} cannot be saved: {error}"),
        )

    def _on_written(self, path: str) -> None:
        written = Path(path)
        self.told.emit(f"Saved {written.name} in {written.parent}.")
        self.written.emit(written)


def _copied(stack: LabelStack) -> LabelStack:
    """Return a stack that nobody paints on; any thread may call."""
    read = stack.read()
    return replace(read, labels=np.array(read.labels))


def _places(layers: list[Labels], path: Path, name: str) -> list[Path]:
    """Return the file of each layer: the path itself for one, else files in it."""
    if len(layers) < 2:
        return [path] * len(layers)
    names: dict[str, str] = {}
    for layer in layers:
        plain, number = plain_name(layer.name), 1
        free = plain
        while free.casefold() in names:
            number += 1
            free = f"{plain} {number}"
        names[free.casefold()] = free
    return [path / f"{each}{FORMATS[name][0]}" for each in names.values()]


def plain_name(name: str) -> str:
    """Return a layer's name without what no file may be called."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", name)
    return re.sub(r"_?\s+", " ", plain).strip(" ._")[:120] or "labels"
