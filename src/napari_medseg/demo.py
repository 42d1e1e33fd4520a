"""The main job in one go: tune on 16 images, segment others, say how it went.

On generated images with two kinds of objects, both on every image and equally bright,
the same SAM is tuned twice: once on annotations of the round cells, once on those of
the rods. Each model has to find its own kind, which no threshold can.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.api import train_job
from napari_medseg.inference import Segmenter
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.pairs import Pair, Pairs, gather, read_pairs
from napari_medseg.samples import TWO_KINDS, make_two_kinds
from napari_medseg.training.baseline import better_otsu, mean_dice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import AnySegmenter, FloatArray, LabelArray
    from napari_medseg.training.prompt_tuning import PromptTuning

TRAINING = 16
"""Images tuned on."""

TESTING = 16
"""Images measured on, at most."""

OVERLAYS = 4
"""Overlays written for each task."""


@dataclass(frozen=True)
class Task:
    """Something to find: pairs to tune on, and others to measure on.

    Attributes
    ----------
    name : str
        What is to be found.
    training : Pairs
        Annotated images.
    testing : Pairs
        Others of the same kind.
    """

    name: str
    training: Pairs
    testing: Pairs


@dataclass(frozen=True)
class TaskResult:
    """Mean Dice on the images measured on, and the model.

    Attributes
    ----------
    name : str
        What was to be found.
    dice, untuned, otsu : float
        Of the tuned model, of SAM without prompts, and of Otsu's threshold (bright or
        dark objects, whichever is better on the training images).
    images : int
        Images measured on.
    seconds : float
        Time of tuning.
    model : Path
        The model file.
    """

    name: str
    dice: float
    untuned: float
    otsu: float
    images: int
    seconds: float
    model: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return {
            "dice": round(self.dice, 4),
            "untuned": round(self.untuned, 4),
            "otsu": round(self.otsu, 4),
            "images": self.images,
            "seconds": round(self.seconds, 2),
            "model": str(self.model),
        }


def generated_tasks(seed: int) -> list[Task]:
    """Return the two tasks on generated images: each kind of object in turn.

    Parameters
    ----------
    seed : int
        Of the images; the bundled weights never saw any of these.

    Returns
    -------
    list of Task
        The same images, annotated for one kind and for the other.
    """
    scenes = make_two_kinds(TRAINING + TESTING, seed)
    tasks = []
    for kind, name in enumerate(TWO_KINDS, start=1):
        pairs = [
            Pair(
                f"image{index:02d}",
                scene.image.astype(np.float32),
                (scene.kinds == kind).astype(np.int32),
            )
            for index, scene in enumerate(scenes)
        ]
        whole = gather(pairs, annotation="dense")
        tasks.append(Task(name, whole[:TRAINING], whole[TRAINING:]))
    return tasks


def folder_task(data: Path) -> Task:
    """Return the task of a folder that holds ``images`` and ``masks``.

    Parameters
    ----------
    data : Path
        The folder.

    Returns
    -------
    Task
        The first 16 pairs to tune on; up to 16 others to measure on.

    Raises
    ------
    InputError
        The folders are not there, or hold fewer than two pairs.
    """
    images, masks = data / "images", data / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise InputError(
            f"{data} must hold two folders, images and masks, with files of the same "
            "names."
        )
    pairs = read_pairs(images, masks)
    if len(pairs) < 2:
        raise InputError(f"{data} holds one pair; at least two are needed.")
    cut = min(TRAINING, len(pairs) - 1)
    return Task(data.absolute().name, pairs[:cut], pairs[cut : cut + TESTING])


def run_demo(
    tasks: Sequence[Task], out: Path, config: PromptTuning
) -> Job[list[TaskResult]]:
    """Tune on each task, measure, and write models and overlays.

    Parameters
    ----------
    tasks : sequence of Task
        What to find.
    out : Path
        Folder for model files and overlays.
    config : PromptTuning
        How to tune.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    list of TaskResult
        One a task.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for task in tasks:
        started = time.monotonic()
        job = train_job(task.training, config)
        trained = yield from _named(job, task.name)
        seconds = time.monotonic() - started
        segmenter = Segmenter(trained.model_file, config.device, config.sam)
        path = segmenter.save(out / f"{task.name.replace(' ', '_')}.medseg")
        bare = trained.model_file.tensors["decoder_prompts"][:, :0]
        without = replace(trained.model_file, tensors={"decoder_prompts": bare})
        untuned = Segmenter(without, config.device, config.sam)
        yield Progress(0, None, f"{task.name}: measuring")
        results.append(
            TaskResult(
                task.name,
                mean_dice(segmenter, task.testing),
                mean_dice(untuned, task.testing),
                mean_dice(better_otsu(task.training), task.testing),
                len(task.testing),
                seconds,
                path,
            )
        )
        write_overlays(segmenter, task, out)
    return results


def _named(job: Job[Any], name: str) -> Job[Any]:
    """Put a task's name before the messages of its job."""
    while True:
        try:
            progress = next(job)
        except StopIteration as done:
            return done.value
        message = f"{name}: {progress.message}"
        yield Progress(progress.step, progress.total, message, progress.metrics)


def write_overlays(segmenter: AnySegmenter, task: Task, out: Path) -> None:
    """Write some images with outlines: the annotation yellow, the result blue.

    Parameters
    ----------
    segmenter : AnySegmenter
        Makes the result.
    task : Task
        Whose testing images are shown.
    out : Path
        Folder of the PNG files.
    """
    import imageio.v3 as imageio

    for index, pair in enumerate(task.testing[:OVERLAYS]):
        found = segmenter.predict(pair.image).labels
        picture = overlay(pair.image, task.testing.targets(index), found)
        name = f"{task.name.replace(' ', '_')}_{pair.name}.png"
        with atomic_path(out / name) as path:
            imageio.imwrite(path, picture)


def overlay(image: FloatArray, truth: LabelArray, found: LabelArray) -> Any:
    """Draw outlines over an image.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``.
    truth, found : ndarray
        ``int32 (Y, X)``.

    Returns
    -------
    ndarray
        ``uint8 (Y, X, 3)``: the truth in yellow, what was found in blue.
    """
    from skimage.segmentation import find_boundaries

    from napari_medseg.io.normalise import Normalisation, normalise

    usual = Normalisation.for_channels(len(image), rgb=len(image) == 3)
    picture = np.moveaxis(normalise(image, usual), 0, -1).copy()
    for labels, colour in ((truth, (1.0, 0.85, 0.1)), (found, (0.2, 0.6, 1.0))):
        edges = find_boundaries(labels > 0, mode="inner")  # type: ignore[no-untyped-call]
        picture[edges] = colour
    return (picture * 255).astype(np.uint8)
