"""From a model file or a name to predictions: what segments, opened by whatever name.

How a network is run over an image is told in `napari_medseg.windowed`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import (
    AnySegmenter,
    InputError,
    ModelFileError,
    Prediction,
    default_classes,
    finish,
)
from napari_medseg.io import model_file as model_files
from napari_medseg.io.normalise import Normalisation
from napari_medseg.models import bundled
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.classical import open_classical
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Framing
from napari_medseg.models.methods import METHODS
from napari_medseg.models.nano import EMBEDDING_CHANNELS
from napari_medseg.models.phrase_settings import is_phrase, phrase_of
from napari_medseg.models.registry import (
    CLASSICAL,
    EVERYTHING,
    SAMS,
    SPECIALISTS,
    everything_sam,
    is_network,
)
from napari_medseg.models.weights import imported
from napari_medseg.windowed import (
    GPU_BATCH,
    Network,
    Plan,
    predict_bands,
    predicting_probabilities,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from napari_medseg._types import FloatArray, Job, Pixels
    from napari_medseg.overlapping import OverlappingSegmenter


class Segmenter:
    """A trained model, ready to use.

    Parameters
    ----------
    model_file : ModelFile
        What was trained.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    base : str, optional
        Checkpoint of the SAM, or file of the model, underneath, where it is not found
        by itself.
    alone : {"", "old", "new"}
        For a model that a channel was added to: whether images have, or shall be seen
        by, the old channels alone or the new one alone.
    mirrored : bool
        Whether to look at each image mirrored in four ways and take the mean
        (test-time augmentation): four times as long, mostly a little better.

    Raises
    ------
    ModelFileError
        The model is of a kind that this version does not know.
    WeightsError
        The weights underneath are not there.
    InputError
        ``alone`` was said of a model that no channel was added to.
    """

    def __init__(
        self,
        model_file: model_files.ModelFile,
        device: str = "auto",
        base: str | None = None,
        alone: str = "",
        *,
        mirrored: bool = False,
    ) -> None:
        card = model_file.card
        method = METHODS.get(card.kind)
        if method is None:
            raise ModelFileError(
                f"The model is of the kind {card.kind!r}, which this version of "
                "napari-medseg does not know. Update napari-medseg."
            )
        if method.overlapping:
            raise ModelFileError(
                "The model file holds one model for each class, which cannot be used "
                "as a single one here."
            )
        self.model_file = model_file
        self.classes = card.classes
        self.normalisation = from_dict(
            Normalisation, card.normalisation, "the model's normalisation"
        )
        framing = from_dict(Framing, card.framing, "the model's framing")
        target = resolve_device(device)
        batch = GPU_BATCH if target.type == "cuda" else 1
        self.plan = Plan(framing, batch, target, mirrored=mirrored)
        self.parts = method.parts
        module, build = method.network
        self.network: Network = getattr(import_module(module), build)(model_file, base)
        self.alone = alone
        self._added = method.begins_with_a_model
        if alone:
            # brings MONAI along, which other models do not need
            adapters = import_module("napari_medseg.models.adapters")
            self.network, self.normalisation = adapters.with_one(
                self.network, alone, self.normalisation
            )

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, with the channels of the training images.

        Returns
        -------
        Prediction
            Class probabilities and classes.

        Raises
        ------
        InputError
            The image lacks a channel that the model uses.
        JobError
            Memory ran out.
        """
        return finish(self.predicting(image))

    def predicting(self, image: FloatArray) -> Job[Prediction]:
        """Segment an image step by step, so that others can have their turn.

        Parameters
        ----------
        image : ndarray
            As for `predict`.

        Yields
        ------
        Progress
            Rows that are done, after each batch of windows.

        Returns
        -------
        Prediction
            As of `predict`.

        Raises
        ------
        InputError, JobError
            As for `predict`.
        """
        normalisation = self._fitting(len(image))
        probabilities, note = yield from predicting_probabilities(
            image, self.network, normalisation, self.plan
        )
        return self._prediction(probabilities, note)

    def bands(self, pixels: Pixels) -> Iterator[Prediction]:
        """Segment an image that may not fit into memory.

        Parameters
        ----------
        pixels : Pixels
            The image, with the channels of the training images.

        Yields
        ------
        Prediction
            Of the next rows; all of them together are what `predict` gives.

        Raises
        ------
        InputError
            The image lacks a channel that the model uses.
        JobError
            Memory ran out.
        """
        normalisation = self._fitting(pixels.shape[0])
        bands = predict_bands(pixels, self.network, normalisation, self.plan)
        for probabilities, note in bands:
            yield self._prediction(probabilities, note)

    def _fitting(self, count: int) -> Normalisation:
        """Return the channels for images with so many of them."""
        chosen = self.normalisation
        if self.alone and count == len(chosen.channels):
            # nothing else is in them, so they are what was said
            return replace(chosen, channels=tuple(range(count)))
        if self._added and not self.alone and count < len(chosen.channels):
            raise InputError(
                f"This image has {count} channel{'s' * (count != 1)}, and the model "
                f"sees {len(chosen.channels)}. Where one of the two is missing, say "
                "which is there: --alone old, or --alone new."
            )
        return chosen

    def _prediction(self, probabilities: FloatArray, note: str) -> Prediction:
        """Make a prediction of what the network's classes say."""
        if not self.parts:
            return Prediction(probabilities, self.classes, note)
        background, interior = probabilities[0], probabilities[1]
        both = np.stack([background, 1.0 - background])
        return Prediction(both, self.classes, note, interior)

    @property
    def identity(self) -> str:
        """SHA-256 of the model file, and how images are seen, if not as usual."""
        digest = model_files.digest(self.model_file)
        seen = f"{digest}, {self.alone} alone" if self.alone else digest
        return f"{seen}, mirrored" if self.plan.mirrored else seen

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model file; it is there whole or not at all."""
        return model_files.save(path, self.model_file)


def of_model_file(
    model_file: model_files.ModelFile,
    device: str = "auto",
    base: str | None = None,
    alone: str = "",
    *,
    mirrored: bool = False,
) -> Segmenter | OverlappingSegmenter:
    """Return the segmenter of a model file, whatever is in it.

    Parameters
    ----------
    model_file : ModelFile
        What was trained.
    device, base, alone, mirrored
        As for `load`.

    Returns
    -------
    Segmenter or OverlappingSegmenter
        Ready to predict.
    """
    method = METHODS.get(model_file.card.kind)
    if method is not None and method.overlapping:
        from napari_medseg.overlapping import OverlappingSegmenter

        return OverlappingSegmenter(model_file, device, mirrored=mirrored)
    return Segmenter(model_file, device, base, alone, mirrored=mirrored)


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    base: str | None = None,
    alone: str = "",
    *,
    mirrored: bool = False,
) -> Segmenter | OverlappingSegmenter:
    """Load a segmenter from a model file.

    Parameters
    ----------
    path : path-like
        A ``.medseg`` file.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    base : str, optional
        Checkpoint of the SAM, or file of the model, underneath, where it is not found
        by itself. The model that a channel was added to is also looked for in the
        folder of the file.
    alone, mirrored
        As for `Segmenter`.

    Returns
    -------
    Segmenter or OverlappingSegmenter
        Ready to predict.

    Raises
    ------
    ModelFileError
        The file is damaged, unsafe or from a later version.
    WeightsError
        The weights underneath are not there.
    """
    found = model_files.load(path)
    if base is None:
        base = model_files.beside(path, found.card)
    return of_model_file(found, device, base, alone, mirrored=mirrored)


def open_segmenter(
    name: str,
    device: str = "auto",
    base: str | None = None,
    alone: str = "",
    *,
    mirrored: bool = False,
) -> AnySegmenter:
    """Open any segmenter: a tuned model, a SAM, all it finds, a phrase, a threshold.

    Parameters
    ----------
    name : str
        Path of a ``.medseg`` file, a name that ``models list`` shows, or a phrase as
        `napari_medseg.models.phrase_settings.phrase_of` reads it.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    base : str, optional
        Checkpoint of the SAM, or file of the model, underneath, where it is not found
        by itself; for a phrase the diffusion model.
    alone, mirrored
        As for `Segmenter`.

    Returns
    -------
    AnySegmenter
        Ready to predict.

    Raises
    ------
    InputError
        There is neither such a file nor such a name, ``alone`` was said of a model
        that no channel was added to, or ``mirrored`` of what is no model.
    ModelFileError, WeightsError
        As for `load`.
    MedsegError
        For a phrase: diffusers or transformers is not installed.
    """
    is_file = not is_phrase(name) and (
        Path(name).suffix.lower() == ".medseg" or Path(name).exists()
    )
    if alone and not is_file:
        raise InputError(
            f"{name} sees all the channels it uses; --alone is for the file of a "
            "channel that was added to a model."
        )
    if mirrored and not is_network(name):
        raise InputError(
            f"{name} cannot see images mirrored: that is for models, tuned or not. "
            "Leave --mirrored out."
        )
    classical = open_classical(name)
    if classical is not None:
        return classical
    specialist = SPECIALISTS.get(name)
    if specialist is not None:
        return load(bundled.find(specialist.file), device, base, mirrored=mirrored)
    if is_phrase(name):
        # the libraries behind it are an extra
        from napari_medseg.models.phrase import open_phrase

        return open_phrase(phrase_of(name), device, base)
    sam = everything_sam(name)
    if sam is not None:
        module, factory = EVERYTHING.factory
        everything: AnySegmenter = getattr(import_module(module), factory)(
            base or sam, device
        )
        return everything
    if name in SAMS or name in imported():
        return Segmenter(_untuned(base or name), device, base, mirrored=mirrored)
    if is_file:
        return load(name, device, base, alone, mirrored=mirrored)
    names = [*CLASSICAL, EVERYTHING.name, *SPECIALISTS, *SAMS, *imported()]
    raise InputError(
        f"{name!r} is neither a model file nor the name of a segmenter; the names are "
        f"{', '.join(names)}, or phrase: and what to look for."
    )


def _untuned(name: str) -> model_files.ModelFile:
    """Return the model file of a SAM without any prompt."""
    backbone = load_backbone(name)
    size = backbone.working_size
    card = model_files.ModelCard(
        kind="ptsam",
        title=f"{backbone.title}, untuned",
        classes=default_classes(2),
        normalisation=to_dict(Normalisation()),
        base=backbone.card(),
        licence=backbone.licence,
        framing=to_dict(Framing(tile=size, size=size)),
    )
    prompts = np.zeros((1, 0, EMBEDDING_CHANNELS), np.float32)
    return model_files.ModelFile(card, {"decoder_prompts": prompts})
