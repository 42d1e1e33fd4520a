"""DeepLabv3+: weights of ImageNet where they can be had, and none where not."""

from __future__ import annotations

import builtins
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_medseg import api
from napari_medseg._types import InputError, WeightsError, finish
from napari_medseg.inference import open_segmenter
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.models import imagenet
from napari_medseg.models.deeplab import DeepLab
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.network_training import DeeplabTraining
from napari_medseg.training.pretrained import fitted

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg.training.report import Trained

QUICK = DeeplabTraining(steps=1, window=64, batch=2, validate=0, device="cpu")


def train(channels: int = 1) -> Trained:
    rng = np.random.default_rng(0)
    image = rng.random((channels, 64, 64)).astype(np.float32)
    labels = (image[0] > 0.5).astype(np.int32)
    data = gather([Pair("a", image, labels)])
    return finish(api.train_job(data, QUICK, Conduct()))


def no_network(repository: str, revision: str) -> Path:
    raise OSError("no route to the Hub")


def test_without_a_network_it_is_trained_from_scratch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(imagenet, "fetch", no_network)
    trained = train()
    assert any("from scratch" in each for each in trained.report.warnings)
    assert trained.model_file.card.config["encoder_weights"] == "none"
    assert trained.config.encoder_weights == "none", "a replay gives the same"
    path = model_file.save(tmp_path / "a.medseg", trained.model_file)
    found = open_segmenter(str(path), "cpu").predict(np.zeros((1, 50, 41), np.float32))
    assert found.probabilities.shape == (2, 50, 41)


@pytest.mark.parametrize("damaged", [False, True])
def test_weights_are_checked_and_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: bool
) -> None:
    torch.manual_seed(5)
    state = {
        name: item.clone().contiguous()
        for name, item in DeepLab(3, 2).body.state_dict().items()
    }
    save_file({**state, "_conv_head.weight": torch.ones(2)}, tmp_path / "weights")
    digest = sha256((tmp_path / "weights").read_bytes()).hexdigest()
    blob = (tmp_path / "weights").rename(tmp_path / digest)
    if damaged:
        blob.write_bytes(blob.read_bytes() + b" ")
    monkeypatch.setattr(imagenet, "fetch", lambda *names: blob)
    if damaged:
        with pytest.raises(WeightsError, match="damaged"):
            imagenet.imagenet_weights("efficientnet-b0")
        return
    trained = train(channels=2)
    told = trained.model_file.card.provenance["encoder_weights"]
    assert told["sha256"] == digest and "@" in told["source"]
    assert not any("scratch" in each for each in trained.report.warnings)
    first = torch.from_numpy(trained.model_file.tensors["body._conv_stem.weight"])
    begun = fitted(state["_conv_stem.weight"], 2)
    assert (first - begun).abs().max() < 0.01, "one step away from where it began"


def test_kernels_for_other_channels_keep_their_sum() -> None:
    kernels = torch.rand(4, 3, 3, 3)
    flat = torch.ones(1, 1, 3, 3)
    assert fitted(kernels, 1).shape == (4, 1, 3, 3)
    torch.testing.assert_close(fitted(kernels, 3), kernels)
    for channels in (1, 6):
        found = (fitted(kernels, channels) * flat).sum(dim=1)
        torch.testing.assert_close(found, kernels.sum(dim=1))


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("segmentation_models_pytorch"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"napari-medseg\[lesions\]"):
        DeepLab(3, 2)
    with pytest.raises(InputError, match=r"napari-medseg\[lesions\]"):
        imagenet.imagenet_weights("efficientnet-b0")
