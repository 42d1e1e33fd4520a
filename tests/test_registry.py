"""The table of SAMs and methods: complete, light to import, helpful."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_medseg._types import WeightsError
from napari_medseg.models.registry import METHODS, SAMS, lookup, lookup_method


@pytest.mark.parametrize("module", ["registry", "weights"])
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
    with pytest.raises(WeightsError, match=f"Did you mean '{meant}'"):
        lookup(typed)


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(WeightsError) as refused:
        lookup("cellpose")
    assert all(name in str(refused.value) for name in SAMS)
    assert "Did you mean" not in str(refused.value)
    with pytest.raises(WeightsError, match="training method named 'lora'"):
        lookup_method("lora")
