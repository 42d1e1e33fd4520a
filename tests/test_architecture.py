"""The import rule: imports point down, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_medseg

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "napari_medseg"
SOURCE = Path(str(napari_medseg.__file__)).parent

LAYERS: tuple[tuple[frozenset[str], ...], ...] = tuple(
    tuple(frozenset(room.split()) for room in layer)
    for layer in (
        ("_types _release _threads",),
        ("_config", "_labels"),
        (
            "io",
            "metrics matching precision_recall surfaces",
            "instances object_settings measurements blocks",
            "samples",
        ),
        ("models", "remembered"),
        (
            "windowed inference earlier overlapping",
            "training",
            "evaluation lesion_evaluation",
            "quality",
            "large scratch",
            "layer_data",
        ),
        ("api", "exchange", "reviewing"),
        ("batch", "comparing", "demo"),
        ("__init__",),  # the package itself: the public names, on demand
        ("engine",),
        ("cli", "widgets"),
        ("__main__",),
    )
)
"""Rooms by layer, bottom to top. A room imports from itself and from below only.

A room is one or more modules or folders of the package. Two rooms of one layer do
not know each other: so neither do training and inference, nor cli and widgets.
"""

GUI = frozenset({"magicgui", "napari", "pyqtgraph", "qtpy", "superqt"})
"""Only in widgets; Qt itself is met through qtpy alone."""

QT = frozenset({"PyQt5", "PyQt6", "PySide2", "PySide6"})

TORCH = frozenset(
    {
        "diffusers",
        "lightning",
        "lightning_fabric",
        "monai",
        "peft",
        "safetensors.torch",
        "segment_anything",
        "segmentation_models_pytorch",
        "torch",
        "torchvision",
        "transformers",
    }
)
"""torch, and what brings it along."""

QUICK = (
    "__init__ __main__ _types _release _threads _config _labels io metrics matching "
    "precision_recall surfaces "
    "instances object_settings measurements blocks large scratch batch samples "
    "remembered "
    "evaluation lesion_evaluation layer_data "
    "models.__init__ models.registry models.methods "
    "models.naming models.bundled models.weights_file models.weights "
    "models._download models.importing models.everything_settings models.overlaps "
    "models.diffusion_registry models.diffusion_store models.partition "
    "models.phrase_settings "
    "models.adapter_settings training.channel_training "
    "quality.__init__ quality.settings "
    "training.__init__ training.settings training.prompt_tuning "
    "training.network_training training.lesion_training training.superpixels "
    "training.pretraining_settings "
    "engine cli widgets"
).split()
"""Importing these imports no torch: rooms, or single modules of a room."""

COMPUTE_SIDE = frozenset(
    f"engine.{name}"
    for name in (
        "__main__ batching comparing estimating large_layers measuring phrasing "
        "prompting segmenting server training"
    ).split()
)
"""What runs in the compute process alone, and so may import torch."""

VIEWER_SIDE = ("widgets", "engine")
"""What runs in the viewer's process: no torch here, not even inside a function."""


@dataclass(frozen=True)
class Import:
    """One import statement of a module."""

    target: str
    line: int
    on_import: bool


def names() -> list[str]:
    """Return every module of the package, without the package's own name."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        found.append(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    return found


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Return the imports of a module, those under ``TYPE_CHECKING`` included."""
    path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return tuple(_imports_below(tree, name, on_import=True))


