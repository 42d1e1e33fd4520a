"""What processes that ended have left half done, which is no result but lies there."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from napari_medseg.batch._parts import THUMBNAIL, part_path
from napari_medseg.batch.outputs import output_files, run_files
from napari_medseg.batch.report import REPORT
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.atomic import Origin, temporaries_in
from napari_medseg.io.exports import FORMATS, has_parquet
from napari_medseg.io.result_names import PROVENANCE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from napari_medseg.batch.resume import Folder
    from napari_medseg.batch.settings import BatchSettings


def clear_halves(folder: Folder, names: Collection[str]) -> None:
    """Remove what processes that ended have left half done of some images.

    Parameters
    ----------
    folder : Folder
        Where the results go.
    names : collection of str
        Names of images that nobody is segmenting.
    """
    files = _Files(folder.settings)
    places = {file.rpartition("/")[0] for name in names for file in files.of(name)}
    halves = temporaries_in(folder.out / place for place in places)
    if not halves:
        return
    origins = set(halves.values())
    own = {
        origin
        for name in names
        for file in files.of(name)
        if (origin := Origin.of(folder.out / file)) in origins
    }
    _remove(path for path, origin in halves.items() if origin in own)


def clear_run_halves(folder: Folder) -> None:
    """Remove what a killed run has left half done of the files for all images.

    Parameters
    ----------
    folder : Folder
        Where the results go; no other run is writing there.
    """
    files = (*_Files(folder.settings).of_run(), REPORT, PROVENANCE)
    own = {Origin.of(folder.out / file) for file in files}
    halves = temporaries_in([folder.out])
    _remove(path for path, origin in halves.items() if origin in own)


class _Files:
    """What this run, or an earlier one with other settings, may have written.

    Parameters
    ----------
    settings : BatchSettings
        Of this run.
    """

    def __init__(self, settings: BatchSettings) -> None:
        formats = tuple(name for name in FORMATS if name != "parquet" or has_parquet())
        most = replace(
            settings, formats=formats, probabilities=True, masks=True, classes=None
        )
        # tables of objects have other names than those of classes
        self._settings = [
            replace(most, objects=objects) for objects in (None, ObjectConfig())
        ]

    def of(self, name: str) -> set[str]:
        """Return the files of an image, relative to the output folder."""
        files = {part_path(name, THUMBNAIL)}
        for settings in self._settings:
            files.update(output_files(PurePosixPath(name), settings))
        return files

    def of_run(self) -> set[str]:
        """Return the files for all images."""
        return {file for settings in self._settings for file in run_files(settings)}


def _remove(paths: Iterable[Path]) -> None:
    """Remove files or folders; one that cannot be removed hurts nobody."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(OSError):
            path.unlink()
