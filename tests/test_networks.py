"""The contract that every network of the registry keeps, and what each one says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from napari_medseg._types import InputError
from napari_medseg.models.med2d import DepthwiseConv, MedBlock
from napari_medseg.models.methods import METHODS, NETWORKS
from napari_medseg.models.networks import network_class
from napari_medseg.models.prompts import trained_count
from napari_medseg.models.wavelet import frequencies, haar

if TYPE_CHECKING:
    from napari_medseg.models.networks import Network

PARAMETERS = {
    "mamba": 2_169_403,
    "med2d": 2_073_177,
    "deeplab": 4_495_309,
    "unetr": 6_610_993,
    "xnet": 7_069_731,
}
"""Numbers of each network with three channels and one output."""


def built(name: str, channels: int = 3, classes: int = 2) -> Network:
    torch.manual_seed(0)
    return network_class(name).build(channels, classes)


def reduced(length: int, network: Network) -> int:
    return -(-length // network.shrink)


@pytest.mark.parametrize("name", NETWORKS)
class TestContract:
    """What every network promises."""

    def test_is_named_as_it_is_found(self, name: str) -> None:
        assert NETWORKS[name].name == name
        assert PARAMETERS[name] == trained_count(built(name, classes=1))

    @pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 3), (3, 1), (5, 12)])
    def test_any_channels_and_classes(
        self, name: str, channels: int, classes: int
    ) -> None:
        network = built(name, channels, classes)
        images = torch.randn(2, channels, 64, 96)
        logits = network(images)
        wanted = (2, classes, reduced(64, network), reduced(96, network))
        assert logits.shape == wanted
        # in use, where nothing is passed by at random
        outputs = network.eval().outputs(images)
        assert {output.shape for output in outputs} == {wanted}
        torch.stack([(output**2).mean() for output in outputs]).sum().backward()
        still = [
            key
            for key, item in network.named_parameters()
            if item.grad is None or not item.grad.any()
        ]
        assert still == [], "no gradient reaches these"

    @pytest.mark.parametrize("shape", [(1, 1), (33, 47), (100, 61), (129, 34)])
    def test_odd_sizes(self, name: str, shape: tuple[int, int]) -> None:
        network = built(name).eval()
        shape = tuple(max(side, network.smallest) for side in shape)  # type: ignore[assignment]
        logits = network(torch.randn(1, 3, *shape))
        assert logits.shape[2:] == tuple(reduced(side, network) for side in shape)
        assert torch.isfinite(logits).all()

    def test_state_goes_round(self, name: str) -> None:
        first = built(name)
        first(torch.randn(2, 3, 64, 64))  # statistics, where it keeps any
        torch.manual_seed(1)
        second = network_class(name).build(3, 2)
        images = torch.randn(1, 3, 64, 64)
        assert not torch.equal(first.eval()(images), second.eval()(images))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(images), second(images))

    def test_the_seed_decides(self, name: str) -> None:
        first, second = built(name).state_dict(), built(name).state_dict()
        assert all(torch.equal(item, second[key]) for key, item in first.items())

    def test_mixed_precision(self, name: str) -> None:
        """Forward and backward in bfloat16, near what float32 gives."""
        network = built(name)
        images = torch.randn(2, 3, 64, 64)
        torch.manual_seed(1)
        exact = network(images)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(images)
        # deeper networks add up more rounding
        assert (rough.float() - exact).std() < 0.3 * exact.std()
        rough.float().mean().backward()
        assert all(
            torch.isfinite(item.grad).all()
            for item in network.parameters()
            if item.grad is not None
        )

    def test_the_encoder_has_features_at_several_strides(self, name: str) -> None:
        """All of what it is named to be made of, and nothing else, makes them."""
        network = built(name)
        if not network.encoder:
            pytest.skip("cannot be pretrained")
        features = network.features(torch.randn(2, 3, 64, 96))
        strides = list(features)
        assert strides == sorted(strides) and len(strides) > 1
        for stride, found in features.items():
            assert found.shape[::2] == (2, 64 // stride)
            assert found.shape[3] == 96 // stride
        sum((found**2).mean() for found in features.values()).backward()  # type: ignore[union-attr]
        reached = {
            key for key, item in network.named_parameters() if item.grad is not None
        }
        assert reached == {
            key
            for key, _ in network.named_parameters()
            if key.split(".")[0] in network.encoder
        }

    def test_one_image_does_not_see_the_others(self, name: str) -> None:
        """In use, what a window gives does not depend on the batch it is in."""
        network = built(name).eval()
        images = torch.randn(3, 3, 64, 64)
        with torch.no_grad():
            together, alone = network(images), network(images[1:2])
        torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


def test_methods_train_networks_that_there_are() -> None:
    trained = {method.trains for method in METHODS.values() if method.trains}
    assert trained <= set(NETWORKS)
    with pytest.raises(InputError, match=r"no network named 'med3d'.*'med2d'"):
        network_class("med3d")


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 12, 12), (1, 3, 5, 9), (3, 4, 1, 1)])
def test_depthwise_convolution_and_its_gradients(
    shape: tuple[int, ...], autocast: bool
) -> None:
    """Against the library's own convolution, in the layouts that occur."""
    torch.manual_seed(0)
    layer = DepthwiseConv(shape[1], 7)
    features = torch.randn(shape).to(memory_format=torch.channels_last)
    features.requires_grad_()
    copies = features.detach().clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    upstream = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = layer(features)
    assert found.dtype == (torch.bfloat16 if autocast else torch.float32)
    found.float().backward(upstream)
    wanted = functional.conv2d(copies, weight, padding=3, groups=shape[1])
    wanted.backward(upstream)
    for one, other in (
        (found, wanted),
        (features.grad, copies.grad),
        (layer.weight.grad, weight.grad),
    ):
        assert one is not None and other is not None
        close = 0.03 if autocast else 1e-5
        assert (one - other).abs().max() <= close * other.abs().max()


