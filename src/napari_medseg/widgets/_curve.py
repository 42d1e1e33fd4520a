"""The plot of a training: loss, and Dice on held-out images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyqtgraph

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_medseg._types import Progress

HEIGHT = 150
"""Pixels; a docked panel has little room."""

LOSS, DICE = "#e69f00", "#56b4e9"
"""Colours that everybody tells apart."""

SMOOTHING = 0.85
"""Share of the past in the loss that is drawn; one step says little."""


class Curve(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Draws a training as it goes.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(HEIGHT)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setMenuEnabled(False)
        self.getPlotItem().setLabel("bottom", "step")
        legend = self.addLegend(offset=(-5, 5))
        self._loss = self.plot(name="loss", pen=pyqtgraph.mkPen(LOSS, width=2))
        self._dice = self.plot(
            name="Dice, held out",
            pen=pyqtgraph.mkPen(DICE, width=2),
            symbol="o",
            symbolSize=5,
            symbolBrush=DICE,
        )
        self._legend = legend
        self._losses: list[tuple[int, float]] = []
        self._dices: list[tuple[int, float]] = []
        self._before = 0
        self._last = 0

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and smoothed loss."""
        return list(self._losses)

    @property
    def dices(self) -> list[tuple[int, float]]:
        """Step and held-out Dice."""
        return list(self._dices)

    def clear_curve(self) -> None:
        """Forget the training before."""
        self._losses, self._dices, self._before, self._last = [], [], 0, 0
        self._draw()

    def add(self, progress: Progress) -> None:
        """Draw one more step.

        Parameters
        ----------
        progress : Progress
            With ``loss``, and ``held_out_dice`` where it was measured.
        """
        metrics = progress.metrics
        if "loss" not in metrics:
            return
        if progress.step <= self._last:
            # the next part of a training with folds begins at step 1 again
            self._before += self._last
        self._last = progress.step
        step = self._before + progress.step
        past = self._losses[-1][1] if self._losses else metrics["loss"]
        loss = SMOOTHING * past + (1 - SMOOTHING) * metrics["loss"]
        self._losses.append((step, loss))
        if "held_out_dice" in metrics:
            self._dices.append((step, metrics["held_out_dice"]))
        self._draw()

    def _draw(self) -> None:
        for line, points in ((self._loss, self._losses), (self._dice, self._dices)):
            line.setData(*zip(*points, strict=True)) if points else line.setData([], [])

    def take_colours(self, paper: str, ink: str) -> None:
        """Draw in the colours of a theme.

        Parameters
        ----------
        paper, ink : str
            Colours of background and text.
        """
        self.setBackground(paper)
        for side in ("bottom", "left"):
            axis = self.getPlotItem().getAxis(side)
            axis.setPen(ink)
            axis.setTextPen(ink)
        self._legend.setLabelTextColor(ink)
