"""The table of SAMs and methods: complete, light to import, helpful."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from napari_medseg._types import InputError, WeightsError
from napari_medseg.models import bundled
from napari_medseg.models.methods import METHODS, lookup_method
from napari_medseg.models.naming import unknown
from napari_medseg.models.registry import (
    CLASSICAL,
    EVERYTHING,
    SAMS,
    SPECIALISTS,
    everything_name,
    everything_sam,
    lookup,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "module",
    ["registry", "methods", "bundled", "weights", "everything_settings"],
)
def test_importing_the_table_imports_no_torch_and_no_network(module: str) -> None:
    code = (
        "import sys\n"
        f"import napari_medseg.models.{module}\n"
        "heavy = {'torch', 'requests', 'urllib3', 'napari', 'qtpy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", list(SAMS))
def test_every_sam_says_who_may_use_it_and_where_it_comes_from(name: str) -> None:
    entry = SAMS[name]
    weights = entry.weights
    assert entry.name == name
    assert entry.width == 256
    assert entry.working_size == (512 if name == "nano" else 1024)
    assert weights.licence and weights.licence_note and entry.description
    assert weights.name not in {"", ".", ".."} and "/" not in weights.name
    if weights.bundled:
        assert weights.url is None
    else:
        assert weights.url is not None and weights.url.startswith("https://")
        assert weights.url.endswith(weights.name)
        assert weights.sha256 is not None and len(weights.sha256) == 64
        assert int(weights.sha256, 16) and weights.bytes is not None


def test_there_are_the_four_sams_and_they_cannot_be_changed() -> None:
    assert list(SAMS) == ["nano", "vit_b", "vit_l", "vit_h"]
    with pytest.raises(TypeError):
        SAMS["other"] = SAMS["nano"]  # type: ignore[index]


def test_the_shelf_of_specialists() -> None:
    assert list(SPECIALISTS) == [
        "nuclei-fluo",
        "nuclei-histo",
        "cells-phase",
        "outline-phase",
        "med2d-nuclei",
        "med2d-phase",
    ]
    for name, entry in SPECIALISTS.items():
        assert entry.name == name
        assert entry.file == f"{name}.medseg"
        assert entry.title and entry.description and "\n" not in entry.description
        assert entry.method in METHODS
    with pytest.raises(TypeError):
        SPECIALISTS["other"] = SPECIALISTS["nuclei-fluo"]  # type: ignore[index]


def test_no_name_stands_for_two_things() -> None:
    names = [*SAMS, *SPECIALISTS, EVERYTHING.name, *CLASSICAL, *METHODS]
    assert len(names) == len(set(names))


def test_a_bundled_file_is_found_or_its_absence_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="install napari-medseg again") as refused:
        bundled.find("cells-phase.medseg")
    path = tmp_path / "cells-phase.medseg"
    assert str(path) in str(refused.value)
    path.touch()
    assert bundled.find("cells-phase.medseg") == path


@pytest.mark.parametrize(
    ("sam", "name"),
    [("nano", "everything"), ("vit_b", "everything:vit_b"), ("k.1", "everything:k.1")],
)
def test_all_objects_are_asked_of_any_sam_by_name(sam: str, name: str) -> None:
    assert everything_name(sam) == name
    assert everything_sam(name) == sam


def test_other_names_ask_for_no_objects() -> None:
    assert everything_sam("everything:nano") == "nano"
    for name in (*SAMS, *SPECIALISTS, *CLASSICAL, "everything.medseg", "C:everything"):
        assert everything_sam(name) is None


def test_the_settings_of_all_objects_are_where_the_table_says() -> None:
    module, name = EVERYTHING.config
    assert getattr(import_module(module), name)()
    module, name = EVERYTHING.factory
    assert callable(getattr(import_module(module), name))
    assert EVERYTHING.sam in SAMS and EVERYTHING.title and EVERYTHING.description


def test_lookup_gives_the_entry() -> None:
    assert lookup("vit_b") is SAMS["vit_b"]
    assert lookup_method("ptsam") is METHODS["ptsam"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("vit-b", "vit_b"), ("VIT_H", "vit_h"), ("nanno", "nano"), ("vitl", "vit_l")],
)
def test_a_slip_of_the_pen_is_answered_with_the_name_meant(
    typed: str, meant: str
) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        lookup(typed)


@pytest.mark.parametrize("typed", ["nuclei_fluo", "Nuclei-Fluo", "nucleifluo"])
def test_a_slip_in_a_name_with_a_hyphen_is_understood_too(typed: str) -> None:
    assert "Did you mean 'nuclei-fluo'" in str(unknown("model", typed, SPECIALISTS))


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(InputError) as refused:
        lookup("cellpose")
    assert all(name in str(refused.value) for name in SAMS)
    assert "Did you mean" not in str(refused.value)
    with pytest.raises(InputError, match="training method named 'lora'"):
        lookup_method("lora")
