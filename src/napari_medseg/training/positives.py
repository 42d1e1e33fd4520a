"""Windows of which a share is centred on the class: rare ones are else not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.training.views import FreshViews, Turns, View, changed_view, stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.training.supervised import LabelledBatch
    from napari_medseg.training.views import Example, ViewConfig


class PositiveViews(FreshViews):
    """Batches of fresh views, of which a share is centred on pixels of class 1.

    Parameters
    ----------
    examples : sequence of Example
        The training images; those that show the class take turns.
    config : ViewConfig
        How views are made.
    batch : int
        Views a step.
    domains : sequence of int, optional
        As for `FreshViews`.
    share : float
        Of the views, at least.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        config: ViewConfig,
        batch: int,
        domains: Sequence[int] | None = None,
        share: float = 0.5,
    ) -> None:
        super().__init__(examples, config, batch, domains)
        self.share = share
        found = [np.flatnonzero(example.target == 1) for example in examples]
        self.showing = [
            (example, pixels)
            for example, pixels in zip(examples, found, strict=True)
            if len(pixels)
        ]
        self.positives = Turns([0] * len(self.showing), (config.seed, 2))

    def __call__(self, step: int) -> LabelledBatch:
        """Return the batch of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return stack([self.view(place) for place in places])

    def view(self, place: int) -> View:
        """Return one view.

        Parameters
        ----------
        place : int
            Its place among all views of the training.

        Returns
        -------
        View
            Centred on the class wherever the share of those before asks for it.
        """
        count = int(np.ceil((place + 1) * self.share))
        if not self.showing or count == int(np.ceil(place * self.share)):
            example = self.examples[self.turns(place)]
            return changed_view(example, place, self.config)
        example, pixels = self.showing[self.positives(count - 1)]
        rng = np.random.default_rng((self.config.seed, 3, place))
        row, column = divmod(int(rng.choice(pixels)), example.target.shape[1])
        return changed_view(example, place, self.config, (row, column))
