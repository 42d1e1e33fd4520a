"""Pretraining without labels: a folder of images in, an encoder out.

What is pretrained is the encoder of a network that is trained whole, or that of the
bundled SAM, which becomes a SAM of its own.
"""

from __future__ import annotations

import copy
import hashlib
import platform
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medseg._config import to_dict
from napari_medseg._release import release
from napari_medseg._types import InputError, Job
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.encoder_file import EncoderCard, EncoderFile
from napari_medseg.io.normalise import Normalisation
from napari_medseg.models.methods import NETWORKS
from napari_medseg.models.naming import unknown
from napari_medseg.models.nano import STRIDE
from napari_medseg.models.networks import network_class
from napari_medseg.models.registry import SAMS
from napari_medseg.models.weights import weights_folder
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.contrastive import fitting_stride
from napari_medseg.training.pretrained import encoder_state
from napari_medseg.training.pretraining_images import Windows, read_unlabelled
from napari_medseg.training.supercl import (
    ContrastiveModel,
    SuperCL,
    Weights,
    features_of,
)
from napari_medseg.training.superpixels import Slic, SuperpixelCache, find_all
from napari_medseg.training.trainer import FitConfig, FitResult, fit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segment_anything.modeling import Sam
    from torch import nn

    from napari_medseg.models.networks import Network
    from napari_medseg.training.pretraining_images import Unlabelled
    from napari_medseg.training.pretraining_settings import Pretraining

NANO = "nano"
"""The method that pretrains the bundled SAM."""

METHODS = (*NETWORKS, NANO)
"""What can be pretrained; of networks, those that name an encoder."""

RATES = {NANO: 1e-4}
"""Usual learning rates; `RATE` for what begins with nothing."""

RATE = 1e-3
"""Usual learning rate of a network."""

LAST = 0.1
"""Share of the steps whose losses are averaged for the report."""

CONDUCT = Conduct()
"""Nothing kept, nobody to stop it."""


@dataclass(frozen=True)
class PretrainingResult:
    """What came of a pretraining.

    Attributes
    ----------
    file : EncoderFile
        To be saved.
    config : Pretraining
        The settings that give the same again.
    images : int
        Images that were seen, slices of stacks counted one by one.
    steps : int
        Steps done.
    stride : int
        Which features were compared within images.
    figures : mapping of str to float
        Losses, averaged over the last tenth of the steps.
    warnings : tuple of str
        What a user should know.
    """

    file: EncoderFile
    config: Pretraining
    images: int
    steps: int
    stride: int
    figures: Mapping[str, float]
    warnings: tuple[str, ...]


def pretrain(
    images: Path,
    method: str,
    config: Pretraining,
    conduct: Conduct = CONDUCT,
    channels: ChannelChoice = ALL,
) -> Job[PretrainingResult]:
    """Pretrain an encoder on images without labels.

    Parameters
    ----------
    images : Path
        Folder of the images; folders in it are looked into.
    method : str
        One of `METHODS`.
    config : Pretraining
        Settings; `Pretraining.superpixel` is worth a look.
    conduct : Conduct
        Checkpoints and when to stop; when stopped, what was learned is kept.
    channels : ChannelChoice
        Which channels of the images are used; by default all.

    Yields
    ------
    Progress
        Reading, superpixels, and training with its losses.

    Returns
    -------
    PretrainingResult
        The encoder.

    Raises
    ------
    InputError
        The images or settings cannot be used, or there is no such method.
    JobError
        Memory ran out, or the loss became not a number.
    """
    started = time.monotonic()
    subject = _subject(method)
    found = yield from read_unlabelled(
        images, config.reduction, subject.normalisation, channels
    )
    model = subject.model(len(found.normalisation.channels), config)
    superpixels = yield from find_all(
        [item.image for item in found.images],
        Slic(config.superpixel, config.compactness),
        SuperpixelCache(weights_folder() / "superpixels"),
        config.workers,
    )
    windows = Windows(
        found.images, superpixels, config.window, config.batch, config.seed
    )
    job = fit(
        model,
        SuperCL(_weights(config, method)),
        windows,
        _fit_config(config, method, (time.monotonic() - started) / 60.0),
        checkpoint=_checkpoint(conduct.checkpoints, method, config, found),
        stop=conduct.stop,
    )
    result, figures = yield from _averaged(job, config.steps)
    replay = replace(config, minutes=None, stop_at=result.steps)
    card = _card(subject, found, replay, figures, conduct.date)
    tensors = {
        name: item.detach().cpu().contiguous().numpy()
        for name, item in subject.state().items()
    }
    return PretrainingResult(
        EncoderFile(card, tensors),
        replay,
        len(found.images),
        result.steps,
        model.stride,
        figures,
        (*found.problems, *_warnings(found, config)),
    )


