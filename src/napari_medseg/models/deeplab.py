"""DeepLabv3+ on an EfficientNet: context from several scales, edges from fine features.

After Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation" (ECCV 2018), on the encoder of Tan and Le (ICML 2019); both are those of
segmentation-models-pytorch. Boulaabi et al. (AICCSA 2024, arXiv 2504.17306) use one
such network for each kind of lesion; which EfficientNet cannot be read, and the
smallest one is usual here. Three things differ from the library's own model:

- images of any size are taken: they are continued at the right and the bottom by their
  last column and row, as far as the encoder's stride asks for;
- the statistics of normalisation follow the last tens of steps, not hundreds, as a
  training here has a few hundred;
- the features pooled over the whole window are normalised within each window, where
  the library needs several of them in a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from napari_medseg._types import InputError
from napari_medseg.models.networks import Network

if TYPE_CHECKING:
    from typing import Self

STRIDE = 16
"""Pixels of the input per pixel of the deepest features."""

FINE = 4
"""Pixels of the input per pixel of the decoder's features."""

DECODER = 256
"""Channels of the decoder, as published."""

MOMENTUM = 0.1
"""Share of a step's statistics in those that are kept."""

GROUPS = 32
"""Groups in which the pooled features are normalised."""

NEEDED = (
    "DeepLabv3+ needs the package segmentation-models-pytorch, which is not installed: "
    "pip install 'napari-medseg[lesions]'. Or choose another network, such as med2d."
)
"""What a user is told where the library is missing."""


class DeepLab(Network):
    """DeepLabv3+; its output has the resolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    classes : int
        Outputs, background included.
    backbone : str
        Which EfficientNet, ``efficientnet-b0`` to ``efficientnet-b5``.

    Raises
    ------
    InputError
        The library is not installed.
    """

    settings: ClassVar[tuple[str, ...]] = ("backbone",)
    encoder: ClassVar[tuple[str, ...]] = ("body",)

    def __init__(
        self, in_channels: int, classes: int, backbone: str = "efficientnet-b0"
    ) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch import DeepLabV3Plus
        except ImportError as error:
            raise InputError(NEEDED) from error
        whole = DeepLabV3Plus(
            backbone,
            # no weights here: a model file brings its own, without any network
            encoder_weights=None,
            encoder_output_stride=STRIDE,
            decoder_channels=DECODER,
            in_channels=in_channels,
            classes=classes,
            upsampling=1,
        )
        self.body = whole.encoder
        self.decoder = whole.decoder
        self.head = whole.segmentation_head
        # parts of the classifier, which segmentation does not use
        del self.body._conv_head, self.body._bn1
        pooling = self.decoder.aspp[0].convs[-1]
        pooling[2] = nn.GroupNorm(GROUPS, DECODER)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = MOMENTUM

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights; see `Network.build`."""
        return cls(in_channels, classes, **settings)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return what leaves the stages of the encoder; see `Network.features`."""
        found = self.body(images)
        return {2: found[1], 4: found[2], 8: found[3], STRIDE: found[5]}

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, in_channels, H, W)``, standardised.

        Returns
        -------
        Tensor
            ``(B, classes, H, W)``, logits.
        """
        height, width = images.shape[2:]
        margin = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = functional.pad(images, margin, mode="replicate")
        coarse = self.head(self.decoder(self.body(padded)))
        logits = functional.interpolate(
            coarse, scale_factor=FINE, mode="bilinear", align_corners=False
        )
        return logits[..., :height, :width]
