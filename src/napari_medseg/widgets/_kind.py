"""What the numbers of an annotation mean: the choice, and the note on its layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_medseg.widgets._annotated import KINDS
from napari_medseg.widgets._combo import combo
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from napari.layers import Labels

NOTED = "annotation"
"""What the values of an annotation mean, in its layer's metadata."""


def noted_kind(layer: Labels) -> str | None:
    """Return what the values of an annotation mean, where its layer says so."""
    kind = layer.metadata.get(NOTED)
    return kind if isinstance(kind, str) and kind in KINDS else None


def note_kind(layer: Labels, kind: str) -> None:
    """Note on a layer what its values mean; nothing happens where it says so."""
    if noted_kind(layer) != kind:
        layer.metadata = {**layer.metadata, NOTED: kind}


class KindChoice(QWidget):
    """Lets the user say what the numbers of an annotation mean.

    Attributes
    ----------
    changed : Signal
        Another kind was chosen.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        words = [kind.title for kind in KINDS.values()]
        self._box = combo("kind", words, "What the numbers of the annotation mean")
        self._about = Words()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        layout.addWidget(self._about)
        for index, kind in enumerate(KINDS.values()):
            self._box.setItemData(index, kind.about, 3)  # the tooltip
        self._box.currentIndexChanged.connect(self._on_index_changed)
        self._on_index_changed()

    @property
    def kind(self) -> str:
        """``dense``, ``sparse`` or ``instances``."""
        return list(KINDS)[self._box.currentIndex()]

    def choose(self, kind: str) -> None:
        """Choose a kind; the first where there is none of this name."""
        names = list(KINDS)
        self._box.setCurrentIndex(names.index(kind) if kind in names else 0)

    def show_kind(self, kind: str) -> None:
        """Show a kind that is noted already; nobody is told that it was chosen."""
        self.blockSignals(True)
        self.choose(kind)
        self.blockSignals(False)

    def _on_index_changed(self) -> None:
        self._about.setText(KINDS[self.kind].about)
        self.changed.emit()
