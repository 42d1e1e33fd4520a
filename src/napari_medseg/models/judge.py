"""A small network that estimates the IoU of each mask that one prompt is offered.

SAM estimates the IoU of each mask by itself, from one token. Here all masks of a
prompt are looked at together: each is described by its features
(`napari_medseg.models.mask_features`) and hears from those that lie where it lies,
the more, the more they overlap. The network corrects what the rules of
`napari_medseg.models.sized` think of a mask; before any training it agrees with them.
Several networks that began differently are asked, as their mean errs less than each
does (Lakshminarayanan et al., NeurIPS 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from napari_medseg.models import bundled
from napari_medseg.models.mask_features import NAMES, agreement, describe

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medseg.models.candidates import Candidates

VOICES = 6
"""Networks that are asked."""

WIDTH = 64
"""Channels of each."""

RULE = NAMES.index("rule")

EXTREME = 4.0
"""Features farther from their mean, in standard deviations, count as so far."""

SUREST = 0.98
"""The rule is taken to be no surer than this, nor less sure than the rest to 1."""

ABSENT = -30.0
"""Logit of a mask that is not there."""


class Voice(nn.Module):
    """One network that estimates the IoU of masks.

    Parameters
    ----------
    dropout : float
        In training, the share of channels left out.

    Attributes
    ----------
    mean, spread : Tensor
        ``float32 (F,)``, of the features in training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        count = len(NAMES)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.trust = nn.Parameter(torch.tensor(1.0))
        self.alone = nn.Sequential(
            nn.Linear(count, WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, WIDTH),
        )
        last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.together = nn.Sequential(
            nn.GELU(),
            nn.Linear(3 * WIDTH, WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
            last,
        )

    def forward(self, features: Tensor, alike: Tensor, there: Tensor) -> Tensor:
        """Return the logits of the IoU.

        Parameters
        ----------
        features : Tensor
            ``float32 (B, M, F)``, of B prompts with up to M masks each.
        alike : Tensor
            ``float32 (B, M, M)``, IoU of each two masks.
        there : Tensor
            ``float32 (B, M)``, 0 for what is no mask and only fills up the table.

        Returns
        -------
        Tensor
            ``float32 (B, M)``.
        """
        usual = (features - self.mean) / self.spread
        own = self.alone(usual.clamp(-EXTREME, EXTREME))
        weight = alike * there[:, None]
        near = weight @ own / weight.sum(dim=2, keepdim=True).clamp(min=1e-3)
        present = there[..., None]
        all_ = (own * present).sum(dim=1, keepdim=True) / present.sum(1, keepdim=True)
        heard = torch.cat([own, near, all_.expand_as(own)], dim=2)
        correction: Tensor = self.together(heard)[..., 0]
        rule = torch.logit(features[..., RULE].clamp(1 - SUREST, SUREST))
        return (correction + self.trust * rule).masked_fill(there == 0, ABSENT)


def were_corrected(features: Tensor) -> Tensor:
    """Tell which prompts are several clicks without a box, ``bool (B,)``.

    Parameters
    ----------
    features : Tensor
        ``float32 (B, M, F)``, as `Voice` takes them.
    """
    on, beside, boxed = (
        features[..., NAMES.index(name)].amax(dim=1)
        for name in ("clicks on", "clicks beside", "boxed")
    )
    return (on + beside > 1) & (boxed == 0)


class Judge(nn.Module):
    """Estimates the IoU of masks, by the mean of several networks.

    Attributes
    ----------
    voices, later : ModuleList
        The networks that are asked about boxes and single clicks, and those about
        clicks that were corrected, for which other masks are offered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.voices = nn.ModuleList(Voice() for _ in range(VOICES))
        self.later = nn.ModuleList(Voice() for _ in range(VOICES))

    def forward(self, features: Tensor, alike: Tensor, there: Tensor) -> Tensor:
        """Return the logits of the IoU, as `Voice` does."""
        later = were_corrected(features)
        logits = features.new_empty(features.shape[:2])
        for rows, voices in ((~later, self.voices), (later, self.later)):
            if rows.any():
                asked = features[rows], alike[rows], there[rows]
                said = [voice(*asked) for voice in voices]
                logits[rows] = torch.stack(said).mean(dim=0)
        return logits

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the IoU that is expected of each mask of a prompt, ``(M,)``."""
        with torch.inference_mode():
            alike = agreement(candidates)
            features = describe(candidates, alike)
            there = torch.ones(1, len(features))
            scores: Tensor = self(features[None], alike[None], there)[0].sigmoid()
            return scores


def load_judge(name: str) -> Judge:
    """Load a judge that comes with the package.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    Judge
        On the processor, where masks are judged.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    path = bundled.find(name)
    judge = Judge()
    try:
        judge.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise bundled.damaged(name) from error
    return judge.eval().requires_grad_(False)
