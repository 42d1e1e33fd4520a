"""PTSAM: prompt-tuned SAM (Piater et al., CVPR Workshops 2025, arXiv 2504.16739).

All of SAM is frozen. Its prompt encoder is left out but for the embedding of "no mask
given" and the position code. What is trained:

* *decoder prompts*: 8 × 256 numbers a class, appended to the mask decoder's tokens
  where a user's points would stand (2,048 numbers for one class);
* *encoder prompts*, if wanted: 8 × width numbers a transformer block of the image
  encoder, as extra keys and values of its attention (73,728 numbers for ViT-B).

Several classes are one prompt set each; the background's logit is 0, or has a prompt
set of its own where objects are told apart by their parts (`PARTS`).

Beyond the paper, decoder prompts may be compared with the embedding as well
(`napari_medseg.models.comparison`): the same numbers, used twice.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from napari_medseg._types import ModelFileError
from napari_medseg.models import sam as sams
from napari_medseg.models import vit
from napari_medseg.models.backbone import load_base
from napari_medseg.models.comparison import Comparison
from napari_medseg.models.fine_embedding import FINE, as_one_map, fine_embedding
from napari_medseg.models.methods import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from segment_anything.modeling import Sam
    from segment_anything.modeling.image_encoder import Block

    from napari_medseg.io.model_file import ModelCard, ModelFile

PROMPTS = 8
"""Prompts a class, and prompts a block of the image encoder, in the paper."""

STATISTICS = "embedding_statistics"
"""Name in a model file of mean and standard deviation of the embedding's channels."""

SAM_CHANNELS = 3
"""Channels that every SAM sees."""

PROMPT_STD = 0.3
"""Standard deviation of fresh decoder prompts, near that of SAM's own tokens."""


