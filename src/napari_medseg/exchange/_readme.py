"""The documentation inside a package, made from the model's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.exchange._description import output_names
from napari_medseg.exchange._facts import score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg.inference import Segmenter
    from napari_medseg.io.model_file import ModelCard


def write_readme(segmenter: Segmenter, cautions: Sequence[str], folder: Path) -> None:
    """Write the package's documentation, made from the model's card."""
    text = readme(segmenter, cautions)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def readme(segmenter: Segmenter, cautions: Sequence[str] = ()) -> str:
    """Return the documentation of a package, in Markdown.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    cautions : sequence of str
        Sentences that the reader must see.

    Returns
    -------
    str
        What it was tuned on, how it did, how images must be prepared, its licence.
    """
    card = segmenter.model_file.card
    names = enumerate(output_names(segmenter))
    outputs = "\n".join(f"- {place}: {name}" for place, name in names)
    warned = "\n".join(f"- **{caution}**" for caution in cautions)
    return (
        "\n\n".join(
            part
            for part in (
                f"# {card.title}",
                "A specialist segmenter for 2D images, tuned with napari-medseg.",
                warned,
                f"## Output\n\nThe probability of each:\n\n{outputs}",
                _HOW_TO_PART if segmenter.parts else "",
                f"## Input\n\n{_how_to_prepare(segmenter)}",
                f"## Training\n\n{_origin(card)}",
                f"## Validation\n\n{score(card)} {_HOW_TO_VALIDATE}",
                f"## Licence\n\n{_licences(card)}",
                _ORIGINAL,
            )
            if part
        )
        + "\n"
    )


_HOW_TO_PART = (
    "An object grows from each connected piece whose interior is above 0.5, over the "
    "pixels whose background is below 0.5."
)

_HOW_TO_VALIDATE = (
    "On images like yours it may do better or worse. To find out, segment some that "
    "were not used for tuning, annotate them, and compare: `napari-medseg evaluate "
    "--pred RESULTS --truth TRUTH` gives Dice, IoU and distances of outlines."
)

_ORIGINAL = (
    "## The original\n\n`model.medseg` in this package is the model file itself. "
    "napari-medseg opens it, and does what is listed above by itself: `napari-medseg "
    "segment IMAGES --model model.medseg --out RESULTS`."
)


def _how_to_prepare(segmenter: Segmenter) -> str:
    """Say what the network expects of an image."""
    usual, framing = segmenter.normalisation, segmenter.plan.framing
    count = len(usual.channels)
    listed = ", ".join(map(str, usual.channels))
    alike = "all of them together" if usual.joint else "each by itself"
    grey = count > 1 and len(set(usual.channels)) == 1
    again = f": a grey image is given {count} times" if grey else ""
    lines = [
        f"So many channels: {count}. In the training images they were the channels "
        f"{listed}, counted from 0{again}.",
        f"Values are scaled so that percentile {usual.lower:g} becomes 0 and "
        f"percentile {usual.upper:g} becomes 1 ({alike}), and cut off there. "
        "BioImage.IO's programs do it by themselves. napari-medseg takes the "
        "percentiles from the whole image, however it is cut, and where both are the "
        "same (few cells on black), from the pixels that differ; elsewhere these two "
        "need care.",
        f"{framing.tile} × {framing.tile} pixels at a time, at the resolution of the "
        "training images; inside, they are resized to "
        f"{framing.size} × {framing.size}. napari-medseg cuts larger images into "
        f"windows that overlap by {framing.overlap:.0%} and blends them; smaller ones "
        "get a margin below and to the right.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _origin(card: ModelCard) -> str:
    """Say what a model was tuned on and with."""
    base, origin = card.base, card.provenance
    versions = origin.get("versions") or {}
    facts = {
        "Underneath": f"{base.get('title')}, weights {str(base.get('sha256'))[:12]}…"
        if base
        else None,
        "Annotated images": origin.get("images"),
        "Annotation": origin.get("annotation"),
        "Date": origin.get("date"),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join(lines) or "Not known."


def _licences(card: ModelCard) -> str:
    """Say whose the weights are."""
    text = f"{card.licence}."
    if card.base:
        text += f" The SAM underneath ({card.base['title']}): {card.base['licence']}."
    return text
