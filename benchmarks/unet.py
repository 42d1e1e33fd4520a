"""The baseline: a U-Net of two million parameters, trained from scratch.

MONAI's ``BasicUNet`` (1,979,042 parameters in 2D), trained by the package's own loop
and objective on the same images for the same seconds, and run by its own inference.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.networks.nets import BasicUNet

from napari_medseg._types import Prediction, default_classes, finish
from napari_medseg.io.normalise import normalise
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Framing
from napari_medseg.training.splits import HOLD_OUT_FROM, Split, split_images
from napari_medseg.training.supervised import Supervised
from napari_medseg.training.trainer import FitConfig, fit
from napari_medseg.training.views import Example, FreshViews, ViewConfig
from napari_medseg.windowed import Plan, predict_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medseg._types import FloatArray, LabelClass
    from napari_medseg.io.normalise import Normalisation
    from napari_medseg.io.pairs import Pairs

SIZE = 256
"""Side of a training window, in pixels; the network is convolutional."""


@dataclass(frozen=True)
class UNetSegmenter:
    """A trained U-Net with what it needs to be applied."""

    network: torch.nn.Module
    normalisation: Normalisation
    plan: Plan
    classes: tuple[LabelClass, ...]
    identity: str = "unet"

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image ``float32 (C, Y, X)``."""
        probabilities, note = predict_probabilities(
            image, self.network.eval(), self.normalisation, self.plan
        )
        return Prediction(probabilities, self.classes, note)


def train_unet(
    pairs: Pairs,
    seconds: float,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> UNetSegmenter:
    """Train for so many seconds.

    With 8 or more images a quarter is held out and the best step is kept; with fewer
    all are trained on.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    seconds : float
        By the clock.
    seed : int
        Of everything random.
    clock : callable
        Wall time, or the processor's.

    Returns
    -------
    UNetSegmenter
        Ready to predict.
    """
    started = clock()
    torch.manual_seed(seed)
    device = resolve_device("auto")
    normalisation = pairs.normalisation()
    examples = [
        Example(pair.name, normalise(pair.image, normalisation), pairs.targets(index))
        for index, pair in enumerate(pairs)
    ]
    present = [frozenset(np.unique(item.target).tolist()) for item in examples]
    few = len(pairs) < HOLD_OUT_FROM
    splits = split_images(present, 0 if few else None, seed)
    split = splits[0] if splits else Split(tuple(range(len(pairs))), ())
    framing = Framing.for_images([item.target.shape for item in examples], 512)
    # windows of a quarter of the area at the same magnification: more steps a second
    window = Framing(tile=max(8, framing.tile * SIZE // 512), size=SIZE)
    views = ViewConfig(window, pairs.classes, shrink=1, seed=seed)
    network = BasicUNet(spatial_dims=2, in_channels=3, out_channels=pairs.classes)
    network.to(memory_format=torch.channels_last)
    segmenter = UNetSegmenter(
        network, normalisation, Plan(framing, 1, device), default_classes(pairs.classes)
    )

    def evaluate() -> dict[str, float]:
        scores = []
        for index in split.held_out:
            found = segmenter.predict(pairs[index].image).labels > 0
            truth = pairs.targets(index) > 0
            total = found.sum() + truth.sum()
            scores.append(2 * (found & truth).sum() / total if total else 1.0)
        network.train()
        return {"score": float(np.mean(scores))}

    config = FitConfig(
        steps=1_000_000,
        learning_rate=1e-3,
        warmup=0.0,
        weight_decay=1e-4,
        evaluate_every=25,
        seed=seed,
    )
    training = [examples[index] for index in split.training]
    finish(
        fit(
            network.train(),
            Supervised(),
            FreshViews(training, views, 4),
            config,
            evaluate=evaluate if split.held_out else None,
            stop=lambda: clock() - started >= seconds,
        )
    )
    return segmenter
