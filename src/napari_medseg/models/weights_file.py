"""What is known of a file of weights before it is here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of weights: its name, where it comes from, how it is recognised.

    Attributes
    ----------
    name : str
        File name, without any folder.
    url : str or None
        Address it is downloaded from; None where it comes with the package.
    sha256 : str or None
        SHA-256 of the file in lower case; None only for a bundled file, which
        comes with the package and is described by the card beside it.
    bytes : int or None
        Length of the file; None only for a bundled file.
    licence : str
        SPDX identifier of the weights' licence.
    licence_note : str
        Whose the weights are and what the licence asks for, in one sentence.
    bundled : bool
        Whether the file is part of the package.
    """

    name: str
    url: str | None
    sha256: str | None
    bytes: int | None
    licence: str
    licence_note: str
    bundled: bool = False
