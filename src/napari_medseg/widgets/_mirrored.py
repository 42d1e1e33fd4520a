"""The choice to see each image mirrored, where the segmenter can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox

from napari_medseg.models.registry import is_network

if TYPE_CHECKING:
    from napari_medseg.widgets._models import ModelChoice


def mirrored_box(models: ModelChoice) -> QCheckBox:
    """Return a check box that can be used while a model is chosen.

    Parameters
    ----------
    models : ModelChoice
        The choice of the segmenter.
    """
    box = QCheckBox("mirrored views, too")
    box.setObjectName("mirrored")
    box.setToolTip(
        "See each image mirrored in four ways and take the mean: mostly a little "
        "better, four times as long"
    )

    def follow() -> None:
        box.setEnabled(is_network(models.model))

    models.changed.connect(follow)
    follow()
    return box


def is_mirrored(box: QCheckBox) -> bool:
    """Tell whether mirrored views are wanted, and the segmenter can."""
    return bool(box.isChecked() and box.isEnabled())
