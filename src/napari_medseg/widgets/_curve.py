"""The plot of a training: loss, and Dice on held-out images."""

from __future__ import annotations

from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_medseg._types import Progress

HEIGHT = 150
"""Pixels; a docked panel has little room."""

UNDER = 6
"""Pixels below the name of the axis, of which letters would be cut off."""

LOSS, DICE = "#e69f00", "#56b4e9"
"""Colours that everybody tells apart."""

SMOOTHING = 0.85
"""Share of the past in the loss that is drawn; one step says little."""


class Curve(QWidget):
    """Draws a training as it goes; not to be seen before the first one.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(HEIGHT)
        self.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._plot: Any = None
        self._lines: list[Any] = []
        self._legend: Any = None
        self._colours: tuple[str, str] | None = None
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

    def prepare(self) -> None:
        """Import what draws, on a thread: the form is there meanwhile."""
        if self._plot is None:
            Thread(target=import_module, args=("pyqtgraph",)).start()

    def clear_curve(self) -> None:
        """Forget the training before, and be seen."""
        self._losses, self._dices, self._before, self._last = [], [], 0, 0
        self._build()
        self.setVisible(True)
        self.draw()

    def add(self, progress: Progress) -> None:
        """Take one more step, which `draw` shows.

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

    def _build(self) -> None:
        if self._plot is not None:
            return
        import pyqtgraph  # long to import: see `prepare`

        plot = self._plot = pyqtgraph.PlotWidget(self)
        plot.setMouseEnabled(x=False, y=False)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        plot.getPlotItem().setLabel("bottom", "step")
        plot.getPlotItem().layout.setContentsMargins(1, 1, 1, UNDER)
        self._legend = plot.addLegend(offset=(-5, 5))
        dots = {"symbol": "o", "symbolSize": 5, "symbolBrush": DICE}
        self._lines = [
            plot.plot(name="loss", pen=pyqtgraph.mkPen(LOSS, width=2)),
            plot.plot(
                name="Dice, held out", pen=pyqtgraph.mkPen(DICE, width=2), **dots
            ),
        ]
        layout = self.layout()
        if layout is not None:
            layout.addWidget(plot)
        self._paint()

    def draw(self) -> None:
        """Show the steps so far."""
        for line, points in zip(self._lines, (self._losses, self._dices), strict=True):
            line.setData(*zip(*points, strict=True)) if points else line.setData([], [])

    def take_colours(self, paper: str, ink: str) -> None:
        """Draw in the colours of a theme.

        Parameters
        ----------
        paper, ink : str
            Colours of background and text.
        """
        self._colours = paper, ink
        self._paint()

    def _paint(self) -> None:
        if self._plot is None or self._colours is None:
            return
        paper, ink = self._colours
        self._plot.setBackground(paper)
        for side in ("bottom", "left"):
            axis = self._plot.getPlotItem().getAxis(side)
            axis.setPen(ink)
            axis.setTextPen(ink)
        self._legend.setLabelTextColor(ink)
        for _, label in self._legend.items:
            label.setText(label.text, color=ink)  # what is there keeps its colour
