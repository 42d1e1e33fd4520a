"""What a TIFF file must not be: cut short, endless, or a guide to other folders."""

from __future__ import annotations

import math
import os
import re
import struct
from html import unescape
from pathlib import Path
from typing import Any

from napari_medseg._types import InputError
from napari_medseg.io.limits import refuse_odd

MOST_PLANES = 10**7
"""Most planes of a TIFF file."""

_OME_NAME = re.compile(
    # what tifffile would open; other elements may name files as a mere note
    r"""<(?:\w+:)?UUID\b[^>]*?\bFileName\s*=\s*["']([^"']*)["']"""
)
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_OME_SIZE = re.compile(r"""\bSize[ZCT]\s*=\s*["'](\d{1,18})""")


def check_header(path: Path, file: Any) -> None:
    """Refuse a file whose list of pages has no end, or whose header leads elsewhere.

    Parameters
    ----------
    path : Path
        The file.
    file : tifffile.TiffFile
        Opened.

    Raises
    ------
    InputError
        It is so.
    """
    if not _chain_ends(file):
        raise _cut_short(path)
    _check_names(path, file)


def _check_names(path: Path, file: Any) -> None:
    """Refuse an OME header that leads elsewhere, or speaks of more than there can be.

    An image may lie in several files, all in one folder; tifffile would open whatever
    the header names, and make a list of all the planes that it counts.
    """
    text = file.ome_metadata or ""
    for name in map(unescape, _OME_NAME.findall(text)):
        if Path(name).name != name or "\\" in name:
            raise InputError(
                f"{path} refers to another file by its folder ({name[:80]!r}), which "
                "is not followed. Put the files of the image into one folder and "
                "export it again, as one OME-TIFF."
            )
        if os.path.lexists(path.with_name(name)):
            refuse_odd(path.with_name(name))
    for pixels in _OME_PIXELS.findall(text):
        planes = math.prod(int(size) for size in _OME_SIZE.findall(pixels))
        if planes > MOST_PLANES:
            raise InputError(
                f"{path} says that it holds {planes:,} planes, which no file does: its "
                "header is damaged or was made up. Export it again from the original."
            )


def check_complete(path: Path, file: Any, series: Any) -> None:
    """Refuse a file that ends before its pixels do.

    tifffile fills missing pages with zeros, which would pass for an empty image.
    """
    size = file.filehandle.size
    if series.dataoffset is not None:
        complete = series.dataoffset + series.nbytes <= size
    else:
        pieces = math.prod(series.keyframe.chunked)
        complete = all(
            page is not None
            and len(page.dataoffsets) >= pieces
            and all(
                start + length <= size
                for start, length in zip(
                    page.dataoffsets, page.databytecounts, strict=False
                )
            )
            for page in series.pages
        )
    if not complete:
        raise _cut_short(path)


def _cut_short(path: Path) -> InputError:
    return InputError(
        f"{path} is cut short: pixels that it should hold are missing. Copy it again "
        "from the original."
    )


def _chain_ends(file: Any) -> bool:
    """Tell whether the list of pages ends, and not just the file.

    Each page names the place of the next, 0 after the last. tifffile stops without
    an error where that place is beyond the end of the file, and never where pages
    lead back to one before.
    """
    if file.is_ndpi:  # its offsets do not follow the standard
        return True
    layout, handle = file.tiff, file.filehandle
    place, seen = file.pages.first.offset, set()
    while place and place < handle.size and place not in seen:
        seen.add(place)
        handle.seek(place)
        (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
        handle.seek(place + layout.tagnosize + count * layout.tagsize)
        (place,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    return not place
