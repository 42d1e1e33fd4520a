"""Choose what is tuned: the method, the SAM underneath, and the settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from qtpy.QtWidgets import QComboBox, QFormLayout, QVBoxLayout, QWidget

from napari_medseg._config import config_class
from napari_medseg.models.methods import METHODS
from napari_medseg.models.registry import SAMS
from napari_medseg.models.weights import imported
from napari_medseg.widgets._combo import narrow
from napari_medseg.widgets._folded import Folded
from napari_medseg.widgets._form import ConfigForm
from napari_medseg.widgets._preferences import choose_sam, preferences
from napari_medseg.widgets._reviewed_run import card_of
from napari_medseg.widgets._words import Words

ELSEWHERE = ("sam", "seed", "stop_at", "unlabelled_data", "device")
"""Settings that the form has in other places, or that are no user's business."""


class MethodChoice(QWidget):
    """The method with a line on it, its SAM where it has one, and its settings.

    Attributes
    ----------
    folded : Folded
        The settings, folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._method = QComboBox()
        self._method.setObjectName("method")
        self._method.setToolTip("What is trained; the first suits most images")
        for name, entry in METHODS.items():
            self._method.addItem(entry.title, name)
            self._method.setItemData(self._method.count() - 1, entry.description, 3)
        self._sam = QComboBox()
        self._sam.setObjectName("sam")
        self._sam.setToolTip("The SAM underneath; nano comes with the plugin")
        for name in (*SAMS, *imported()):
            self._sam.addItem(SAMS[name].title if name in SAMS else name, name)
        choose_sam(self._sam)
        for control in (self._method, self._sam):
            narrow(control)
        self._about = Words("about the method")
        self._settings: ConfigForm | None = None
        self.folded = Folded("settings (need no touching)", QWidget())
        self._rows = QFormLayout()
        self._rows.addRow("method", self._method)
        self._rows.addRow(self._about)
        self._rows.addRow("SAM", self._sam)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._rows)
        layout.addWidget(self.folded)
        self._method.currentIndexChanged.connect(self._on_method_changed)
        self._on_method_changed()

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self._method.currentData())

    def base(self) -> dict[str, Any]:
        """Return the SAM, and the device if the user prefers one."""
        device = preferences().device
        chosen = {} if device == "auto" else {"device": device}
        return {"sam": self._sam.currentData(), **chosen}

    def config(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        values = self._settings.values() if self._settings else {}
        base = self.base()
        if not self._has_sam:
            del base["sam"]
        return {**base, **values}

    def set_config(self, values: dict[str, Any]) -> None:
        """Show settings in the form."""
        if self._settings is not None:
            self._settings.set_values(values)

    def go_on_from(self, model: str) -> bool:
        """Choose a training that goes on from a tuned model.

        Parameters
        ----------
        model : str
            A model file, or a name of the shelf.

        Returns
        -------
        bool
            Whether there is a way to go on from it; if not, nothing is changed.
        """
        card = card_of(model)
        method = METHODS.get(card.kind) if card is not None else None
        # what adds to a model begins with that one, not with its own result
        afresh = method is None or method.begins_with_a_model
        known = () if method is None or afresh else fields(config_class(method.config))
        if card is None or all(each.name != "start_from" for each in known):
            return False
        self._method.setCurrentIndex(self._method.findData(card.kind))
        sam = self._sam.findData(card.base.get("name"))
        if sam >= 0:
            self._sam.setCurrentIndex(sam)
        same = ("prompts", "encoder_prompts")
        kept = {name: card.config[name] for name in same if name in card.config}
        self.set_config({**kept, "start_from": model})
        return True

    def _on_method_changed(self) -> None:
        if self._settings is not None:
            self.folded.removeWidget(self._settings)
            self._settings.deleteLater()
        entry = METHODS[self.method]
        self._settings = ConfigForm(config_class(entry.config), ELSEWHERE)
        self.folded.addWidget(self._settings)
        self._about.setText(entry.description)
        self._rows.setRowVisible(self._sam, self._has_sam)

    @property
    def _has_sam(self) -> bool:
        """Whether the method tunes a SAM."""
        return not METHODS[self.method].trains
