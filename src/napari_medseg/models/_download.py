"""Downloading one file over HTTP so that it can be cut off and continued."""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from napari_medseg._types import Progress, WeightsError
from napari_medseg.models.weights import make_room

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_medseg.models.weights_file import WeightsFile

_CHUNK = 1 << 16
"""Bytes read at once; what is left of a chunk when the connection breaks is lost."""

_REPORT = 1 << 20
"""Bytes between two reports."""

_HASHED = 1 << 22
"""Bytes hashed between two reports."""

_TIMEOUT = (10.0, 30.0)
"""Seconds to wait for a connection and for the next bytes."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which another try may succeed."""


class _Interrupted(Exception):
    """The connection failed in a way that another try may mend."""


def bring(
    weights: WeightsFile, path: Path, *, attempts: int, pause: float
) -> Generator[Progress, None, None]:
    """Bring a file to its place, continuing a download that was cut off.

    A file that is there already is kept if it is the published one.

    Parameters
    ----------
    weights : WeightsFile
        The file; its ``url``, ``bytes`` and ``sha256`` must be known.
    path : Path
        Its place; it is there whole or not at all.
    attempts, pause
        As for `download`.

    Yields
    ------
    Progress
        Bytes so far and in all.

    Raises
    ------
    WeightsError
        The file could not be brought here; what was downloaded is kept.
    """
    part = path.with_name(path.name + ".part")
    try:
        if _is_whole(path, weights):
            if (yield from hash_file(path)) == weights.sha256:
                return
            path.unlink()
        make_room(part, weights.bytes or 0)
        yield from download(weights, part, attempts=attempts, pause=pause)
        os.replace(part, path)
    except OSError as error:
        # another process that fetched the same file may have been first
        if not isinstance(error, FileNotFoundError) or not _is_whole(path, weights):
            raise WeightsError(
                f"{path} could not be put in place: {error.strerror or error}. Close "
                "other programs that use it and try again; what was downloaded is kept."
            ) from error


def download(
    weights: WeightsFile, part: Path, *, attempts: int, pause: float
) -> Generator[Progress, None, None]:
    """Download ``weights`` to ``part`` and check its SHA-256.

    Bytes that ``part`` holds already are kept, and the rest asked for; a server
    that cannot do that starts from the beginning.

    Parameters
    ----------
    weights : WeightsFile
        The file; its ``url``, ``bytes`` and ``sha256`` must be known.
    part : Path
        Where the bytes go.
    attempts : int
        Tries in a row without any byte arriving before giving up.
    pause : float
        Seconds to wait after the first failed try; doubled after each further.

    Yields
    ------
    Progress
        Bytes so far and in all.

    Raises
    ------
    WeightsError
        The file could not be downloaded (``part`` stays, to be continued), or is
        not the published one (``part`` is removed).
    """
    if urlsplit(weights.url or "").scheme not in {"http", "https"}:
        raise WeightsError(f"{weights.url!r} is not an http or https address.")
    while True:
        continued = part.exists()
        yield from _receive_all(weights, part, attempts, pause)
        if (yield from hash_file(part)) == weights.sha256:
            return
        part.unlink()
        # what an earlier run left may have been spoilt by a crash or power cut
        if not continued:
            raise WeightsError(
                f"The download of {weights.name} from {weights.url} does not match "
                "its published SHA-256, so it was removed: it was damaged on the "
                "way or replaced. Try again; if it happens again, ask who runs your "
                "network."
            )


