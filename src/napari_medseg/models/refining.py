"""One mask out of all that a prompt was offered, held to its clicks.

A SAM draws each of its masks by itself, and may draw the same one again however often
it is corrected. Here the masks of all looks are averaged, the likelier ones more; that
is where a random walk over the image begins (`napari_medseg.models.walking`), which
follows its edges and obeys all clicks. What it changes is added to the likeliest mask,
whose outline it keeps everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_medseg.models.candidates import resampled
from napari_medseg.models.found import cells_of, in_window, redrawn
from napari_medseg.models.walking import walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_medseg.models.candidates import Candidates, Sight
    from napari_medseg.models.clicks import Asked
    from napari_medseg.models.found import Found

SHARPNESS, IN_BOX = 4.0, 8.0
"""How much more a likelier mask counts: by a factor of e for each quarter of IoU. In a
box for each eighth, as there the likeliest one is right more often."""

TRUST, LESS = 2.0, 3.0
"""What was drawn is trusted less, the more clicks there are: its weight beside that of
two like neighbours is the first, divided by the number of clicks to this power."""

SUREST = 0.01
"""Nothing is taken to be surer than by this."""

STRONGEST = 4.0
"""Nor does SAM speak louder than in logits of this."""


def refined(
    found: Sequence[Found],
    candidates: Candidates,
    scores: Tensor,
    sight: Sight,
    asked: Asked,
) -> Found:
    """Return a mask that obeys all clicks.

    Parameters
    ----------
    found : sequence of Found
        All masks of a prompt.
    candidates : Candidates
        The same, in cells.
    scores : Tensor
        ``float32 (M,)``, what is expected of each.
    sight : Sight
        The look of the likeliest one.
    asked : Asked
        The prompt.

    Returns
    -------
    Found
        Of the likeliest mask's look.
    """
    best = int(scores.argmax())
    likeliest = found[best]
    rows, columns = sight.soft.shape[1:]
    weight = ((IN_BOX if asked.boxed else SHARPNESS) * scores).softmax(dim=0)
    prior = mean_mask(candidates, weight, int(candidates.look[best]))
    cells = cells_of(likeliest.look, asked)
    holds = [
        (row, column, label == 1)
        for (column, row), label in zip(cells, asked.labels.tolist(), strict=True)
        if label in (0, 1)
    ]
    trust = TRUST / max(2, len(holds)) ** LESS
    ends = walk(sight.soft, prior[:rows, :columns].numpy(), trust, holds)
    said = likeliest.said.coarse[:rows, :columns].clamp(-STRONGEST, STRONGEST)
    sure = ends.clip(SUREST, 1 - SUREST)
    change = in_window(np.log(sure / (1 - sure)) - said.numpy())
    size = likeliest.look.framing.size
    fine = functional.interpolate(change[None, None], (size, size), mode="bilinear")
    logits = likeliest.logits.clamp(-STRONGEST, STRONGEST) + fine[0, 0]
    return redrawn(likeliest, logits, asked)


def mean_mask(candidates: Candidates, weight: Tensor, look: int) -> Tensor:
    """Return how far masks agree that cells belong to the object.

    Parameters
    ----------
    candidates : Candidates
        M masks.
    weight : Tensor
        ``float32 (M,)``, what each counts, 1 in all.
    look : int
        In whose cells.

    Returns
    -------
    Tensor
        ``float32 (GRID, GRID)`` in [0, 1].
    """
    total = torch.zeros(candidates.masks.shape[1:])
    for source in range(len(candidates.frames)):
        own = candidates.look == source
        shares = torch.einsum("m,mhw->hw", weight[own], candidates.masks[own].float())
        total += resampled(shares[None], candidates, source, look)[0]
    return total.clamp(0, 1)
