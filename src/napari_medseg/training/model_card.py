"""The card of a model that a study trained."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_medseg._config import to_dict
from napari_medseg._release import release
from napari_medseg._types import default_classes
from napari_medseg.io.model_file import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medseg.training.report import TrainingReport
    from napari_medseg.training.study import AnyStudy


def card_of(
    study: AnyStudy,
    report: TrainingReport,
    kind: str,
    title: str,
    *,
    origin: Mapping[str, Any] | None = None,
    **own: Any,
) -> ModelCard:
    """Return the card of a study that was run.

    Parameters
    ----------
    study : Study
        The study.
    report : TrainingReport
        How it went.
    kind : str
        Name of the method.
    title : str
        What was trained, in words; the number of images is added.
    origin : mapping, optional
        What else the provenance says.
    **own
        Fields of the card that the method knows: base, licence, and what of the config
        is told otherwise.

    Returns
    -------
    ModelCard
        Without anything that tells on which computer it was made.
    """
    plain = to_dict(study.replay) | own.pop("config", {})
    # where it was computed is no part of the model, and a path says who did
    plain |= {"device": "auto", "unlabelled": Path(study.config.unlabelled).name}
    fields: dict[str, Any] = {"config": plain} | own
    known: dict[str, Any] = {"images": len(study.pairs)}
    if study.pairs.shown:
        known["channels"] = list(study.pairs.shown)
    shown = f"{title}, {len(study.pairs)} images"
    if others := len(study.unlabelled):
        known["unlabelled"] = {"images": others, "data": study.unlabelled.digest}
        shown += f" and {others} without labels"
    return ModelCard(
        kind=kind,
        title=shown,
        classes=default_classes(study.pairs.classes),
        normalisation=to_dict(study.normalisation),
        provenance={
            "data": study.pairs.digest,
            **known,
            "annotation": study.pairs.annotation_kind,
            "class_values": list(study.pairs.class_values),
            "seed": study.config.seed,
            "date": study.conduct.date,
            **(origin or {}),
            "versions": {
                "napari-medseg": release(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
        scores=report.scores(),
        framing=to_dict(study.view_config.framing),
        **fields,
    )
