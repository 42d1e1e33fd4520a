"""A zarr folder read with care: pieces that would fill the memory are refused.

zarr decodes a piece whole, whatever it turns out to hold; so what a piece says of
itself, or what it unpacks to, is looked at before.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from napari_medseg.io.limits import AT_ONCE, RATIO

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_STEP = 2**20
"""Bytes that are unpacked at a time to see how many there are."""

_DEFLATE_RATIO = 1032
"""Deflate packs no better than this."""


ANY_SIZE = -1
"""Of a piece that may have any number of bytes."""


class CarefulStore(LocalStore):
    """A folder of zarr, whose pieces are checked before they are decoded.

    Attributes
    ----------
    blosc : int
        Bytes of a piece that Blosc has packed, or `ANY_SIZE`; 0 where it has not.
    """

    blosc: int = 0

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return what lies under a key, unless it is no file or a bomb.

        Raises
        ------
        ValueError
            It is a pipe or a device, or unpacks to more than 1 GiB and more than 200
            times its size.
        """
        _refuse_pipes(self.root / key)
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            data = found.to_bytes()
            name = key.rsplit("/", 1)[-1]
            if self.blosc and not (name.startswith(".z") or name == "zarr.json"):
                check_blosc(data, self.blosc, key)
            check_piece(data, key)
        return found


def _refuse_pipes(path: Any) -> None:
    """Refuse what would make its reader wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # it is not there, which zarr knows how to take
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path.name} is neither a file nor a folder")


def check_blosc(data: bytes, size: int, key: str) -> None:
    """Refuse a piece whose header Blosc would believe, and read or write elsewhere.

    Parameters
    ----------
    data : bytes
        As it is stored.
    size : int
        Bytes that come out, or `ANY_SIZE`.
    key : str
        Where it lies, for the error.

    Raises
    ------
    ValueError
        The header does not fit the piece.
    """
    head = struct.unpack("<4x3i", data[:16]) if len(data) >= 16 else (-1, -1, -1)
    unpacked, block, packed = head
    fits = unpacked == size or (size == ANY_SIZE and 0 <= unpacked <= AT_ONCE)
    if not fits or packed != len(data) or not 0 < block <= max(unpacked, 1):
        raise ValueError(f"the piece {key} is damaged")


def check_piece(data: bytes, key: str) -> None:
    """Refuse a packed piece that would fill the memory.

    Parameters
    ----------
    data : bytes
        As it is stored: packed by gzip, zlib, zstd, bz2 or xz, or anything else,
        which is left alone (Blosc and LZ4 hold 4 GB at most).
    key : str
        Where it lies, for the error.

    Raises
    ------
    ValueError
        It unpacks to more than 1 GiB and more than 200 times its size.
    """
    most = max(AT_ONCE, RATIO * len(data))
    unpacker: Any = None
    if data[:4] == b"\x28\xb5\x2f\xfd":
        if _zstd_size(data) > most:
            raise ValueError(f"the piece {key} would fill the memory")
    elif data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
        if len(data) * _DEFLATE_RATIO > most:
            unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib
    elif data[:3] == b"BZh":
        unpacker = bz2.BZ2Decompressor()
    elif data[:6] == b"\xfd7zXZ\0":
        unpacker = lzma.LZMADecompressor()
    if unpacker is not None and _unpacked(unpacker, data) > most:
        raise ValueError(f"the piece {key} would fill the memory")


def _unpacked(unpacker: Any, data: bytes) -> int:
    """Return how many bytes come out, or just more than the most there may be."""
    most = max(AT_ONCE, RATIO * len(data))
    total, left = 0, data
    while total <= most:
        try:
            total += len(part := unpacker.decompress(left, _STEP))
        except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
            break  # damaged, or not packed at all: who decodes it says so
        left = getattr(unpacker, "unconsumed_tail", b"")
        # zlib gives back what it did not look at, the others keep it
        if unpacker.eof or getattr(unpacker, "needs_input", not part):
            break
    return total


def _zstd_size(data: bytes) -> int:
    """Return the size that a zstd frame says it has; 0 where it does not say."""
    if len(data) < 6:
        return 0
    described = data[4]
    single = described >> 5 & 1
    length = (single, 2, 4, 8)[described >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[described & 3]
    size = int.from_bytes(data[start : start + length], "little")
    return size + 256 if length == 2 else size
