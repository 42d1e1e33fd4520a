"""Every control of every form says what it does when the mouse rests on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QScrollBar,
    QTabBar,
    QWidget,
)

from napari_medseg.widgets.annotate import AnnotateWidget
from napari_medseg.widgets.batch import BatchWidget
from napari_medseg.widgets.measure import MeasureWidget
from napari_medseg.widgets.review import ReviewWidget
from napari_medseg.widgets.segment import SegmentWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
)
"""What is clicked, typed into, or moved."""


def is_qts_own(control: QWidget) -> bool:
    """Tell whether a control is a part that Qt puts into another."""
    parent = control.parentWidget()
    return (
        isinstance(control, QScrollBar)
        or control.objectName().startswith("qt_")
        or isinstance(parent, (QComboBox, QAbstractSpinBox, QTabBar))
        or "Container" in type(parent).__name__
    )


def told(control: QWidget | None, form: QWidget) -> str:
    """Return the tooltip of a control, or of what it is a part of."""
    while control is not None and control is not form:
        if control.toolTip():
            return control.toolTip()
        control = control.parentWidget()
    return ""


@pytest.mark.parametrize(
    "kind",
    [
        AnnotateWidget,
        TuneWidget,
        SegmentWidget,
        BatchWidget,
        MeasureWidget,
        ReviewWidget,
    ],
)
def test_controls_say_what_they_do(
    make_napari_viewer_proxy: Callable[[], Any], kind: Any
) -> None:
    viewer = make_napari_viewer_proxy()
    form = kind(viewer, FakeEngine())
    viewer.window.add_dock_widget(form)
    found = form.findChildren(QWidget)
    controls = [each for each in found if isinstance(each, CONTROLS)]
    silent = [
        f"{type(each).__name__} {each.objectName()!r}"
        for each in controls
        if not is_qts_own(each) and not told(each, form)
    ]
    assert len(controls) > 5
    assert silent == []
