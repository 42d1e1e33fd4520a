"""The commands: everything a click can do, from the same configs as the forms."""

from napari_medseg.cli.app import main

__all__ = ["main"]
