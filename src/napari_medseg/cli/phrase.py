"""``napari-medseg prompt --text``: the segments that a phrase means, without clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg._types import LabelArray
    from napari_medseg.models.partition import Partition
    from napari_medseg.models.phrase import PhraseSegmenter
    from napari_medseg.models.phrase_settings import PhraseConfig

HALF = 0.5
"""A segment is chosen above this."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the command.

    Attributes
    ----------
    image, out : Path
        The image, and the labels.
    config : PhraseConfig
        Phrase and settings.
    points, negative : list of list of float
        Segments to add, and to take away: a row and a column of each.
    at, channel
        As of the command.
    segments : Path or None
        Where all segments go.
    objects : bool
        Whether each part that does not touch another one is an object.
    device : str
        Where to compute.
    """

    image: Path
    out: Path
    config: PhraseConfig
    points: list[list[float]]
    negative: list[list[float]]
    at: str | None
    channel: int | None
    segments: Path | None
    objects: bool
    device: str


def settings_of(text: str, **given: Any) -> PhraseConfig:
    """Return the settings of a phrase; what is None is as by default.

    Raises
    ------
    InputError
        A value cannot be.
    """
    from napari_medseg.models.phrase_settings import PhraseConfig

    known = {name: value for name, value in given.items() if value is not None}
    return PhraseConfig(text=text.strip(), **known)


def by_phrase(asked: Asked, *, as_json: bool) -> None:
    """Do what was asked: segment, write labels, say what was found.

    Raises
    ------
    MedsegError
        Whatever is wrong, in a sentence.
    """
    from napari_medseg.cli.places import seen_channel, slice_of
    from napari_medseg.cli.prompt import write_slice
    from napari_medseg.io.images import read_image
    from napari_medseg.models.phrase import open_phrase

    file = seen_channel(read_image(asked.image), asked.channel)
    index = slice_of(file, asked.at)
    pixels = file.region(index)
    segmenter = open_phrase(asked.config, asked.device)
    partition = follow(segmenter.cutting(pixels), quiet=as_json)
    chosen = _chosen(partition, asked)
    labels = _labels(partition, chosen, objects=asked.objects)
    write_slice(asked.out, file, index, labels)
    if asked.segments is not None:
        write_slice(asked.segments, file, index, partition.segments)
    _tell(asked, segmenter, partition, chosen, as_json=as_json)


def _chosen(partition: Partition, asked: Asked) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which segments are meant, ``bool (S,)``."""
    clicks = [(row, column) for row, column in (*asked.points, *asked.negative)]
    adds = [True] * len(asked.points) + [False] * len(asked.negative)
    found: np.ndarray[Any, np.dtype[np.bool_]] = partition.chosen(clicks, adds) > HALF
    return found


def _labels(
    partition: Partition,
    chosen: np.ndarray[Any, np.dtype[np.bool_]],
    *,
    objects: bool,
) -> LabelArray:
    """Return 1 where a chosen segment is, or an id for each part of it."""
    from napari_medseg.instances import ObjectConfig, find_objects

    mask = chosen[partition.segments - 1]
    if not objects:
        return mask.astype(np.int32)
    config = ObjectConfig(split="components", min_size=1, fill_holes=False)
    return find_objects(mask.astype(np.float32), config)


def _tell(
    asked: Asked,
    segmenter: PhraseSegmenter,
    partition: Partition,
    chosen: np.ndarray[Any, np.dtype[np.bool_]],
    *,
    as_json: bool,
) -> None:
    """Say what was found."""
    rows: list[dict[str, Any]] = [
        {
            "segment": number,
            "area_px": int(area),
            "score": round(float(score), 6),
            "chosen": bool(taken),
        }
        for number, (area, score, taken) in enumerate(
            zip(partition.areas, partition.scores, chosen, strict=True), start=1
        )
    ]
    pixels = sum(row["area_px"] for row in rows if row["chosen"])
    if as_json:
        told = {"labels": str(asked.out), "text": asked.config.text, "segments": rows}
        print_json(told | {"area_px": pixels, "model": segmenter.config.name})
    else:
        share = pixels / max(1, partition.segments.size)
        typer.echo(
            f"{int(chosen.sum())} of {len(rows)} segments are chosen: {pixels} pixels, "
            f"{share:.1%} of the image."
        )
        typer.echo(f"Labels: {asked.out}")
    if not chosen.any():
        typer.echo(
            f"Note: {segmenter.prediction(partition).note or 'no segment is chosen.'}",
            err=True,
        )


def check_use(*, boxes: str, each: bool, idea: int) -> None:
    """Refuse options that are SAM's alone.

    Raises
    ------
    InputError
        One was given.
    """
    if boxes or each or idea != 1:
        raise InputError(
            "With --text there are segments to choose from: --points adds some and "
            "--negative takes some away. --boxes, --each and --idea are for SAM; leave "
            "them out, or leave --text out."
        )
