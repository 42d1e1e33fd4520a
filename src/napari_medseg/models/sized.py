"""Clicks and boxes for a SAM that knows objects of some sizes only.

It looks at a piece of the image at several magnifications (`napari_medseg.models.
looks`). Colours draw masks too, for objects that it does not know (`napari_medseg.
models.parting`), and of all masks the best are kept: those of which SAM itself expects
most, and which have to do with the prompt (`napari_medseg.models.judging`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medseg._types import Job, Progress
from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast
from napari_medseg.models.candidates import (
    COARSE,
    GRID,
    Candidates,
    Sight,
    coarsened,
    frame_of,
    means,
    open_sides,
    shown_by,
)
from napari_medseg.models.found import Drawn, Found, by_sam, in_box, round_click
from napari_medseg.models.looks import (
    Extent,
    Look,
    looks_ahead,
    looks_at,
    looks_round,
)
from napari_medseg.models.parts import Part
from napari_medseg.models.refining import refined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.clicks import Asked
    from napari_medseg.models.registry import KnownSizes

AHEAD = 200
"""Windows that are embedded before anybody clicks there, at most."""


class SizedView:
    """An image that is looked at at several magnifications.

    Parameters
    ----------
    image : ndarray
        ``float32 (3, Y, X)`` in [0, 1], normalised.
    backbone : Backbone
        The SAM.
    sizes : KnownSizes
        The sizes of objects that it knows.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        image: FloatArray,
        backbone: Backbone,
        sizes: KnownSizes,
        device: torch.device,
    ) -> None:
        self.image = image
        self.backbone = backbone
        self.sizes = sizes
        self.device = device
        self.shape = (int(image.shape[1]), int(image.shape[2]))
        self._sights: dict[Look, Sight] = {}
        self._codes: dict[int, Tensor] = {}

    def find(self, asked: Asked, extent: Extent) -> list[Found]:
        """Find what a prompt may mean.

        Parameters
        ----------
        asked : Asked
            Clicks, a box, or both.
        extent : tuple of float
            Top, left, bottom and right of all of them.

        Returns
        -------
        list of Found
            Four masks of each look, and some that colours draw, the best first. Where
            more is known than one click, one that all of them make comes before them.
        """
        found = self.offered(asked, extent)
        candidates = self.candidates(found, asked)
        scores = candidates.rule
        if self.backbone.judge is not None:
            scores = self.backbone.judge.scores(candidates)
        return self.ordered(found, candidates, scores, asked)

    def ordered(
        self,
        found: Sequence[Found],
        candidates: Candidates,
        scores: Tensor,
        asked: Asked,
    ) -> list[Found]:
        """Put masks in order.

        Parameters
        ----------
        found : sequence of Found
            From `offered`.
        candidates : Candidates
            The same, in cells.
        scores : Tensor
            ``float32 (M,)``, what is expected of each.
        asked : Asked
            The prompt.

        Returns
        -------
        list of Found
            As `find` gives them, with these scores.
        """
        scored = [
            each._replace(score=score)
            for each, score in zip(found, scores.tolist(), strict=True)
        ]
        first = []
        if not asked.single:
            sight = self._sights[found[int(scores.argmax())].look]
            first = [refined(scored, candidates, scores, sight, asked)]
        return [*first, *sorted(scored, key=lambda each: -each.score)]

    def offered(self, asked: Asked, extent: Extent) -> list[Found]:
        """Return what `find` does, in the order of the looks."""
        looks = self._looks(asked, extent)
        # further clicks on an object look at the same windows
        before = self._sights
        self._sights = {
            look: before[look] if look in before else self._sight(look)
            for look in looks
        }
        drawn = self._drawn(looks, asked)
        return [
            each
            for look in looks
            for each in self._seen(look, drawn[look], asked, look == looks[-1])
        ]

    def candidates(self, found: Sequence[Found], asked: Asked) -> Candidates:
        """Bring what was found to one size, in the order of the looks."""
        looks = list(dict.fromkeys(each.look for each in found))
        masks = {
            look: torch.from_numpy(
                np.stack([each.mask for each in found if each.look == look])
            )
            for look in looks
        }
        shares = [coarsened(mask, GRID) for mask in masks.values()]
        parts = [
            means(self._sights[look].gist, coarsened(share, COARSE))
            for look, share in zip(looks, shares, strict=True)
        ]
        within, around = (torch.cat(items) for items in zip(*parts, strict=True))
        return Candidates(
            logits=torch.stack([each.said.coarse for each in found]),
            masks=torch.cat(shares) > 0.5,
            look=torch.tensor([looks.index(each.look) for each in found]),
            expected=torch.tensor([each.said.expected for each in found]),
            parted=torch.tensor([each.parted for each in found]),
            rule=torch.tensor([each.score for each in found]),
            within=within,
            around=around,
            pictures=torch.stack([self._sights[look].picture for look in looks]),
            frames=torch.tensor([frame_of(look) for look in looks]),
            shown=shown_by(looks),
            open=torch.tensor([open_sides(look, self.shape) for look in looks]),
            pixels=torch.tensor([look.framing.size / GRID for look in looks]),
            points=asked.points,
            labels=asked.labels,
        )

    def prepare(self) -> None:
        """Embed the image as a whole, as far as most clicks look at it so."""
        middle = (self.shape[0] // 2, self.shape[1] // 2)
        working = self.backbone.working_size
        extent = (*middle, *middle)
        for look in looks_round(middle, extent, self.shape, working, self.sizes):
            if look.box.shape == self.shape:
                self._sights[look] = self._sight(look)

    def ahead(self) -> Job[None]:
        """Embed the windows of clicks that may come, those in the middle first."""
        middle = (self.shape[0] / 2, self.shape[1] / 2)
        working = self.backbone.working_size
        looks = looks_ahead(middle, self.shape, working, self.sizes, AHEAD)
        for count, look in enumerate(looks):
            yield Progress(count, len(looks), "SAM is looking around")
            # kept with all that was embedded
            self.backbone.embed(look.framing.window(self.image, look.box), self.device)

    def _looks(self, asked: Asked, extent: Extent) -> tuple[Look, ...]:
        """Choose where to look."""
        if asked.boxed:
            return looks_at(extent, self.shape, self.sizes)
        x, y = asked.points[0].tolist()
        working = self.backbone.working_size
        return looks_round((y, x), extent, self.shape, working, self.sizes)

    def _sight(self, look: Look) -> Sight:
        """Embed a window."""
        window = look.framing.window(self.image, look.box)
        embedding = self.backbone.embed(window, self.device).float()[None]
        return Sight.of(look, window, embedding.to(self.device))

    def _seen(self, look: Look, drawn: Drawn, asked: Asked, last: bool) -> list[Found]:
        """Return the masks of one look: SAM's, and those of colours.

        In a box colours are parted once, at the largest magnification. Where a click
        was corrected SAM alone is asked, which knows better what was meant.
        """
        sight = self._sights[look]
        found = by_sam(look, drawn, asked, self.shape, sight.embedding.shape[-1])
        if asked.boxed:
            return [*found, *(in_box(look, sight, asked) if last else ())]
        if not asked.single:
            return found
        likely = max(found, key=lambda each: each.score)
        return [*found, *round_click(look, sight, asked, self.shape, likely)]

    def _drawn(self, looks: Sequence[Look], asked: Asked) -> dict[Look, Drawn]:
        """Have SAM draw the masks of all looks, those of one size together."""
        parts = {look: self._part(look, asked) for look in looks}
        drawn = {}
        for side in {part.side for part in parts.values()}:
            group = [look for look in looks if parts[look].side == side]
            decoded = self._decoded(group, [parts[look] for look in group], asked)
            for look, masks, iou in zip(
                group, decoded.masks.float().cpu(), decoded.iou.tolist(), strict=True
            ):
                drawn[look] = Drawn(parts[look], masks, iou)
        return drawn

    def _part(self, look: Look, asked: Asked) -> Part:
        """Choose the part of a window that is asked for a mask."""
        grid = self._sights[look].embedding.shape[-1]
        if asked.boxed:  # the window was chosen by the box
            return Part(0, 0, grid)
        clicks = look.to_window(asked.points[:-1]) + 0.5
        return Part.near(clicks * (grid / look.framing.size), grid)

    def _decoded(
        self, looks: Sequence[Look], parts: Sequence[Part], asked: Asked
    ) -> sams.Decoded:
        """Run prompt encoder and mask decoder on parts of windows, of one size.

        A window is the middle of a working image, as `nano` was trained on pieces of
        one: its position codes are those of that place.
        """
        sam = self.backbone.answering(self.device)
        canvas = self.backbone.working_size
        points = torch.stack(
            [
                look.to_window(asked.points) + (canvas - look.framing.size) // 2
                for look in looks
            ]
        )
        views = list(zip(looks, parts, strict=True))
        with torch.inference_mode(), autocast(self.device):
            tokens = sams.point_tokens(
                sam.prompt_encoder,
                points.to(self.device),
                asked.labels.expand(len(looks), -1).to(self.device),
                (canvas, canvas),
            )
            return sams.decode(
                sam.mask_decoder,
                torch.cat(
                    [part.of(self._sights[look].embedding) for look, part in views]
                ),
                torch.cat(
                    [part.of(self._code(look.framing.size)) for look, part in views]
                ),
                tokens,
                sams.no_mask_embedding(sam.prompt_encoder),
            )

    def _code(self, size: int) -> Tensor:
        """Return the position code of the middle of a working image."""
        if size not in self._codes:
            sam = self.backbone.answering(self.device)
            canvas, stride = (
                self.backbone.working_size,
                sams.stride_of(self.backbone.sam),
            )
            start = (canvas - size) // 2 // stride
            part = slice(start, start + size // stride)
            grid = (canvas // stride, canvas // stride)
            code = sams.position_code(sam.prompt_encoder, grid)
            self._codes[size] = code[..., part, part]
        return self._codes[size]
