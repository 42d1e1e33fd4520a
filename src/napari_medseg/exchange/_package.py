"""The package itself, written and checked by BioImage.IO's own library."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_medseg._types import JobError
from napari_medseg.exchange._network import tracing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NEEDS_EXTRA = (
    "Exporting to BioImage.IO needs the extra: pip install napari-medseg[exchange]."
)
"""What is said where the libraries of BioImage.IO are not installed."""


def import_library() -> Any:
    """Import the library of BioImage.IO's formats, or say what is missing."""
    try:
        return importlib.import_module("bioimageio.spec")
    except ImportError as error:
        raise JobError(NEEDS_EXTRA) from error


def model_library() -> Any:
    """Import what the library knows of models."""
    return importlib.import_module("bioimageio.spec.model.v0_5")


def format_version() -> str:
    """Return the version of the model format that the library writes."""
    version: str = model_library().ModelDescr.implemented_format_version
    return version


def pack(description: dict[str, Any], folder: Path) -> Path:
    """Write a package out of a description and its files.

    Parameters
    ----------
    description : dict
        From `describe`.
    folder : Path
        Where the files are; the package is written there too.

    Returns
    -------
    Path
        The package.

    Raises
    ------
    JobError
        BioImage.IO's library finds a fault.
    """
    library = import_library()
    package = folder / "package.zip"
    with library.ValidationContext(root=folder, perform_io_checks=True):
        built = library.build_description(description)
    _check_status(built.validation_summary, ("valid-format", "passed"))
    try:
        library.save_bioimageio_package(built, output_path=package)
    except ValueError as error:
        raise JobError(f"BioImage.IO refuses the package: {error}") from error
    return package


def check_package(package: Path) -> bool:
    """Let BioImage.IO's own library read a package and, where it can, run it.

    Parameters
    ----------
    package : Path
        The package.

    Returns
    -------
    bool
        Whether the network was run.

    Raises
    ------
    JobError
        A fault was found.
    """
    library = import_library()
    read = library.load_description(package, perform_io_checks=True)
    _check_status(read.validation_summary, ("valid-format", "passed"))
    if find_spec("bioimageio.core") is None:
        return False
    core = importlib.import_module("bioimageio.core")
    with tracing():
        summary = core.test_model(package, devices=["cpu"])
    _check_status(summary, ("passed",))
    return True


def _check_status(summary: Any, wanted: Sequence[str]) -> None:
    """Raise what a summary of BioImage.IO's library complains of."""
    if summary.status in wanted:
        return
    faults = [error.msg for detail in summary.details for error in detail.errors]
    told = "; ".join(faults)[:1000] or summary.status
    raise JobError(
        f"BioImage.IO's own check refuses the package: {told}. Nothing was written."
    )