class _WholeNetwork:
    """The encoder of a network that is trained whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = network_class(name)
        self.network: Network | None = None
        if not self.kind.encoder:
            raise InputError(
                f"{NETWORKS[name].title} has no encoder of its own, and cannot be "
                "pretrained. Choose another network."
            )

    @property
    def title(self) -> str:
        return f"Encoder of {NETWORKS[self.name].title}"

    licence = "LicenseRef-unspecified"

    def normalisation(self, channels: int, rgb: bool) -> Normalisation:
        return Normalisation.of_all_channels(channels, rgb)

    def model(self, channels: int, config: Pretraining) -> ContrastiveModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = self.kind.build(channels, 2)
            for name, item in network.named_parameters():
                item.requires_grad_(name.split(".", 1)[0] in network.encoder)
            self.network = network
            return _model(network, channels, config)

    def state(self) -> Mapping[str, torch.Tensor]:
        return encoder_state(self.network) if self.network is not None else {}


class _Nano:
    """The image encoder of the bundled SAM; prompts and decoder stay as they are."""

    def __init__(self) -> None:
        from napari_medseg.models.backbone import load_backbone

        self.name = NANO
        self.sam: Sam = load_backbone(NANO).sam

    @property
    def title(self) -> str:
        return SAMS[NANO].title

    @property
    def licence(self) -> str:
        return SAMS[NANO].weights.licence

    def normalisation(self, channels: int, rgb: bool) -> Normalisation:
        return Normalisation.for_channels(channels, rgb)

    def model(self, channels: int, config: Pretraining) -> ContrastiveModel:
        encoder = self.sam.image_encoder
        reference = None
        if config.keep > 0:
            reference = copy.deepcopy(encoder).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            # its statistics stay, as those of a batch would be others
            model = _model(encoder.eval(), channels, config, reference)
        encoder.requires_grad_(True)
        return model

    def state(self) -> Mapping[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.sam.state_dict()
        return state


_Subject = _WholeNetwork | _Nano


def _subject(method: str) -> _Subject:
    if method == NANO:
        return _Nano()
    if method not in NETWORKS:
        raise unknown("encoder to pretrain", method, METHODS)
    return _WholeNetwork(method)


def _model(
    encoder: nn.Module,
    channels: int,
    config: Pretraining,
    reference: nn.Module | None = None,
) -> ContrastiveModel:
    """Put an encoder behind the heads, at the stride that fits."""
    side = config.window
    training = encoder.training
    with torch.no_grad():
        shapes = features_of(encoder.eval(), torch.zeros(1, channels, side, side))
    encoder.train(training)
    if side % max(shapes):
        raise InputError(
            f"The window is {side} pixels; it must be a multiple of {max(shapes)}."
        )
    stride = config.stride or fitting_stride(shapes, config.superpixel)
    if stride not in shapes:
        options = ", ".join(map(str, shapes))
        raise InputError(f"The stride is {stride}; this encoder has {options}.")
    width = shapes[max(shapes)].shape[1]
    return ContrastiveModel(encoder, stride, width, reference, STRIDE)


def _weights(config: Pretraining, method: str) -> Weights:
    return Weights(
        config.instance,
        config.intra,
        config.inter,
        config.keep if method == NANO else 0.0,
        config.temperature,
        config.points,
        config.slices,
    )


def _fit_config(config: Pretraining, method: str, spent: float) -> FitConfig:
    """Return how it is trained, in what is left of the minutes, a tenth at least."""
    rate, minutes = config.learning_rate, config.minutes
    if minutes is not None:
        minutes = max(minutes - spent, minutes / 10)
    return FitConfig(
        steps=config.steps,
        stop_at=config.stop_at,
        learning_rate=RATES.get(method, RATE) if rate is None else rate,
        weight_decay=1e-4,
        final=0.0,
        minutes=minutes,
        seed=config.seed,
        device=config.device,
    )


def _checkpoint(
    folder: Path | None, method: str, config: Pretraining, found: Unlabelled
) -> Path | None:
    """Return the file of a run, of these images and settings alone."""
    if folder is None:
        return None
    run = repr((method, config.lasting, found.digest)).encode()
    name = hashlib.sha256(run).hexdigest()[:16]
    return folder / f"{name}-pretraining.safetensors"


def _averaged(
    job: Job[FitResult], steps: int
) -> Job[tuple[FitResult, dict[str, float]]]:
    """Pass a training's progress on, and average its last losses."""
    last: list[Mapping[str, float]] = []
    while True:
        try:
            progress = next(job)
        except StopIteration as ended:
            result: FitResult = ended.value
            break
        last = [*last, progress.metrics][-max(1, round(LAST * steps)) :]
        yield replace(progress, message="pretraining")
    names = last[0] if last else {}
    return result, {
        name: round(float(np.mean([each[name] for each in last])), 4) for name in names
    }


def _card(
    subject: _Subject,
    found: Unlabelled,
    config: Pretraining,
    figures: Mapping[str, float],
    date: str,
) -> EncoderCard:
    # where it was computed, and by how many, is no part of the weights
    plain: dict[str, Any] = to_dict(replace(config, device="auto", workers=None))
    count = len(found.images)
    return EncoderCard(
        kind=subject.name,
        title=f"{subject.title}, pretrained on {count} images",
        channels=len(found.normalisation.channels),
        normalisation=to_dict(found.normalisation),
        config=plain,
        provenance={
            "data": found.digest,
            "images": count,
            "seed": config.seed,
            "date": date,
            "versions": {
                "napari-medseg": release(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
        figures=figures,
        licence=subject.licence,
    )


def _warnings(found: Unlabelled, config: Pretraining) -> list[str]:
    """Say what makes it unlikely that something was learned."""
    told = []
    pixels = sum(item.image[0].size for item in found.images)
    if pixels < 16 * config.batch * config.window**2:
        told.append(
            f"{len(found.images)} images are few to pretrain on; hundreds are better."
        )
    if config.steps * config.batch < len(found.images):
        told.append(
            "Not every image was seen once; give more steps, or a larger batch."
        )
    return told