def test_the_gate_is_the_reduction_of_the_pooled_features() -> None:
    """Expansion by 6, depthwise 7 x 7, pooling, reduction, residual: by hand."""
    torch.manual_seed(0)
    block = MedBlock(4, 6).eval()
    features = torch.randn(2, 4, 9, 11)
    assert block.depthwise.weight.shape == (24, 1, 7, 7)
    with torch.no_grad():
        inside = block.norm(block.depthwise(block.expand(features))).relu()
        pooled = inside.mean(dim=(2, 3), keepdim=True)
        gate = block.reduce(pooled).sigmoid()
        wanted = block.shortcut(features) + gate * block.reduce(inside)
        torch.testing.assert_close(block(features), wanted)


@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (1, 2)])
def test_haar_wavelets_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    """By a loop over blocks; both bands give the image's blocks back."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, *shape)
    found = haar(images)
    rows, columns = (-(-length // 2) for length in shape)
    assert found.low.shape == found.high.shape == (2, 3, rows, columns)
    for row in range(rows):
        for column in range(columns):
            down = min(2 * row + 1, shape[0] - 1)
            across = min(2 * column + 1, shape[1] - 1)
            a = images[..., 2 * row, 2 * column]
            b = images[..., 2 * row, across]
            c = images[..., down, 2 * column]
            d = images[..., down, across]
            horizontal, vertical = (a + b - c - d) / 2, (a - b + c - d) / 2
            diagonal = (a - b - c + d) / 2
            place = (..., row, column)
            torch.testing.assert_close(found.low[place], (a + b + c + d) / 2)
            high = horizontal + vertical + diagonal
            torch.testing.assert_close(found.high[place], high)
            # the four bands give each pixel of the block back
            torch.testing.assert_close((found.low[place] + high) / 2, a)


def test_frequencies_are_mixed_as_published_and_flat_images_are_no_error() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 2, 8, 8)
    images[:, 1] = 3.0
    low, high = (band[:, :1] for band in haar(images))
    spread = [(band - band.min()) / (band.max() - band.min()) for band in (low, high)]
    coarse, fine = (
        functional.interpolate(band, size=(8, 8), mode="bilinear") for band in spread
    )
    found = frequencies(images)
    torch.testing.assert_close(found.low[:, :1], coarse + 0.1 * fine)
    torch.testing.assert_close(found.high[:, :1], fine + 0.9 * (coarse + 0.1 * fine))
    assert not found.low[:, 1].any() and not found.high[:, 1].any()
