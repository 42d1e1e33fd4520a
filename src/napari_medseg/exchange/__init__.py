"""A tuned model as a BioImage.IO package, for other programs to run.

The package holds the whole network as TorchScript, so nothing of napari-medseg is
needed to run it, and the model file itself, so nothing is lost. What BioImage.IO's
description of a model has no words for (resizing, mostly) is done inside the network
or told in the package's README.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import (
    InputError,
    Job,
    JobError,
    ModelFileError,
    Progress,
)
from napari_medseg.exchange._description import describe
from napari_medseg.exchange._facts import cautions_of
from napari_medseg.exchange._network import write_network
from napari_medseg.exchange._package import (
    check_package,
    format_version,
    import_library,
    pack,
)
from napari_medseg.exchange._readme import write_readme
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file as model_files
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Exported", "export_bioimageio"]


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes
    ----------
    path : Path
        The package.
    format_version : str
        Version of BioImage.IO's model format that it keeps.
    tested : bool
        Whether BioImage.IO's own test ran the network, and passed.
    warnings : tuple of str
        Sentences that whoever shares the package should read.
    """

    path: Path
    format_version: str
    tested: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return {
            "file": str(self.path),
            "format": f"bioimage.io model {self.format_version}",
            "tested": self.tested,
            "warnings": list(self.warnings),
        }


def export_bioimageio(
    model: Path,
    out: Path,
    *,
    authors: Sequence[str] = (),
    base: str | None = None,
    overwrite: bool = False,
) -> Job[Exported]:
    """Write a model as a BioImage.IO package, checked by BioImage.IO's own library.

    Parameters
    ----------
    model : Path
        A ``.medseg`` file.
    out : Path
        The package to write, ``.zip``; it is there whole or not at all.
    authors : sequence of str
        Who made the model.
    base : str, optional
        Checkpoint of the SAM underneath, where it is not found by itself.
    overwrite : bool
        Whether a package that exists may be replaced.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Exported
        The package, and what to know about it.

    Raises
    ------
    InputError
        The name of the package or of an author cannot be used.
    ModelFileError, WeightsError
        The model cannot be loaded, or not be described in BioImage.IO's words.
    JobError
        The extra is not installed, a check failed, or the file cannot be written.
    """
    _check_names(out, authors, overwrite=overwrite)
    yield Progress(0, 4, "loading the model")
    import_library()  # that takes seconds
    model_file = model_files.load(model)
    _refuse_several(model, model_file.card.kind)
    segmenter = Segmenter(model_file, "cpu", base)
    # Windows cannot delete a file that the library still holds open
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        try:
            shutil.copyfile(model, folder / "model.medseg")
            yield Progress(1, 4, "tracing the network")
            write_network(segmenter, folder)
            yield Progress(2, 4, "packing")
            cautions = cautions_of(model_file.card, authors)
            write_readme(segmenter, cautions, folder)
            package = pack(describe(segmenter, authors), folder)
            yield Progress(3, 4, "checking the package")
            tested = check_package(package)
            with atomic_path(out) as path:
                shutil.copyfile(package, path)
        except OSError as error:
            raise JobError(
                f"{out} cannot be written: {error.strerror or error}."
            ) from error
    return Exported(out, format_version(), tested, tuple(cautions))


def _refuse_several(model: Path, kind: str) -> None:
    """Refuse what is more than one network: a package holds one."""
    method = METHODS.get(kind)
    if method is not None and method.overlapping:
        raise ModelFileError(
            f"{model} holds a network for each class, and a package of BioImage.IO "
            "holds one. Share the model file itself."
        )
    if method is not None and method.begins_with_a_model:
        # two files, two licences
        raise ModelFileError(
            f"{model} adds a channel to another model, and cannot be exported as a "
            "package of its own. Export the other model, or share both files."
        )


def _check_names(out: Path, authors: Sequence[str], *, overwrite: bool) -> None:
    """Refuse names that no package can have, before anything is computed."""
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out} must end in .zip: a BioImage.IO package is a zip.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; choose another name, or add --overwrite.")
    for author in authors:
        if not author.strip() or "/" in author or "\\" in author:
            raise InputError(
                f"{author!r} cannot be the name of an author; it must be text without "
                "slashes. Give --author once for each of them."
            )
