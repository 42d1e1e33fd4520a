"""Folders of small generated images, and what tests say of commands run on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from typer.testing import CliRunner

from napari_medseg.cli.app import app
from napari_medseg.samples import make_two_kinds

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

SIZE = 96
"""Side of the images in pixels."""

QUICK = ("--steps", "4", "--views", "1", "--working-size", "128", "--sam", "nano")
"""Options of a training that takes a second and teaches next to nothing."""


def write_pairs(root: Path, count: int = 4, *, seed: int = 3) -> Path:
    """Write ``images`` and ``masks`` of round cells among rods; return the folder."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index, scene in enumerate(make_two_kinds(count, seed, SIZE)):
        mask = (scene.kinds == 1).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"cell {index}.tif", scene.image[0])
        tifffile.imwrite(root / "masks" / f"cell {index}_mask.tif", mask)
    return root


def command(*arguments: Any) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def assert_refused(result: Result, *words: str) -> None:
    """Check for a sentence on standard error in place of a traceback."""
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    for word in ("Error", *words):
        assert word in result.stderr, result.stderr


def content(folder: Path) -> list[str]:
    """Return the names of all files in a folder, hidden ones too."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )
