"""Learning for images of microscopes that were not among the annotated ones.

After Mamba-Sea (IEEE TMI 2025, arXiv 2504.17515): batches mix the domains evenly;
features are restyled by what the batch shows of other styles; networks also see each
window with another appearance, and are to say the same of both. The paper trains two
networks, of which the second sees the varied images; here one network sees both, at
half the memory. Not of the paper are the curves that shades follow, without which
objects that were dark wherever they were annotated are not found where they are
bright. Which step is best is decided on held-out images of the annotated domains alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg.models.sam import standardise, unstandardise
from napari_medseg.models.style import (
    CURVES,
    AppearanceVariation,
    FeatureStyle,
    Shades,
)
from napari_medseg.training.supervised import LossConfig, Supervised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from napari_medseg.training.study import AnyStudy
    from napari_medseg.training.supervised import LabelledBatch


@dataclass(frozen=True)
class DomainConfig:
    """What is done so that other domains are met; each part can be left out."""

    style: float = setting(
        0.75, "Share of the features that gets another style; 0 for none.", ge=0, le=1
    )
    below: float = setting(
        0.4, "Brightness below which the appearance varies; 0 for none.", ge=0, le=1
    )
    curves: float = setting(
        CURVES, "How often shades follow a random curve; 0 for never.", ge=0, le=1
    )
    consistency: float = setting(
        0.1, "Weight of saying the same of both appearances.", ge=0.0
    )

    def __post_init__(self) -> None:
        check(self)


STYLES = MappingProxyType(
    {
        "curves": DomainConfig(style=0.0, below=0.0),
        "published": DomainConfig(curves=0.0),
        "all": DomainConfig(),
    }
)
"""What is done, by the setting ``domain_styles``."""


class Generalising:
    """Learn class shares so that they hold in other domains, too.

    Parameters
    ----------
    config : DomainConfig
        Which parts.
    loss : LossConfig
        The supervised loss, of both appearances alike.
    channels : int
        Channels of the windows; 0 where the model takes embeddings, which are restyled
        themselves and have no appearance.
    where : sequence of str
        Modules of the model whose outputs ``(B, C, H, W)`` are restyled.
    seed : int
        Of the first weights of what varies the appearance.
    """

    def __init__(
        self,
        config: DomainConfig,
        loss: LossConfig,
        channels: int,
        where: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.config = config
        self.plain = Supervised(loss)
        self.where = tuple(where)
        self.takes_embeddings = channels == 0
        self.style = FeatureStyle(config.style)
        self.shades = Shades(config.curves) if channels and config.curves else None
        self.appearance: AppearanceVariation | None = None
        if channels and config.below:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.appearance = AppearanceVariation(channels, config.below)

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return what is trained: of the model, and what varies the appearance."""
        groups = self.plain.parameters(model)
        if self.appearance is not None:
            device = next(model.parameters()).device
            groups.append({"params": list(self.appearance.to(device).parameters())})
        return groups

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts."""
        if self.takes_embeddings:
            return self.plain.step(
                model, batch._replace(inputs=self.style(batch.inputs))
            )
        recorded = _Recorded(model)
        with restyling(model, self.where, self.style):
            loss, figures = self.plain.step(recorded, batch)
            variations = [each for each in (self.shades, self.appearance) if each]
            if not variations or len(batch.inputs) < 2:
                return loss, figures
            varied = unstandardise(batch.inputs)
            for variation in variations:
                varied = variation(varied)
            varied = standardise(varied)
            other, _ = self.plain.step(recorded, batch._replace(inputs=varied))
        first, second = (logits.float() for logits in recorded.logits)
        apart = functional.mse_loss(first, second)
        total = 0.5 * (loss + other) + self.config.consistency * apart
        return total, figures | {"apart": apart}

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Tensor]:
        """Return what varies the appearance, for a checkpoint."""
        return {} if self.appearance is None else dict(self.appearance.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what varies the appearance again."""
        if self.appearance is not None:
            self.appearance.load_state_dict(state)


class _Recorded(nn.Module):
    """Remembers what a model says of each batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logits: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        """Ask the model."""
        logits: Tensor = self.model(inputs)
        self.logits.append(logits)
        return logits


@contextmanager
def restyling(
    model: nn.Module, where: Sequence[str], style: nn.Module
) -> Iterator[None]:
    """Restyle the outputs of some modules of a model for a while.

    Parameters
    ----------
    model : Module
        Any network.
    where : sequence of str
        Names of modules whose outputs are ``(B, C, H, W)``.
    style : Module
        Such as `FeatureStyle`.
    """
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, given, found: style(found)
        )
        for name in where
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def other_domains(
    study: AnyStudy, training: Sequence[int], parts: DomainConfig | None = None
) -> Generalising:
    """Return the objective of a study that is to hold in other domains.

    Parameters
    ----------
    study : Study
        Any.
    training : sequence of int
        The images that are learned from.
    parts : DomainConfig, optional
        What is done; by default what the settings say.

    Returns
    -------
    Generalising
        Where embeddings are learned from, their views follow curves already.
    """
    learner, config = study.learner, study.config
    embeds = learner.keeps_inputs
    network = getattr(learner, "network", None)
    return Generalising(
        parts or STYLES[config.domain_styles],
        LossConfig(config.cross_entropy, config.dice),
        0 if embeds else len(study.normalisation.channels),
        () if network is None else network.restyled,
        config.seed,
    )
