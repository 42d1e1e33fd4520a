"""Segmenters of classes that may overlap: one binary model for each, merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from napari_medseg._config import from_dict
from napari_medseg._types import InputError, ModelFileError, Prediction, finish
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file as model_files
from napari_medseg.io.preparation import Preparation, prepare
from napari_medseg.models.merged import merge, merged_shares, parts_of

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from napari_medseg._types import FloatArray, Job


class OverlappingSegmenter:
    """One binary model for each class, ready to use.

    Images are prepared as those of the training were, and results come back in the
    place and size of the image.

    Parameters
    ----------
    model_file : ModelFile
        Of the kind ``lesions``.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    mirrored : bool
        As for `napari_medseg.inference.Segmenter`.

    Attributes
    ----------
    overlapping : bool
        True: predictions have `Prediction.masks`, which other segmenters lack.

    Raises
    ------
    ModelFileError
        The file's card and weights do not fit together.
    """

    overlapping: ClassVar[bool] = True

    def __init__(
        self,
        model_file: model_files.ModelFile,
        device: str = "auto",
        *,
        mirrored: bool = False,
    ) -> None:
        self.model_file = model_file
        self.classes = model_file.card.classes
        self.parts = parts_of(model_file)
        found = model_file.card.config.get("preparation")
        try:
            self.preparation = from_dict(Preparation, found or {}, "the preparation")
        except InputError as error:
            raise ModelFileError(f"The model file cannot be used: {error}") from error
        self.segmenters = [
            Segmenter(part.model_file, device, mirrored=mirrored) for part in self.parts
        ]
        self.mirrored = mirrored
        self.thresholds = [part.threshold for part in self.parts]
        self.shares = [part.share for part in self.parts]

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, with the channels of the training images.

        Returns
        -------
        Prediction
            Labels are merged; `Prediction.stack` and `Prediction.masks` have each
            class by itself.

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
            Rows that are done by the network of a class.

        Returns
        -------
        Prediction
            As of `predict`.

        Raises
        ------
        InputError, JobError
            As for `predict`.
        """
        prepared, place = prepare(image, self.preparation)
        found = []
        for segmenter in self.segmenters:
            found.append((yield from segmenter.predicting(prepared)))
        alone = place.put_back(np.stack([each.probabilities[1] for each in found]))
        labels = merge(alone, self.thresholds, self.shares)
        note = next((each.note for each in found if each.note), "")
        return Prediction(
            merged_shares(alone, self.thresholds, labels),
            self.classes,
            note,
            stack=np.concatenate([1.0 - alone.max(axis=0, keepdims=True), alone]),
            masks=alone > np.asarray(self.thresholds, np.float32)[:, None, None],
        )

    @property
    def identity(self) -> str:
        """SHA-256 of the model file, and how images are seen, if not as usual."""
        digest = model_files.digest(self.model_file)
        return f"{digest}, mirrored" if self.mirrored else digest

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model file; it is there whole or not at all."""
        return model_files.save(path, self.model_file)