def _imports_below(node: ast.AST, name: str, *, on_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        now = on_import
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            now = False
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                block = ast.Module([statement], [])
                yield from _imports_below(block, name, on_import=False)
            block = ast.Module(child.orelse, [])
            yield from _imports_below(block, name, on_import=on_import)
            continue
        for target in _targets(child, name):
            yield Import(target, child.lineno, now)
        yield from _imports_below(child, name, on_import=now)


def _targets(node: ast.AST, name: str) -> list[str]:
    """Return the full names that one statement imports; none for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = [PACKAGE, *name.split(".")][: -node.level]
        base = ".".join([*parts, base] if base else parts)
    # "from package import x" may name a module x: keep both parts
    return [f"{base}.{alias.name}" for alias in node.names]


def room_of(name: str) -> tuple[int, frozenset[str]] | None:
    """Return the layer and the room of a module, or None where it has no place."""
    first = name.split(".")[0]
    for height, layer in enumerate(LAYERS):
        for room in layer:
            if first in room:
                return height, room
    return None


def own_module(target: str) -> str | None:
    """Return which module of the package an import means; None for other packages."""
    if target != PACKAGE and not target.startswith(f"{PACKAGE}."):
        return None
    inner = target.removeprefix(PACKAGE).removeprefix(".")
    return inner if room_of(inner) else "__init__"


def within(target: str, packages: frozenset[str]) -> bool:
    """Tell whether an import is of one of the packages or from inside them."""
    return any(target == name or target.startswith(f"{name}.") for name in packages)


def is_quick(name: str) -> bool:
    """Tell whether importing a module shall import no torch."""
    if name in COMPUTE_SIDE:
        return False
    return name in QUICK or name.split(".")[0] in QUICK


def test_every_module_has_a_place() -> None:
    homeless = [name for name in names() if room_of(name) is None]
    assert not homeless, f"give these a place in LAYERS: {homeless}"


@pytest.mark.parametrize("name", [each for each in names() if room_of(each)])
def test_imports_point_down(name: str) -> None:
    place = room_of(name)
    assert place is not None
    height, room = place
    wrong = []
    for each in imports(name):
        target = own_module(each.target)
        if target is None:
            continue
        other = room_of(target)
        assert other is not None
        if other[1] != room and other[0] >= height:
            wrong.append(f"line {each.line}: {each.target}")
    assert not wrong, f"{name} may not import {wrong}"


@pytest.mark.parametrize("name", names())
def test_only_widgets_know_the_viewer(name: str) -> None:
    forbidden = QT if name.split(".")[0] == "widgets" else GUI | QT
    wrong = [each for each in imports(name) if within(each.target, forbidden)]
    assert not wrong, name


@pytest.mark.parametrize("name", [each for each in names() if is_quick(each)])
def test_torch_is_not_named_where_it_may_not_be_loaded(name: str) -> None:
    never = name.split(".")[0] in VIEWER_SIDE
    wrong = [
        each
        for each in imports(name)
        if within(each.target, TORCH) and (never or each.on_import)
    ]
    assert not wrong, name


def test_importing_the_quick_modules_loads_no_torch() -> None:
    report = _in_a_new_process(
        """
        for name in wanted:
            importlib.import_module(name)
            if "torch" in sys.modules:
                report.append(name)
                break
        """,
        # the widgets need a Qt binding, which not every installation has
        [each for each in names() if is_quick(each) and not _is_widget(each)],
    )
    assert report == [], "torch came with the first of these"


def test_the_core_works_without_the_viewer() -> None:
    report = _in_a_new_process(
        f"""
        blocked = {sorted(GUI | QT)!r}

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in blocked:
                    raise ImportError(f"{{name}} is blocked")
                return None

        sys.meta_path.insert(0, Block())
        for name in wanted:
            try:
                importlib.import_module(name)
            except ImportError as error:
                report.append([name, str(error)])
        """,
        [each for each in names() if not _is_widget(each)],
    )
    assert report == []


def _is_widget(name: str) -> bool:
    return name.split(".")[0] == "widgets"


def _in_a_new_process(body: str, modules: list[str]) -> list[object]:
    """Run lines that fill ``report`` from ``wanted`` and return the report."""
    wanted = [
        f"{PACKAGE}.{name}".removesuffix(".__init__")
        for name in modules
        if not name.endswith("__main__")  # importing that is running it
    ]
    lines = [line.removeprefix("        ") for line in body.splitlines()]
    program = "\n".join(
        [
            "import importlib, json, sys",
            f"wanted = {wanted!r}",
            "report = []",
            *lines,
            "print(json.dumps(report))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report: list[object] = json.loads(done.stdout.splitlines()[-1])
    return report
