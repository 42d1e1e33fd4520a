"""Weights of ImageNet for encoders: fetched once, checked, and never needed again.

They are those that segmentation-models-pytorch names, at the revision that it names, in
safetensors, so that nothing in them is executed. The Hub tells files by their SHA-256,
under which they lie in its cache; a file of another content is refused. Offline, what
was fetched before is used.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import InputError, WeightsError
from napari_medseg.models.deeplab import NEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

FILE = "model.safetensors"
"""Name of the weights in their repository."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class ImageNetWeights:
    """The weights of an encoder that was trained on ImageNet.

    Attributes
    ----------
    backbone : str
        Which encoder.
    source : str
        Repository and revision.
    digest : str
        SHA-256 of the file.
    state : mapping of str to Tensor
        By the encoder's own names; for three channels.
    """

    backbone: str
    source: str
    digest: str
    state: Mapping[str, Tensor]


def imagenet_weights(backbone: str) -> ImageNetWeights:
    """Return the weights of an encoder, from the cache or from the Hub.

    Parameters
    ----------
    backbone : str
        Such as ``efficientnet-b0``.

    Returns
    -------
    ImageNetWeights
        On the processor.

    Raises
    ------
    InputError
        The library that names them is not installed.
    WeightsError
        There is no network and they were not fetched before, or they are damaged.
    """
    try:
        from huggingface_hub.errors import HfHubHTTPError
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(NEEDED) from error
    repository, revision = _named(backbone)
    try:
        path = fetch(repository, revision)
        digest = _checked(path)
        state = load_file(path, device="cpu")
    except (OSError, ValueError, HfHubHTTPError, SafetensorError) as error:
        raise WeightsError(
            f"ImageNet's weights of {backbone} could not be had "
            f"({str(error).splitlines()[0][:200] if str(error) else 'no network'})."
        ) from error
    return ImageNetWeights(backbone, f"{repository}@{revision}", digest, state)


def _named(backbone: str) -> tuple[str, str]:
    """Return the repository and revision that the library names."""
    try:
        from segmentation_models_pytorch.encoders import encoders
    except ImportError as error:
        raise InputError(NEEDED) from error
    settings = encoders[backbone]["pretrained_settings"]["imagenet"]
    if "repo_id" not in settings:
        raise WeightsError(
            "This segmentation-models-pytorch names no weights that can be loaded "
            "safely; update it."
        )
    return settings["repo_id"], settings["revision"]


def fetch(repository: str, revision: str) -> Path:
    """Return the file of weights, fetched where it is not in the Hub's cache.

    Parameters
    ----------
    repository, revision : str
        Where it is on the Hub.

    Returns
    -------
    Path
        In the cache.
    """
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, FILE, revision=revision))


def _checked(path: Path) -> str:
    """Return the SHA-256 of a file, which must be what the cache knows it by."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = path.resolve().name
    if _SHA256.fullmatch(known) and known != digest:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is not that of the published file. "
            "Delete it, and it is fetched again."
        )
    return digest