def hash_file(path: Path) -> Generator[Progress, None, str]:
    """Return the SHA-256 of a file, reporting on the way.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    Progress
        Bytes so far and in all.

    Returns
    -------
    str
        The SHA-256 in lower case.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_HASHED):
            digest.update(chunk)
            yield Progress(file.tell(), total, f"Checking {path.name}")
    return digest.hexdigest()


def _receive_all(
    weights: WeightsFile, part: Path, attempts: int, pause: float
) -> Generator[Progress, None, None]:
    """Ask for the missing bytes until all are there, or nothing comes any more."""
    failures = 0
    while (had := _length(part)) != weights.bytes:
        try:
            yield from _receive(weights, part)
        except (_Interrupted, requests.RequestException) as error:
            failures = 0 if _length(part) > had else failures + 1
            if failures >= attempts:
                raise _given_up(weights, error) from error
            message = f"Connection to {_host(weights)} lost; trying again"
            yield from _wait(pause * 2 ** max(failures - 1, 0), part, weights, message)
        except OSError as error:
            raise WeightsError(
                f"{part} could not be written: {error.strerror or error}. What is "
                "there is kept, and the download continues from it."
            ) from error


def _receive(weights: WeightsFile, part: Path) -> Generator[Progress, None, None]:
    """Make one request and write what comes, from the byte where ``part`` ends."""
    total = weights.bytes or 0
    start = _length(part)
    if start > total:
        part.unlink()
        start = 0
    # compressed transfer would make byte positions meaningless
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(
        str(weights.url), headers=headers, stream=True, timeout=_TIMEOUT
    ) as response:
        if response.status_code == 416:
            part.unlink(missing_ok=True)
            raise _Interrupted("the part was no longer part of the server's file")
        begin = _first_byte(response, weights, start)
        with part.open("r+b" if part.exists() else "w+b") as file:
            # written by position, not appended: two processes that fetch the same
            # file write the same bytes to the same places
            done = reported = file.seek(begin)
            for chunk in response.iter_content(_CHUNK):
                if done + len(chunk) > total:
                    raise _wrong_length(weights, "more")
                file.write(chunk)
                done += len(chunk)
                if done - reported >= _REPORT or done == total:
                    reported = done
                    yield Progress(done, total, _how_far(weights, done))
            if done < total:
                raise _Interrupted("the answer ended early")


def _how_far(weights: WeightsFile, done: int) -> str:
    """Return the message of a report."""
    megabytes = f"{done / 1e6:,.0f} of {(weights.bytes or 0) / 1e6:,.0f} MB"
    return f"Downloading {weights.name}: {megabytes}"


def _first_byte(response: requests.Response, weights: WeightsFile, start: int) -> int:
    """Return the position of the answer's first byte, refusing other answers."""
    status = response.status_code
    if status in _PASSING:
        raise _Interrupted(f"the server answered {status} {response.reason}")
    if status not in {200, 206}:
        raise _given_up(weights, f"the server answered {status} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        # hotel and hospital networks answer with their log-in page
        raise _given_up(weights, "a web page came in place of the file")
    begin = 0
    if status == 206:
        span = response.headers.get("Content-Range", "")
        found = re.match(r"bytes (\d+)-", span)
        if found is None or int(found[1]) != start:
            raise _given_up(weights, f"the server sent another part ({span!r})")
        begin = start
    length = response.headers.get("Content-Length")
    if length is not None and length.isdecimal():
        promised = begin + int(length)
        if promised != weights.bytes:
            raise _wrong_length(weights, f"{promised:,}")
    return begin


def _wait(
    seconds: float, part: Path, weights: WeightsFile, message: str
) -> Generator[Progress, None, None]:
    """Wait in short steps, so that cancelling does not have to."""
    end = time.monotonic() + seconds
    yield Progress(_length(part), weights.bytes, message)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.25))
        yield Progress(_length(part), weights.bytes, message)


def _length(path: Path) -> int:
    """Return the length of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_whole(path: Path, weights: WeightsFile) -> bool:
    """Tell whether a file is there and of the published length."""
    try:
        return path.is_file() and path.stat().st_size == weights.bytes
    except OSError:
        return False


def _host(weights: WeightsFile) -> str:
    """Return the server's name for a message."""
    return urlsplit(weights.url or "").netloc


def _wrong_length(weights: WeightsFile, came: str) -> WeightsError:
    """Return the refusal of a file of another length than the published one."""
    return _given_up(weights, f"{came} bytes came in place of {weights.bytes:,}")


def _given_up(weights: WeightsFile, reason: object) -> WeightsError:
    """Return the sentence at the end of all tries, with the way round the network."""
    if isinstance(reason, requests.Timeout):
        reason = f"{_host(weights)} did not answer in time"
    elif isinstance(reason, requests.exceptions.SSLError):
        reason = f"the identity of {_host(weights)} could not be checked"
    elif isinstance(reason, requests.ConnectionError):
        reason = f"no connection to {_host(weights)}"
    return WeightsError(
        f"{weights.name} could not be downloaded ({reason}). Check the network and "
        f"try again; what is there is kept. Or download it on another computer from "
        f"{weights.url} and run `napari-medseg models import FILE`."
    )
