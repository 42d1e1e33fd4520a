"""What a card says of a model, in sentences for whoever gets the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.exchange._package import model_library
from napari_medseg.training.report import NO_BETTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.io.model_file import ModelCard


def known_licence(licence: str) -> str | None:
    """Return an SPDX identifier that BioImage.IO knows, or None."""
    try:
        model_library().LicenseId(licence)
    except ValueError:
        return None
    return licence


def score(card: ModelCard) -> str:
    """Say how a model did on images that it was not tuned on."""
    held_out, other = card.scores.get("held_out"), _compared(card)
    if not held_out:
        return "There is no held-out score."
    count = held_out["images"]
    text = (
        f"Held-out Dice {held_out['dice']:.3f}, IoU {held_out['iou']:.3f} on {count} "
        f"image{'s' * (count != 1)} that it was not tuned on"
    )
    return f"{text} ({other[0]}: Dice {other[1]:.3f})." if other else f"{text}."


def _compared(card: ModelCard) -> tuple[str, float] | None:
    """Return what a model was compared with, in words, and its Dice."""
    for field, name in (("untuned", "SAM untuned"), ("otsu", "Otsu's threshold")):
        scores = card.scores.get(field)
        if scores:
            return name, scores["dice"]
    return None


def cautions_of(card: ModelCard, authors: Sequence[str]) -> list[str]:
    """Return what to know before a model is shared or trusted."""
    found = []
    held_out, other = card.scores.get("held_out"), _compared(card)
    if not held_out:
        found.append(
            "There is no held-out score: look at the result on other images before "
            "you trust it."
        )
    elif other and held_out["dice"] - other[1] <= NO_BETTER:
        found.append(
            f"The tuned model (Dice {held_out['dice']:.2f}) is no better than "
            f"{other[0]} ({other[1]:.2f}) on the held-out images."
        )
    if known_licence(card.licence) is None:
        found.append(
            f"The licence of the weights is not known ({card.licence}): ask whoever "
            "made them before you share the package."
        )
    if not authors:
        found.append("No author is named; --author NAME adds one.")
    return found
