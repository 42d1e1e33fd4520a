"""Tune tries all methods, shows them ranked, and goes on with the one that is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import QPushButton, QTableWidget
from test_tune_widget import Form, with_layers

from napari_medseg._types import JobError, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tuned models in a folder of the test."""
    monkeypatch.setattr(
        "napari_medseg.widgets._comparing.tuned_folder", lambda: tmp_path
    )
    return tmp_path


def row(name: str, dice: float | None, problem: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "title": f"The {name}",
        "dice": dice,
        "dice_sd": 0.1,
        "pq": None,
        "seconds": 12.0,
        "parameters": 0,
        "trained": name == "ptsam",
        "share": 1.0,
        "problem": problem,
    }


def answer(kept: Path) -> dict[str, Any]:
    (kept / "compared today").mkdir()
    model = kept / "compared today" / "ptsam.medseg"
    model.write_bytes(b"a model")
    rows = [row("otsu", 0.91), row("ptsam", 0.905), row("med2d", None, "No room left.")]
    return {
        "advice": "Take The otsu: Dice 0.91.",
        "chosen": "otsu",
        "tried": rows,
        "models": {"ptsam": str(model)},
    }


def button(form: Form, name: str) -> QPushButton:
    found = form.widget.findChild(QPushButton, f"{name} recipes")
    assert found is not None
    return found


def table(form: Form) -> QTableWidget:
    found = form.widget.findChild(QTableWidget, "compared")
    assert found is not None
    return found


def advice(form: Form) -> str:
    return str(form.widget.comparing._told.text())


def test_the_annotated_slices_are_compared_on(viewer: Any, kept: Path) -> None:
    form = with_layers(viewer, FakeEngine(), annotated=4)
    button(form, "Compare").click()
    name, arguments, task = form.engine.jobs[0]
    assert name == "compare"
    assert len(arguments["pairs"]) == 4
    assert arguments["annotation"] == "dense"
    assert arguments["settings"] == {"sam": "nano", "minutes": 15.0}
    assert not button(form, "Compare").isEnabled()
    task.listener.on_progress(Progress(1, 4, "Prompt tuning: training"))
    button(form, "End").click()
    assert task.asked == ["end early"]


def test_the_table_is_ranked_and_the_advised_one_chosen(
    viewer: Any, kept: Path
) -> None:
    form = with_layers(viewer, FakeEngine())
    button(form, "Compare").click()
    form.engine.jobs[0][2].listener.on_done(answer(kept))
    shown = table(form)
    assert [shown.item(index, 1).text() for index in range(3)] == ["0.91", "0.91", ""]
    assert shown.currentRow() == 0
    assert shown.isColumnHidden(2)
    assert advice(form) == "Take The otsu: Dice 0.91."
    assert button(form, "Take it").isEnabled()


def test_a_trained_one_that_is_taken_is_kept_and_can_be_applied(
    viewer: Any, kept: Path, qtbot: Any
) -> None:
    form = with_layers(viewer, FakeEngine())
    button(form, "Compare").click()
    form.engine.jobs[0][2].listener.on_done(answer(kept))
    table(form).selectRow(1)
    with qtbot.waitSignal(form.widget.tuned) as told:
        button(form, "Take it").click()
    (place,) = told.args
    assert place == str(kept / "ptsam compared today.medseg")
    assert (kept / "ptsam compared today.medseg").read_bytes() == b"a model"
    assert form.button("Apply").isEnabled()


def test_what_needs_no_training_opens_in_segment(viewer: Any, kept: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    button(form, "Compare").click()
    form.engine.jobs[0][2].listener.on_done(answer(kept))
    button(form, "Take it").click()
    docks = viewer.window.dock_widgets
    segment = next(docks[name] for name in docks if "Segment" in name)
    assert segment.models.model == "otsu"


def test_what_could_not_be_tried_says_why(viewer: Any, kept: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    button(form, "Compare").click()
    form.engine.jobs[0][2].listener.on_done(answer(kept))
    table(form).selectRow(2)
    button(form, "Take it").click()
    assert advice(form) == "The med2d could not be tried: No room left."


def test_a_failed_comparison_can_be_tried_again(viewer: Any, kept: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    button(form, "Compare").click()
    form.engine.jobs[0][2].listener.on_failed(JobError("Memory ran out."))
    assert advice(form) == "Memory ran out."
    assert button(form, "Compare").isEnabled()
    assert not button(form, "Take it").isEnabled()
