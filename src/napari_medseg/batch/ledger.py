"""The ledger of a folder: what became of each image, on disk after every image."""

from __future__ import annotations

from dataclasses import dataclass

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
"""What an image can be."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What the ledger knows of one image.

    Attributes
    ----------
    name : str
        Path of its outputs in the output folder, without suffix and with ``/``;
        unlike that of any other image.
    source : str
        The image.
    state : {"waiting", "running", "done", "failed"}
        What became of it.
    error : str
        Why it failed; else empty.
    note : str
        What a user should know of it (memory ran out, say); mostly empty.
    seconds : float or None
        Time it took.
    objects : int or None
        Objects found, all slices together; None where classes were written.
    quality : float or None
        Predicted quality; None where it was not estimated.
    size : int or None
        Bytes of the image.
    modified : int or None
        When the image was last changed, in nanoseconds since 1970.
    digest : str or None
        SHA-256 of the image.
    files : tuple of str
        What was written, relative to the output folder, with ``/``.
    recipe : int or None
        Which model and settings made the files.
    """

    name: str
    source: str
    state: str = WAITING
    error: str = ""
    note: str = ""
    seconds: float | None = None
    objects: int | None = None
    quality: float | None = None
    size: int | None = None
    modified: int | None = None
    digest: str | None = None
    files: tuple[str, ...] = ()
    recipe: int | None = None
