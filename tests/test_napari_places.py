"""The plugin in napari's own places: menus, palette, files, preferences."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import npe2
import numpy as np
import pytest
from app_model.types import MenuItem
from napari._app_model import get_app_model
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from napari.errors import ReaderPluginError
from napari.plugins import _npe2
from napari.settings import get_plugin_settings
from qtpy.QtWidgets import QComboBox

from napari_medseg._types import InputError
from napari_medseg.io.exports import write_geojson, write_rois
from napari_medseg.io.images import read_annotation
from napari_medseg.models import bundled
from napari_medseg.models.devices import DEVICES
from napari_medseg.models.registry import SAMS
from napari_medseg.widgets._opening import open_model, segment_form
from napari_medseg.widgets._preferences import Preferences, preferences
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "napari-medseg"
CONTRIBUTIONS = npe2.PluginManifest.from_file(
    Path(__file__).parents[1] / "napari.yaml"
).contributions
FORMS = {form.command: form.display_name for form in CONTRIBUTIONS.widgets}
"""Commands of the forms, and their names."""

MENUS = {
    item.command: menu for menu, items in CONTRIBUTIONS.menus.items() for item in items
}
"""The menu of each form."""


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    return make_napari_viewer_proxy()


def labels() -> np.ndarray:
    drawn = np.zeros((20, 30), np.int32)
    drawn[2:6, 3:9] = 1
    drawn[10:17, 12:20] = 2
    return drawn


@pytest.fixture
def settings() -> Iterator[Any]:
    found = get_plugin_settings(NAME)
    before = found.computing.model_dump()
    yield found
    found.computing.update(before)


# -------------------------------------------------------------------- menus, palette


@pytest.mark.parametrize("command", FORMS)
def test_every_form_opens_by_its_command(viewer: Any, command: str) -> None:
    app = get_app_model()
    app.commands.execute_command(command).result()
    title = f"{FORMS[command]} (medseg)"
    assert title in viewer.window.dock_widgets
    assert MENUS[command].startswith("napari/layers/")
    titles = [
        item.command.title
        for item in app.menus.get_menu(MENUS[command])
        if isinstance(item, MenuItem) and item.command.id == command
    ]
    assert titles == [title]
    palette = app.menus.get_menu(app.menus.COMMAND_PALETTE_ID)
    offered = [item.command.id for item in palette if isinstance(item, MenuItem)]
    assert command in offered


def test_the_palette_offers_nothing_that_needs_a_file(viewer: Any) -> None:
    app = get_app_model()
    palette = app.menus.get_menu(app.menus.COMMAND_PALETTE_ID)
    ours = [
        item.command
        for item in palette
        if isinstance(item, MenuItem) and item.command.id.startswith(f"{NAME}.")
    ]
    usable = {
        command.id
        for command in ours
        if command.enablement is None or command.enablement.eval({})
    }
    samples = {f"{NAME}.{sample.key}" for sample in CONTRIBUTIONS.sample_data}
    assert usable == {*FORMS, *samples}


# ----------------------------------------------------------------------------- files


def test_the_readers_take_no_file_that_napari_reads_itself() -> None:
    manager = npe2.PluginManager.instance()
    own = manager.get_manifest(NAME).contributions.readers
    napari = manager.get_manifest("napari").contributions.readers
    patterns = [pattern for reader in own for pattern in reader.filename_patterns]
    others = [pattern for reader in napari for pattern in reader.filename_patterns]
    assert patterns
    for pattern in patterns:
        name = pattern.replace("*", "cells")
        assert not [other for other in others if fnmatch(name, other)]


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_outlines_open_in_napari(viewer: Any, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cells{ending}"
    (write_rois if ending == ".zip" else write_geojson)(path, labels())
    (shapes,) = viewer.open(path, plugin=None)  # as when it is dropped
    np.testing.assert_array_equal(shapes.to_labels((20, 30)), labels())
    assert shapes in viewer.layers


def test_a_model_opens_the_form_with_it_chosen(viewer: Any, tmp_path: Path) -> None:
    model = tmp_path / "mine.medseg"
    model.write_bytes(bundled.place("nuclei-fluo.medseg").read_bytes())
    assert not viewer.open(model, plugin=None)
    assert len(viewer.layers) == 0
    form = viewer.window.dock_widgets["Segment (medseg)"]
    assert isinstance(form, SegmentWidget)
    assert form.models.model == str(model)
    assert form.models.title == "mine"
    # there is one form, be it opened by a file or by the menu
    get_app_model().commands.execute_command(f"{NAME}.segment").result()
    form.parentWidget().hide()
    assert segment_form(viewer) == form
    assert not form.parentWidget().isHidden()
    names = [name for name in viewer.window.dock_widgets if "Segment" in name]
    assert names == ["Segment (medseg)"]


def test_a_model_that_is_none_opens_no_form(viewer: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.medseg"
    bad.write_bytes(b"nothing")
    with pytest.raises(ReaderPluginError, match=r"bad\.medseg is not a model"):
        viewer.open(bad, plugin=None)
    assert not viewer.window.dock_widgets


def test_a_model_without_a_viewer() -> None:
    with pytest.raises(InputError, match="in a viewer"):
        open_model("mine.medseg")


ENDINGS = (".ome.tif", ".csv", ".geojson", ".zip", ".json", ".ome.zarr")


@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_are_saved_by_napari(viewer: Any, tmp_path: Path, ending: str) -> None:
    layer = viewer.add_labels(labels(), scale=(0.5, 0.25), units=("um", "um"))
    viewer.layers.selection = {layer}
    path = tmp_path / f"cells{ending}"
    viewer.layers.save(str(path), selected=True, plugin=NAME)
    assert path.exists()
    if ending == ".ome.tif":
        found = read_annotation(path)
        np.testing.assert_array_equal(found.labels, labels())
        assert found.scale == {"Y": 0.5, "X": 0.25}


def test_the_save_dialog_lists_the_writers(viewer: Any) -> None:
    layer = viewer.add_labels(labels())
    listed, writers = _npe2.file_extensions_string_for_layers([layer])
    for words in (
        "medseg label image with pixel size (*.ome.tif *.ome.tiff)",
        "medseg table of measurements (*.csv)",
        "medseg outlines for QuPath (*.geojson)",
        "medseg outlines for ImageJ (*.zip)",
        "medseg objects as COCO (*.json)",
        "medseg OME-Zarr (*.ome.zarr *.zarr)",
    ):
        assert words in listed
    # without a choice a TIFF is still napari's
    writer, _ = npe2.PluginManager.instance().get_writer("cells.tif", ["labels"])
    assert writer is not None
    assert writer.command == "napari.write_labels"
    assert len(writers) >= 6


# ----------------------------------------------------------------------- preferences


def test_preferences_offer_what_there_is(settings: Any) -> None:
    assert preferences() == Preferences()
    manifest = npe2.PluginManager.instance().get_manifest(NAME)
    offered = manifest.contributions.configurations["computing"].properties
    assert offered["sam"].enum == list(SAMS)
    assert offered["device"].enum == list(DEVICES)
    settings.computing.device = "cpu"
    assert preferences().device == "cpu"
    with pytest.raises(ValueError, match="enum"):
        settings.computing.device = "abacus"


def test_napari_shows_the_preferences(viewer: Any, qtbot: Any) -> None:
    dialog = PreferencesDialog()
    qtbot.addWidget(dialog)
    pages = [dialog._list.item(row).text() for row in range(dialog._list.count())]
    assert "medseg" in pages


def test_forms_follow_the_preferences(viewer: Any, settings: Any) -> None:
    settings.computing.device = "cpu"
    settings.computing.sam = "vit_b"
    from napari_medseg.widgets.tune import TuneWidget

    tune = TuneWidget(viewer)
    box = tune.findChild(QComboBox, "sam")
    assert box is not None
    assert box.currentData() == "vit_b"
    assert tune.config()["device"] == "cpu"
    tune.deleteLater()
