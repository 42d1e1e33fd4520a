"""The choice of annotated images: two layers, or two folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.widgets._annotation_note import read_note
from napari_medseg.widgets._channels import Channels
from napari_medseg.widgets._combo import layer_choice
from napari_medseg.widgets._kind import KindChoice, noted_kind

if TYPE_CHECKING:
    from collections.abc import Sequence


class Folder(QWidget):
    """A line for a folder, with a button to choose it.

    Parameters
    ----------
    name : str
        Name of the line.
    tip : str
        What belongs there.

    Attributes
    ----------
    changed : Signal
        The line says something else, perhaps half of it so far.
    settled : Signal
        The user is done with it.
    """

    changed = Signal()
    settled = Signal()

    def __init__(self, name: str, tip: str) -> None:
        super().__init__()
        self._line = QLineEdit()
        self._line.setObjectName(name)
        self._line.setToolTip(tip)
        self._line.textChanged.connect(self.changed)
        self._line.editingFinished.connect(self.settled)
        button = QPushButton("…")
        button.setToolTip("Choose a folder")
        button.clicked.connect(self._on_clicked)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(button)

    @property
    def path(self) -> Path | None:
        """The folder; None where the line is empty."""
        text = self._line.text().strip()
        return Path(text).expanduser() if text else None

    def set_path(self, path: Path) -> None:
        """Show a folder."""
        self._line.setText(str(path))

    def _on_clicked(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Choose a folder")
        if found:
            self._line.setText(found)
            self.settled.emit()


class Source(QWidget):
    """Lets the user choose what is trained on.

    Attributes
    ----------
    changed : Signal
        Something else was chosen.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._image = layer_choice(Image, "The image or stack that is annotated")
        self._labels = layer_choice(Labels, "Its annotation")
        self._images = Folder("images", "Folder of the images")
        self._masks = Folder("masks", "Folder of their masks; may be the same folder")
        self._channels = Channels(
            "all", "Of images with several stains: the channels that are trained on."
        )
        self._tabs = QTabWidget()
        self._tabs.setObjectName("source")
        for title, rows in (
            (
                "layers",
                (("image", self._image.native), ("annotation", self._labels.native)),
            ),
            (
                "folders",
                (
                    ("images", self._images),
                    ("masks", self._masks),
                    ("channels", self._channels),
                ),
            ),
        ):
            page = QWidget()
            form = QFormLayout(page)
            for label, control in rows:
                form.addRow(label, control)
            self._tabs.addTab(page, title)
        self._kind = KindChoice()
        self._taken: tuple[Any, str | None] | None = None  # a layer, and its note
        self._masks.changed.connect(self._on_masks_changed)
        self._labels.changed.connect(self._take_note)
        self._tabs.currentChanged.connect(self._on_tab_changed)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._tabs)
        layout.addWidget(self._kind)
        for signal in (
            self._image.changed,
            self._labels.changed,
            self._images.changed,
            self._masks.changed,
            self._kind.changed,
            self._channels.textChanged,
            self._tabs.currentChanged,
        ):
            signal.connect(lambda *_: self.changed.emit())

    def reset_choices(self) -> None:
        """List the layers again."""
        self._image.reset_choices()
        self._labels.reset_choices()
        self._take_note()  # nothing is said where another layer came in its place

    @property
    def kind(self) -> str:
        """``dense``, ``sparse`` or ``instances``."""
        return self._kind.kind

    @property
    def from_folders(self) -> bool:
        """Whether folders are chosen, and not layers."""
        return bool(self._tabs.currentIndex() == 1)

    @property
    def image(self) -> Image | None:
        """The image layer, also to preview on."""
        found: Image | None = self._image.value
        return found

    @property
    def labels(self) -> Labels | None:
        """The annotation layer."""
        found: Labels | None = self._labels.value
        return found

    @property
    def channels(self) -> list[int]:
        """Channels of the folder's images that are trained on; empty for all."""
        return self._channels.numbers if self.from_folders else []

    def choose_layers(self, image: Image, labels: Labels) -> None:
        """Choose two layers of the viewer."""
        self._tabs.setCurrentIndex(0)
        self._image.value = image
        self._labels.value = labels

    def choose_folders(
        self, images: Path, masks: Path, channels: Sequence[int] = ()
    ) -> None:
        """Choose two folders, and channels of the images; none for all."""
        self._tabs.setCurrentIndex(1)
        # of the same images the user has the last word
        if channels or images != self._images.path:
            self._channels.show_numbers(channels)
        self._images.set_path(images)
        self._masks.set_path(masks)

    def _take_note(self, event: Any = None) -> None:
        """Take what is noted on the layer, once: the user has the last word."""
        layer = self.labels
        if layer is None or self.from_folders:
            return
        layer.events.metadata.connect(self._take_note)  # Annotate may note it later
        noted = noted_kind(layer)
        taken = layer.unique_id, noted
        if taken != self._taken and noted is not None:
            self.choose_kind(noted)
        self._taken = taken

    def _on_tab_changed(self) -> None:
        """Take the note of what is trained on now."""
        self._taken = None
        self._take_note()
        if self.from_folders:
            self._on_masks_changed()

    def _on_masks_changed(self) -> None:
        """Take what is noted beside the masks, where Annotate noted it."""
        noted = read_note(self._masks.path).kind if self._masks.path else None
        if noted is not None:
            self.choose_kind(noted)

    def choose_kind(self, kind: str) -> None:
        """Choose what the numbers of the annotation mean."""
        self._kind.choose(kind)

    def folders(self) -> tuple[Path, Path] | None:
        """Return the folders of images and masks; None where none is given."""
        images = self._images.path
        masks = self._masks.path or images
        return (images, masks) if images and masks else None

    def describe(self) -> dict[str, Any]:
        """Return the folders as the engine's jobs take them."""
        images, masks = self.folders() or ("", "")
        return {
            "images": str(images),
            "masks": str(masks),
            "annotation": self.kind,
            "channels": self.channels,
        }
