"""The choice of a segmenter, with a line on each."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import MedsegError
from napari_medseg.io.model_file import read_card
from napari_medseg.models import bundled, diffusion_store
from napari_medseg.models.diffusion_registry import DIFFUSIONS
from napari_medseg.models.phrase_settings import PhraseConfig
from napari_medseg.models.registry import (
    CLASSICAL,
    EVERYTHING,
    SAMS,
    SPECIALISTS,
    everything_name,
)
from napari_medseg.models.weights import here, weights_folder
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TUNED = "models"
"""Folder of this user's tuned models, among the weights."""


@dataclass(frozen=True)
class ModelEntry:
    """A segmenter that can be chosen.

    Attributes
    ----------
    model : str
        What `napari_medseg.inference.open_segmenter` takes: a name or a path.
    title : str
        Its name for the user.
    about : str
        What it is for, its held-out score, its licence.
    """

    model: str
    title: str
    about: str


def tuned_folder() -> Path:
    """Return the folder that tuned models are kept in; it need not exist yet."""
    return weights_folder() / TUNED


def entries() -> list[ModelEntry]:
    """Return every segmenter: tuned (the latest first), the shelf, SAM, classical."""
    return [*_own(), *_shelf(), *_everything(), *_untuned(), *_classical()]


def phrases() -> list[ModelEntry]:
    """Return one entry for each diffusion model that is here; its phrase is empty."""
    about = (
        "Segments what a phrase says, without training: a proposal. tau acts at once, "
        "and a click on a segment adds it or takes it away."
    )
    found = []
    for name in diffusion_store.here():
        title = DIFFUSIONS[name].title if name in DIFFUSIONS else name
        entry = ModelEntry(PhraseConfig(model=name).name, f"A phrase: {title}", about)
        found.append(entry)
    return found


def entry_of_file(path: Path) -> ModelEntry:
    """Return the entry of a model file.

    Raises
    ------
    ModelFileError
        It is no model file.
    """
    card = read_card(path)
    return ModelEntry(str(path), path.stem, f"{card.title}. {_told(path)}")


def _own() -> Iterator[ModelEntry]:
    """Return the user's own models that can be read."""
    files = list(tuned_folder().glob("*.medseg"))
    for path in sorted(files, key=lambda file: -file.stat().st_mtime):
        try:
            yield entry_of_file(path)
        except MedsegError:
            continue  # said when somebody opens it


def _shelf() -> Iterator[ModelEntry]:
    for item in SPECIALISTS.values():
        about = f"{item.description} {_told(bundled.place(item.file))}"
        yield ModelEntry(item.name, item.title, about)


def _everything() -> Iterator[ModelEntry]:
    """Return one entry for each SAM that is here."""
    about = (
        f"{EVERYTHING.description} Choose objects as the result. They come whole: of "
        "the sliders, only the smallest size changes them."
    )
    for sam in here():
        yield ModelEntry(everything_name(sam), f"{EVERYTHING.title}: {sam}", about)


def _untuned() -> Iterator[ModelEntry]:
    """Return one entry for each SAM that is here, as it is."""
    about = "What stands out to SAM, asked for nothing in particular; no training."
    for sam in here():
        title = SAMS[sam].title if sam in SAMS else sam
        yield ModelEntry(sam, f"{title}, untuned", about)


def _classical() -> Iterator[ModelEntry]:
    for item in CLASSICAL.values():
        yield ModelEntry(item.name, item.title, item.description)


def _told(path: Path) -> str:
    """Say how a model did on images it was not tuned on, and its licence."""
    try:
        card = read_card(path)
    except MedsegError as error:
        return str(error)
    score = card.scores.get("held_out")
    told = (
        f"Dice {score['dice']:.2f} on {score['images']} images held out. "
        if score
        else "No held-out score. "
    )
    return f"{told}Licence: {card.licence}."


class ModelChoice(QWidget):
    """Lets the user choose a segmenter, or open a model file.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.
    more : callable, optional
        Returns segmenters that this form alone can use.

    Attributes
    ----------
    changed : Signal
        Another one was chosen.
    refused : Signal
        With a sentence: a file that was opened is no model.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(
        self,
        parent: QWidget | None = None,
        more: Callable[[], list[ModelEntry]] = list,
    ) -> None:
        super().__init__(parent)
        self._entries: list[ModelEntry] = []
        self._more = more
        self._box = QComboBox()
        self._box.setObjectName("model")
        self._box.setToolTip("What segments: your own models, bundled ones, thresholds")
        self._box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self._about = Words("about the model")
        button = QPushButton("Open…")
        button.setToolTip("Open a model file (.medseg) from anywhere")
        button.clicked.connect(self._on_open_clicked)
        row = QHBoxLayout()
        row.addWidget(self._box, 1)
        row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self._about)
        self._box.currentIndexChanged.connect(self._on_index_changed)
        self.refresh()

    @property
    def model(self) -> str:
        """The chosen segmenter, as `open_segmenter` takes it."""
        return self._entries[self._box.currentIndex()].model

    @property
    def title(self) -> str:
        """Name of the chosen segmenter."""
        return self._entries[self._box.currentIndex()].title

    def refresh(self) -> None:
        """List the segmenters again, such as after a tuning; the choice stays."""
        before = self.model if self._entries else None
        opened = [item for item in self._entries if _is_elsewhere(item)]
        self._show([*opened, *entries(), *self._more()])
        if before is not None:
            self.choose(before)

    def choose(self, model: str) -> None:
        """Choose a segmenter by name or path, if it is there."""
        names = [item.model for item in self._entries]
        if model in names:
            self._box.setCurrentIndex(names.index(model))

    def open(self, path: Path) -> None:
        """Add a model file and choose it; `refused` says why where it is none."""
        try:
            entry = entry_of_file(path)
        except MedsegError as error:
            self.refused.emit(str(error))
            return
        others = [item for item in self._entries if item.model != entry.model]
        self._show([entry, *others])
        self._box.setCurrentIndex(0)

    def _show(self, listed: list[ModelEntry]) -> None:
        self._entries = listed
        self._box.blockSignals(True)
        self._box.clear()
        for index, item in enumerate(listed):
            self._box.addItem(item.title)
            self._box.setItemData(index, item.about, 3)  # the tooltip
        self._box.blockSignals(False)
        self._on_index_changed()

    def _on_index_changed(self) -> None:
        entry = self._entries[self._box.currentIndex()]
        # the box has no room for a long name
        rich = f"<b>{html.escape(entry.title)}</b><br>{html.escape(entry.about)}"
        self._about.show_rich(rich, f"{entry.title}\n{entry.about}")
        self.changed.emit()

    def _on_open_clicked(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Open a model", "", "Models (*.medseg)"
        )
        if name:
            self.open(Path(name))


def _is_elsewhere(entry: ModelEntry) -> bool:
    """Tell whether a model is a file outside the user's folder."""
    path = Path(entry.model)
    return path.suffix == ".medseg" and path.parent != tuned_folder()
