"""Model files that hold one binary model for each class, and how these are merged.

A part is a model file of its own: that of a network with two classes. Its tensors lie
in the whole under the number of its class, so that a part that is trained again leaves
those of the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import CLASS_COLOURS, LabelClass, ModelFileError
from napari_medseg.io.model_file import ModelCard, ModelFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import FloatArray, LabelArray

KIND = "lesions"
"""Kind of the model files."""

_OWN = ("kind", "title", "normalisation", "config", "provenance", "scores", "framing")
"""What of a part's card is kept; the rest follows from the whole."""


@dataclass(frozen=True)
class Part:
    """The binary model of one class.

    Attributes
    ----------
    name : str
        Name of the class.
    value : int
        Its value in the annotations.
    threshold : float
        Probability above which a pixel is of the class.
    share : float
        Share of the annotated pixels that are of the class; smaller classes go first.
    model_file : ModelFile
        A network of background and this class.
    """

    name: str
    value: int
    threshold: float
    share: float
    model_file: ModelFile


def join(parts: Sequence[Part], title: str, **fields: Any) -> ModelFile:
    """Return one model file of all parts.

    Parameters
    ----------
    parts : sequence of Part
        At least one, in the order of their classes.
    title : str
        Name shown to the user.
    **fields
        Other fields of the card; ``config`` gets the parts added.

    Returns
    -------
    ModelFile
        Of the kind ``lesions``.
    """
    first = parts[0].model_file.card
    colours = CLASS_COLOURS[1:]
    classes = [LabelClass("background", CLASS_COLOURS[0])] + [
        LabelClass(part.name, colours[index % len(colours)])
        for index, part in enumerate(parts)
    ]
    told = [
        {
            "name": part.name,
            "value": part.value,
            "threshold": part.threshold,
            "share": part.share,
            "card": {name: getattr(part.model_file.card, name) for name in _OWN},
        }
        for part in parts
    ]
    tensors = {
        f"{index}/{name}": item
        for index, part in enumerate(parts, 1)
        for name, item in part.model_file.tensors.items()
    }
    config = {**fields.pop("config", {}), "parts": told}
    card = ModelCard(
        kind=KIND,
        title=title,
        classes=tuple(classes),
        normalisation=first.normalisation,
        framing=first.framing,
        config=config,
        **fields,
    )
    return ModelFile(card, tensors)


def parts_of(model_file: ModelFile) -> list[Part]:
    """Return the parts of a model file.

    Parameters
    ----------
    model_file : ModelFile
        Of the kind ``lesions``.

    Returns
    -------
    list of Part
        In the order of the classes.

    Raises
    ------
    ModelFileError
        Card and tensors do not fit together.
    """
    card = model_file.card
    told = card.config.get("parts")
    if not isinstance(told, list | tuple) or len(told) != len(card.classes) - 1:
        raise _damaged()
    return [_part(model_file, index, entry) for index, entry in enumerate(told, 1)]


def _part(model_file: ModelFile, index: int, entry: Any) -> Part:
    """Return one part, trusting nothing in its entry."""
    own = entry.get("card") if isinstance(entry, Mapping) else None
    if not isinstance(own, Mapping) or set(own) != set(_OWN):
        raise _damaged()
    objects = [own[name] for name in _OWN if name not in ("kind", "title")]
    threshold, share = entry.get("threshold"), entry.get("share")
    whole = model_file.card
    held = (
        isinstance(own["kind"], str)
        and own["kind"] != KIND
        and all(isinstance(each, Mapping) for each in objects)
        and _within(threshold)
        and _within(share)
        and isinstance(entry.get("value"), int)
    )
    if not held:
        raise _damaged()
    classes = (whole.classes[0], whole.classes[index])
    card = ModelCard(classes=classes, licence=whole.licence, **own)
    tensors = {
        name.removeprefix(f"{index}/"): item
        for name, item in model_file.tensors.items()
        if name.startswith(f"{index}/")
    }
    part = ModelFile(card, tensors)
    return Part(classes[1].name, entry["value"], threshold, share, part)


def _within(value: Any) -> bool:
    """Tell whether a value is a share."""
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def _damaged() -> ModelFileError:
    return ModelFileError(
        "The model file's parts do not fit its card; the file is damaged or was made "
        "by another program. Ask for it again."
    )


def merge(
    probabilities: FloatArray, thresholds: Sequence[float], shares: Sequence[float]
) -> LabelArray:
    """Return one label for each pixel of classes that may overlap.

    Parameters
    ----------
    probabilities : ndarray
        ``float32 (K, Y, X)``, of each class by itself, without background.
    thresholds : sequence of float
        Probability above which a pixel is of the class.
    shares : sequence of float
        How common each class is.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``: of the classes with p > t that with the largest p / t; of
        several with the same the rarest; 0 where there is none.
    """
    best = np.zeros(probabilities.shape[1:], np.float32)
    labels = np.zeros(best.shape, np.int32)
    for index in np.argsort(np.asarray(shares), kind="stable"):
        limit = np.float32(thresholds[index])
        # a threshold of 0 is passed by all that is above it, and nothing is more
        ratio = probabilities[index] / max(limit, np.finfo(np.float32).tiny)
        wins = (probabilities[index] > limit) & (ratio > best)
        best[wins] = ratio[wins]
        labels[wins] = index + 1
    return labels


def merged_shares(
    probabilities: FloatArray, thresholds: Sequence[float], labels: LabelArray
) -> FloatArray:
    """Return class probabilities whose largest is the merged label of each pixel.

    Parameters
    ----------
    probabilities : ndarray
        ``float32 (K, Y, X)``, of each class by itself.
    thresholds : sequence of float
        Of each class.
    labels : ndarray
        ``int32 (Y, X)``, as `merge` gives them.

    Returns
    -------
    ndarray
        ``float32 (K + 1, Y, X)``, background first, summing to 1: in the ratio of
        p / t, in which background has 1.
    """
    least = np.finfo(np.float32).tiny
    limits = np.maximum(np.asarray(thresholds, np.float32), least)[:, None, None]
    odds = np.concatenate([np.ones_like(probabilities[:1]), probabilities / limits])
    odds = np.minimum(odds, np.float32(1e6))
    shares = odds / odds.sum(axis=0)
    highest = shares.max(axis=0)
    # of equal ones numpy takes the first, and the rarest class need not be that
    ties = shares.argmax(axis=0) != labels
    raised = np.nextafter(highest, np.float32(2.0))
    chosen = np.take_along_axis(shares, labels[None], axis=0)[0]
    raised = np.where(ties, raised, chosen)
    np.put_along_axis(shares, labels[None], raised[None], axis=0)
    result: FloatArray = shares.astype(np.float32)
    return result
