"""Jobs of the engine: any segmenter on an image, and other labels out of the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import from_dict
from napari_medseg._types import AnySegmenter, JobError, Prediction, Progress
from napari_medseg.batch.measuring import object_kinds
from napari_medseg.engine import phrasing
from napari_medseg.inference import Segmenter, open_segmenter
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of
from napari_medseg.models.everything import Everything
from napari_medseg.models.phrase import PhraseSegmenter
from napari_medseg.models.phrase_settings import is_phrase
from napari_medseg.overlapping import OverlappingSegmenter

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, Job, LabelArray
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def segment(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Segment an image and keep the probabilities for `relabel`.

    Parameters
    ----------
    arguments : dict
        ``key``: the image's name; ``image``: ``float32 (C, Y, X)``; ``model``: a name
        or a model file; ``device``; ``mirrored``: whether the image is seen mirrored,
        too; ``objects``: settings of `ObjectConfig`, or None for classes; ``classes``:
        settings of `ClassConfig`, may be left out; ``phrase``: of a phrase, as
        `napari_medseg.engine.phrasing.cut` takes it.
    context : Context
        Keeps segmenter and probabilities.

    Yields
    ------
    Progress
        Loading, then segmenting.

    Returns
    -------
    dict
        ``labels``: ``int32 (Y, X)``; ``kinds``: of objects the class of each, from
        the first on, 0 where it is not known; ``classes``: name and colour of each
        class; ``note``: what the user should know, or nothing; of a phrase
        ``segments``: ``int32 (Y, X)``, all that there are.
    """
    yield Progress(0, 2, "loading the model")
    segmenter = opened(arguments, context)
    yield Progress(1, 2, "segmenting")
    found: dict[str, Any] = {}
    if isinstance(segmenter, PhraseSegmenter):
        prediction, found["segments"] = yield from phrasing.cut(
            segmenter, arguments, context
        )
    else:
        prediction = yield from _predicted(segmenter, arguments["image"])
    size = prediction.probabilities.nbytes
    context.shelf.put("prediction", arguments["key"], prediction, size)
    return {
        **_labels(prediction, arguments),
        **found,
        "classes": [asdict(item) for item in prediction.classes],
        "note": prediction.note,
    }


def opened(arguments: Message, context: Context) -> AnySegmenter:
    """Return the segmenter that a job asks for, opened now or kept.

    Parameters
    ----------
    arguments : dict
        ``model``, ``device`` and ``mirrored``.
    context : Context
        Keeps it.

    Returns
    -------
    AnySegmenter
        Ready to predict.
    """
    model, device = arguments["model"], arguments["device"]
    mirrored = bool(arguments.get("mirrored", False))
    if is_phrase(model):
        return phrasing.opened(model, device, context)
    segmenter: AnySegmenter = context.shelf.made(
        "segmenter",
        f"{device} {_fingerprint(model)}{' mirrored' * mirrored}",
        lambda: open_segmenter(model, device, mirrored=mirrored),
    )
    return segmenter


def relabel(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Make labels of probabilities that are there, with other settings.

    Parameters
    ----------
    arguments : dict
        ``key``: the image; ``objects``, ``classes``, ``phrase``: as of `segment`.
    context : Context
        Holds the probabilities.

    Returns
    -------
    dict
        ``labels``, ``kinds`` and ``segments``, as of `segment`.

    Raises
    ------
    JobError
        The image was not segmented, or is forgotten.
    """
    yield Progress(0, 1, "finding objects")
    prediction: Prediction | None = context.shelf.get("prediction", arguments["key"])
    if prediction is None:
        raise JobError("The probabilities are no longer there; segment again.")
    if arguments.get("phrase") is None:
        return _labels(prediction, arguments)
    prediction, segments = phrasing.cut_again(arguments, context)
    return {**_labels(prediction, arguments), "segments": segments}


def forget(arguments: Message, context: Context) -> Job[None]:
    """Drop the probabilities of an image: its layer is gone.

    Parameters
    ----------
    arguments : dict
        ``key``: the image.
    context : Context
        Holds them.
    """
    yield Progress(0, 1, "forgetting")
    context.shelf.drop("prediction", arguments["key"])
    context.shelf.drop("image", arguments["key"])
    context.shelf.drop("partition", arguments["key"])


def _predicted(segmenter: AnySegmenter, image: FloatArray) -> Job[Prediction]:
    """Predict; step by step where that takes long, so that a click comes between."""
    if isinstance(segmenter, Everything | Segmenter | OverlappingSegmenter):
        return (yield from segmenter.predicting(image))
    return segmenter.predict(image)


def _labels(prediction: Prediction, arguments: Message) -> dict[str, Any]:
    if arguments["objects"] is None:
        given = arguments.get("classes") or {}
        classes = from_dict(ClassConfig, given, "the settings of classes")
        return {"labels": labels_of(prediction, classes), "kinds": []}
    objects = from_dict(ObjectConfig, arguments["objects"], "the settings of objects")
    labels = labels_of(prediction, objects)
    return {"labels": labels, "kinds": _kinds(labels, prediction)}


def _kinds(labels: LabelArray, prediction: Prediction) -> list[int]:
    """Return the class of each object; as in folders, most of its pixels decide."""
    total, count = int(labels.max(initial=0)), len(prediction.classes)
    if count == 2:
        return [1] * total
    kinds = object_kinds(labels, prediction.labels, count)
    return [kinds.get(label, 0) for label in range(1, total + 1)]


def _fingerprint(model: str) -> str:
    """Return a model's name; for a file, also when it was last written."""
    path = Path(model)
    return f"{model} {path.stat().st_mtime_ns}" if path.is_file() else model
