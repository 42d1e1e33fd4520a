"""The manifest that napari finds is the top-level one, and all it names is there."""

from __future__ import annotations

import importlib.metadata
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManager, PluginManifest

import napari_medseg

NAME = "napari-medseg"
TOP = Path(__file__).parents[1] / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution(NAME)


def test_the_installed_manifest_is_the_top_level_one() -> None:
    (entry,) = importlib.metadata.entry_points(group="napari.manifest", name=NAME)
    assert entry.value == "napari_medseg:napari.yaml"
    installed = Path(str(napari_medseg.__file__)).with_name("napari.yaml")
    assert installed.read_text(encoding="utf-8") == TOP.read_text(encoding="utf-8")


def test_everything_that_the_manifest_names_can_be_imported(
    manifest: PluginManifest,
) -> None:
    manifest.validate_imports()


def test_npe2_discovers_the_plugin() -> None:
    # the class itself: npe2's own fixture would hide what is installed
    manager = PluginManager()
    manager.discover(include_npe1=False)
    assert manager.get_manifest(NAME).display_name


def test_the_version_is_that_of_the_package(manifest: PluginManifest) -> None:
    assert manifest.package_version == importlib.metadata.version(NAME)


def test_every_command_is_used_and_every_use_is_a_command(
    manifest: PluginManifest,
) -> None:
    contributions = manifest.contributions
    commands = [command.id for command in contributions.commands or ()]
    assert len(commands) == len(set(commands))
    used = set(_named_commands(contributions.model_dump(exclude={"commands"})))
    assert used == set(commands)


def _named_commands(part: Any) -> list[str]:
    """Return every value of a key ``command`` in nested lists and mappings."""
    if isinstance(part, list | tuple):
        return [name for value in part for name in _named_commands(value)]
    if not isinstance(part, dict):
        return []
    own = [part["command"]] if isinstance(part.get("command"), str) else []
    return own + _named_commands(list(part.values()))


def _samples() -> dict[str, str]:
    """Return the function behind each key of the sample data."""
    contributions = PluginManifest.from_file(TOP).contributions
    functions = {each.id: each.python_name for each in contributions.commands or ()}
    return {
        sample.key: str(functions[sample.command])
        for sample in contributions.sample_data or ()
    }


@pytest.mark.parametrize(("key", "function"), _samples().items())
def test_sample_data_makes_layers(key: str, function: str) -> None:
    from napari.layers import Layer

    layers = pkgutil.resolve_name(function)()
    assert layers, key
    for data, options, kind in layers:
        assert kind in ("image", "labels")
        assert Layer.create(data, options, kind).name
