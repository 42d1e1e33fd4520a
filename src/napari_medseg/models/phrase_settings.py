"""The settings of segmenting by a phrase, apart from its code: no torch is needed.

A segmenter is named by its settings in one line, ``phrase:infected wound; tau=1.1``, so
that commands, forms, folders and their ledgers say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from napari_medseg._config import check, from_dict, setting
from napari_medseg._types import InputError

KIND = "phrase"
"""What names of this segmenter begin with."""


@dataclass(frozen=True, slots=True)
class PhraseConfig:
    """What is looked for, and how alike the parts of a segment are.

    Attributes
    ----------
    text, background, model, tau, window, rounds, anchors, refine, timestep
        See the help text of each field.
    """

    text: str = setting("", "What is looked for, such as: infected wound.")
    background: str = setting(
        "background", "What surrounds it; a segment is chosen by the difference."
    )
    model: str = setting(
        "", "Diffusion model: a name of `models list` or a folder; else the first here."
    )
    tau: float = setting(
        0.9,
        "How alike the parts of a segment are; lower gives more segments.",
        ge=0.0001,
        le=5,
    )
    window: int | None = setting(
        None,
        "Side of the square that is looked at, in pixels; smaller finds smaller things",
        ge=16,
        le=100_000,
    )
    rounds: int = setting(3, "Rounds of merging.", ge=1, le=20)
    anchors: int = setting(16, "Points along a side where segments begin.", ge=1, le=64)
    refine: bool = setting(False, "Refine the segments by k-means; slower.")
    timestep: int = setting(
        300, "How noisy the model takes the image to be, of 1000.", ge=0, le=999
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("text", "background", "model"):
            if any(sign in getattr(self, name) for sign in ";\n"):
                raise InputError(f"{name} is one line without semicolons.")

    @property
    def name(self) -> str:
        """The segmenter's name: the phrase, and what is not as by default."""
        told = [f"{KIND}:{self.text}"]
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if value != item.default:
                told.append(f"{item.name}={value}")
        return "; ".join(told)


def is_phrase(name: str) -> bool:
    """Tell whether the name of a segmenter is that of a phrase."""
    return name.partition(":")[:2] == (KIND, ":")


def phrase_of(name: str) -> PhraseConfig:
    """Return the settings that the name of a segmenter says.

    Parameters
    ----------
    name : str
        Such as ``phrase:infected wound; tau=1.1``.

    Returns
    -------
    PhraseConfig
        Whose name it is.

    Raises
    ------
    InputError
        A setting is unknown, or no such value can be.
    """
    text, *given = name.removeprefix(f"{KIND}:").split(";")
    values: dict[str, object] = {"text": text.strip()}
    for part in given:
        key, equals, value = (item.strip() for item in part.partition("="))
        if not equals:
            raise InputError(
                f"{part.strip()!r} in {name!r} is no setting; write for example "
                f"{KIND}:infected wound; tau=1.1"
            )
        values[key] = _value(key, value)
    return from_dict(PhraseConfig, values, f"the phrase {name!r}")


def _value(key: str, text: str) -> object:
    """Return the value of a setting as its kind; a wrong one stays text."""
    if key in ("text", "background", "model"):
        return text
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
