"""Tune SAM on a few annotated images, and segment the rest.

>>> pairs = read_pairs("images", "masks")  # doctest: +SKIP
>>> segmenter = train(pairs, PromptTuning(sam="nano"))  # doctest: +SKIP
>>> prediction = segmenter.predict(image)  # doctest: +SKIP
>>> segmenter.save("nuclei.medseg")  # doctest: +SKIP

Importing the package is quick: what is named here is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medseg.api import load, train
    from napari_medseg.inference import Segmenter
    from napari_medseg.io.images import read_image
    from napari_medseg.io.pairs import read_pairs
    from napari_medseg.training.network_training import Med2dObjects, Med2dTraining
    from napari_medseg.training.prompt_tuning import ObjectTuning, PromptTuning

__all__ = [
    "Med2dObjects",
    "Med2dTraining",
    "ObjectTuning",
    "PromptTuning",
    "Segmenter",
    "load",
    "read_image",
    "read_pairs",
    "train",
]

_HOMES = {
    "Med2dObjects": "napari_medseg.training.network_training",
    "Med2dTraining": "napari_medseg.training.network_training",
    "ObjectTuning": "napari_medseg.training.prompt_tuning",
    "PromptTuning": "napari_medseg.training.prompt_tuning",
    "Segmenter": "napari_medseg.inference",
    "load": "napari_medseg.api",
    "read_image": "napari_medseg.io.images",
    "read_pairs": "napari_medseg.io.pairs",
    "train": "napari_medseg.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
