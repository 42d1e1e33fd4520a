"""Build hook: ship the top-level ``napari.yaml`` as package data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface):
    """Make ``napari_medseg:napari.yaml`` resolvable in wheels and editable installs.

    npe2 looks for the manifest inside the imported package. A wheel gets a copy;
    an editable install gets a link (or a copy where links are impossible).
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include the manifest in a wheel, or link it into the source package."""
        manifest = Path(self.root, "napari.yaml")
        if version != "editable":
            build_data["force_include"][str(manifest)] = "napari_medseg/napari.yaml"
            return
        link = Path(self.root, "src", "napari_medseg", "napari.yaml")
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(Path("..", "..", "napari.yaml"))
        except OSError:  # no symlinks here (Windows without developer mode)
            shutil.copyfile(manifest, link)
