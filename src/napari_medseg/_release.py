"""Which release of the package this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the version of this package, as model files and provenance name it.

    Returns
    -------
    str
        ``0.0.0`` where the package is run from a folder, without being installed: no
        work shall fail for want of a number.
    """
    try:
        return version("napari-medseg")
    except PackageNotFoundError:
        return "0.0.0"
