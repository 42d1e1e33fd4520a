"""The card at the end of a training: how good it is, and what to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtpy.QtWidgets import QWidget


def card_text(report: Mapping[str, Any]) -> str:
    """Return the card of a training as rich text.

    Parameters
    ----------
    report : mapping
        `TrainingReport.to_dict`.

    Returns
    -------
    str
        Held-out score with its spread, beside that of what was there before or, where
        there is no such thing, of a threshold; and warnings.
    """
    found, before = report["held_out_scores"], report["untuned_scores"]
    otsu = report.get("otsu")
    lines = []
    if found:
        lines.append(
            f"<b>Dice {found['dice']:.2f} ± {found['dice_sd']:.2f}</b> on "
            f"{found['images']} images held out"
        )
    else:
        lines.append("<b>No held-out score</b>")
    if found and before:
        name = report.get("untuned_name", "SAM untuned")
        lines.append(
            f"{name[0].upper()}{name[1:]}: {before['dice']:.2f} on the same images"
        )
    for mode in ("old", "new"):
        if f"{mode}_alone" in report:
            dice = report[f"{mode}_alone"]
            lines.append(f"With the {mode} channel alone: {dice:.2f}")
    if found and otsu is not None:
        lines.append(f"Otsu's threshold: {otsu:.2f} on the same images")
    lines.append(
        f"{report['parameters']:,} numbers tuned on {report['images']} images in "
        f"{report['seconds']:.0f} s"
    )
    lines += [f"⚠ {warning}" for warning in report["warnings"]]
    return "<br>".join(lines)


class Card(Words):
    """Shows how a training went.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("card", parent)
        self.setVisible(False)

    def show_report(self, report: Mapping[str, Any]) -> None:
        """Show the card of a training."""
        self.show_rich(card_text(report))
        self.setVisible(True)
