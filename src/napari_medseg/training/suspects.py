"""Suspect labels: where a training came to doubt its annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_medseg.io.images import read_image
from napari_medseg.io.tiff import write_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import FloatArray
    from napari_medseg.io.pairs import Pairs

DOUBTED = 0.5
"""A label is suspect where it is more probably wrong than right."""

WORTH_SAYING = 0.005
"""Share of suspect labels from which an image is named."""

NAMED = 5
"""Images named at most."""

SUFFIX = "_suspect.tif"
"""End of the name of a file of suspect labels."""


@dataclass(frozen=True)
class Suspect:
    """What a training thinks of the labels of one image.

    Attributes
    ----------
    name : str
        Name of the image.
    probability : ndarray
        ``float32 (Y, X)``, how probably each label is wrong; 0 where there is none.
    share : float
        Share of the labels that are more probably wrong than right.
    """

    name: str
    probability: FloatArray
    share: float


def ranked(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return suspects with the most suspect image first."""
    return sorted(suspects, key=lambda suspect: -suspect.share)


def sentence_of(suspects: Sequence[Suspect]) -> str | None:
    """Return which images to look at, or None where no label is suspect.

    Parameters
    ----------
    suspects : sequence of Suspect
        One for each image.

    Returns
    -------
    str or None
        A sentence that names the most suspect ones.
    """
    found = [item for item in ranked(suspects) if item.share >= WORTH_SAYING]
    if not found:
        return None
    named = ", ".join(f"{item.name} ({item.share:.1%})" for item in found[:NAMED])
    more = ", …" if len(found) > NAMED else ""
    return (
        f"Labels look wrong on {len(found)} of {len(suspects)} images. Look at these "
        f"first (share of the labels): {named}{more}."
    )


def write_suspects(
    folder: Path, suspects: Sequence[Suspect], pairs: Pairs
) -> list[Path]:
    """Write how probably each label is wrong, a file an image.

    Parameters
    ----------
    folder : Path
        Gets ``NAME_suspect.tif`` for each image: OME-TIFF, ``float32``, with the
        pixel size of the image. A file that exists is replaced.
    suspects : sequence of Suspect
        One for each of the pairs, in their order.
    pairs : Pairs
        The annotated images.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        The disk refuses.
    """
    written = []
    for suspect, pair in zip(suspects, pairs, strict=True):
        file = read_image(pair.image_path) if pair.image_path else None
        path = folder / f"{suspect.name}{SUFFIX}"
        write_probabilities(
            path,
            suspect.probability[None],
            ["label is wrong"],
            scale=file.scale if file else None,
            units=file.units if file else None,
        )
        written.append(path)
    return written