class PromptedDecoder(nn.Module):
    """SAM's mask decoder, steered by trained prompts instead of a user's.

    Parameters
    ----------
    sam : Sam
        Its decoder is frozen here and used as it is.
    classes : int
        Foreground classes.
    count : int
        Prompts a class; 0 gives SAM's own output without any prompt.
    mask : int
        Which of SAM's four masks is read; 0 is the single-mask output.
    generator : torch.Generator, optional
        Source of the prompts' first values.
    background : bool
        Whether the background has a prompt set of its own, the first.
    comparison : Comparison, optional
        Also compares the prompts with the embedding; without it this is PTSAM as it
        was published.
    """

    def __init__(
        self,
        sam: Sam,
        classes: int = 1,
        count: int = PROMPTS,
        mask: int = 0,
        generator: torch.Generator | None = None,
        *,
        background: bool = False,
        comparison: Comparison | None = None,
    ) -> None:
        super().__init__()
        self.mask_decoder = sam.mask_decoder.requires_grad_(False)
        self.prompt_encoder = sam.prompt_encoder.requires_grad_(False)
        self.mask = mask
        self.background = background
        self.comparison = comparison
        width = sam.mask_decoder.transformer_dim
        start = torch.randn(classes + background, count, width, generator=generator)
        self.prompts = nn.Parameter(PROMPT_STD * start)

    @property
    def fineness(self) -> int:
        """Looks at an image along each side that it wants embedded."""
        return 1 if self.comparison is None else self.comparison.fineness

    def forward(self, embeddings: Tensor) -> Tensor:
        """Decode embeddings into class logits.

        Parameters
        ----------
        embeddings : Tensor
            ``(B, 256, h, w)``; ``(B, L * 256, h, w)`` of several looks, of which the
            decoder sees the first.

        Returns
        -------
        Tensor
            ``(B, 1 + classes, 4h, 4w)``; the background's logit is 0 where it has no
            prompts.
        """
        batch = embeddings.shape[0]
        sets = self.prompts.shape[0]
        grid = (int(embeddings.shape[2]), int(embeddings.shape[3]))
        decoded = sams.decode(
            self.mask_decoder,
            embeddings[:, : self.prompts.shape[2]].repeat_interleave(sets, dim=0),
            sams.position_code(self.prompt_encoder, grid),
            self.prompts.repeat(batch, 1, 1),
            sams.no_mask_embedding(self.prompt_encoder),
            slice(self.mask, self.mask + 1),
        )
        logits: Tensor = decoded.masks[:, 0].unflatten(0, (batch, sets))
        if self.comparison is not None:
            evidence = self.comparison(embeddings, self.prompts)
            logits = logits + as_one_map(evidence, (4 * grid[0], 4 * grid[1]))
        if self.background:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class PromptedBlock(nn.Module):
    """One of SAM's transformer blocks with prompts of its own.

    In deep visual prompt tuning (Jia et al., ECCV 2022) the outputs of a layer's
    prompts are thrown away and fresh prompts enter the next layer. The image's
    tokens therefore see prompts only as keys and values, and nothing else of them
    need be computed. Prompts carry no position: their relative bias is 0.

    Parameters
    ----------
    block : Block
        Frozen here and used as it is.
    count : int
        Prompts.
    patch : int
        Side of a patch in pixels, for the scale of the prompts' first values.
    generator : torch.Generator, optional
        Source of the prompts' first values.
    """

    def __init__(
        self,
        block: Block,
        count: int,
        patch: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        width = block.norm1.normalized_shape[0]
        # Jia et al.: uniform within sqrt(6 / (3 P² + D)), Xavier's bound of a patch
        bound = math.sqrt(6.0 / (3 * patch**2 + width))
        start = torch.rand(count, width, generator=generator)
        self.prompts = nn.Parameter(bound * (2 * start - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(B, H, W, D)`` to the same shape."""
        return vit.transform(self.block, tokens, self.prompts)


class PromptedEncoder(nn.Module):
    """SAM's image encoder with prompts in every transformer block.

    The SAM given is left as it is, but for being frozen; the weights are shared.

    Parameters
    ----------
    sam : Sam
        Its image encoder is frozen here.
    count : int
        Prompts a block.
    generator : torch.Generator, optional
        Source of the prompts' first values.
    """

    def __init__(
        self,
        sam: Sam,
        count: int = PROMPTS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        frozen = sam.image_encoder.requires_grad_(False)
        # a shallow copy: the same weights in the same layers, but blocks of its own
        self.encoder = copy.copy(frozen)
        self.encoder._modules = dict(frozen._modules)
        self.encoder.blocks = nn.ModuleList(
            PromptedBlock(block, count, generator=generator) for block in frozen.blocks
        )

    @property
    def prompts(self) -> list[nn.Parameter]:
        """The prompts of each block, ``(count, D)``."""
        return [block.prompts for block in self.encoder.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """Embed standardised images ``(B, 3, S, S)`` as ``(B, 256, h, w)``."""
        return sams.encode(self.encoder, images)


class PromptedSam(nn.Module):
    """Image encoder and steered decoder in one: images in, class logits out.

    Parameters
    ----------
    encoder : Module
        A `PromptedEncoder`, or SAM's own image encoder.
    decoder : PromptedDecoder
        The steered decoder.
    """

    def __init__(self, encoder: nn.Module, decoder: PromptedDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def train(self, mode: bool = True) -> Self:
        """Switch to training, but for the encoder: its statistics are frozen too."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map standardised images ``(B, 3, S, S)`` to ``(B, K, h, w)`` logits."""
        logits: Tensor = self.decoder(self.embed(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """Embed standardised images ``(B, 3, S, S)`` as the decoder wants them."""
        prompted = isinstance(self.encoder, PromptedEncoder)
        encode = self.encoder if prompted else partial(sams.encode, self.encoder)
        return fine_embedding(encode, images, self.decoder.fineness)

    @property
    def encoder_prompts(self) -> list[nn.Parameter]:
        """The prompts of each block of the encoder; empty where it has none."""
        if isinstance(self.encoder, PromptedEncoder):
            return self.encoder.prompts
        return []


def from_model_file(model_file: ModelFile, base: str | None = None) -> PromptedSam:
    """Build the network of a ``ptsam`` model file.

    Parameters
    ----------
    model_file : ModelFile
        Card and prompts.
    base : str, optional
        Checkpoint of the SAM underneath, where it is not found by itself.

    Returns
    -------
    PromptedSam
        Frozen, in evaluation mode.

    Raises
    ------
    ModelFileError
        The prompts have not the shapes that the card asks for.
    WeightsError
        The SAM underneath is not there, or is another one.
    """
    sets = len(model_file.card.classes) - 1
    return _prompted(model_file, base, sets, background=False)


def parts_from_model_file(
    model_file: ModelFile, base: str | None = None
) -> PromptedSam:
    """Build the network of a ``ptsam-objects`` model file, whose output is `PARTS`.

    Parameters
    ----------
    model_file, base
        As for `from_model_file`.

    Returns
    -------
    PromptedSam
        Frozen, in evaluation mode.

    Raises
    ------
    ModelFileError, WeightsError
        As for `from_model_file`.
    """
    return _prompted(model_file, base, PARTS, background=True)


def _prompted(
    model_file: ModelFile, base: str | None, sets: int, *, background: bool
) -> PromptedSam:
    """Build a SAM with the prompts of a model file, ``sets`` of them."""
    card, tensors = model_file.card, model_file.tensors
    if len(card.normalisation.get("channels", ())) not in (0, SAM_CHANNELS):
        raise _misshapen("channels")
    sam = load_base(card.base, base).sam
    prompts = tensors.get("decoder_prompts")
    width = sam.mask_decoder.transformer_dim
    if prompts is None or prompts.ndim != 3 or prompts.shape[::2] != (sets, width):
        raise _misshapen("decoder_prompts")
    output = card.config.get("output", 0)
    masks = sam.mask_decoder.num_mask_tokens
    if not isinstance(output, int) or not 0 <= output < masks:
        raise _misshapen("output")
    decoder = PromptedDecoder(
        sam,
        sets - background,
        prompts.shape[1],
        output,
        background=background,
        comparison=_comparison(tensors.get(STATISTICS), width, fineness_of(card)),
    )
    _fill(decoder.prompts, prompts)
    extra = tensors.get("encoder_prompts")
    if extra is None:
        return PromptedSam(sam.image_encoder, decoder).eval().requires_grad_(False)
    encoder = PromptedEncoder(sam, extra.shape[1] if extra.ndim == 3 else 0)
    if extra.shape != (len(encoder.prompts), *encoder.prompts[0].shape):
        raise _misshapen("encoder_prompts")
    for parameter, values in zip(encoder.prompts, extra, strict=True):
        _fill(parameter, values)
    return PromptedSam(encoder, decoder).eval().requires_grad_(False)


def fineness_of(card: ModelCard) -> int:
    """Return how finely the prompts of a model file are compared."""
    return FINE if card.config.get("comparison") == "fine" else 1


def _comparison(
    statistics: NDArray[Any] | None, width: int, fineness: int
) -> Comparison | None:
    """Return what compares prompts and embedding, where a model file has it."""
    if statistics is None:
        return None
    usable = statistics.shape == (2, width) and np.isfinite(statistics).all()
    if not usable or not (statistics[1] > 0).all():
        raise _misshapen(STATISTICS)
    return Comparison.of(statistics, fineness)


def _fill(parameter: nn.Parameter, values: NDArray[Any]) -> None:
    """Copy numbers into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values, np.float32)))


def _misshapen(name: str) -> ModelFileError:
    return ModelFileError(
        f"The model file's {name} do not fit its card; the file is damaged or was "
        "made by another program. Ask for it again."
    )


def trained_count(module: nn.Module) -> int:
    """Return how many numbers of a module are trained."""
    return sum(item.numel() for item in module.parameters() if item.requires_grad)
