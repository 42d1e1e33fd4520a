"""The public calls: train on pairs, load a model.

Training and inference never import each other; a model file joins them, here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_medseg._types import Job, finish
from napari_medseg.inference import load, of_model_file
from napari_medseg.models.methods import METHODS
from napari_medseg.training.conduct import Conduct

if TYPE_CHECKING:
    from napari_medseg.inference import Segmenter
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.overlapping import OverlappingSegmenter
    from napari_medseg.training.report import Trained

    AnyModel = Segmenter | OverlappingSegmenter

__all__ = ["finish", "load", "train", "train_job"]


def train_job(
    pairs: Pairs,
    config: Any,
    conduct: Conduct | None = None,
) -> Job[Trained]:
    """Train by the method that a config belongs to.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    config : object
        Such as ``PromptTuning()``; its class says which method.
    conduct : Conduct, optional
        How it is run: checkpoints, when to stop, what to preview.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Trained
        Model file, report, and the config that gives the same file again.

    Raises
    ------
    TypeError
        No method has a config of this class.
    """
    kind = type(config)
    for method in METHODS.values():
        if method.config == (kind.__module__, kind.__name__):
            module, function = method.train
            job = getattr(import_module(module), function)
            trained: Trained = yield from job(pairs, config, conduct or Conduct())
            return trained
    raise TypeError(f"{kind.__name__} is not the config of a training method")


def train(pairs: Pairs, config: Any, *, date: str = "") -> AnyModel:
    """Train on pairs and return the segmenter.

    Parameters
    ----------
    pairs : Pairs
        From `read_pairs`.
    config : object
        Such as ``PromptTuning(sam="nano")``.
    date : str
        Date for the model's card.

    Returns
    -------
    Segmenter or OverlappingSegmenter
        Ready to predict and to save.
    """
    trained = finish(train_job(pairs, config, Conduct(date)))
    # what lies underneath is at hand and need not be looked for
    base = getattr(config, "sam", None) or getattr(config, "start_from", None)
    return of_model_file(trained.model_file, config.device, base or None)
