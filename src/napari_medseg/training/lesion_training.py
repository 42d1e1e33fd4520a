"""The settings of one binary model a class; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import check, setting
from napari_medseg._types import InputError
from napari_medseg.io.preparation import Preparation
from napari_medseg.training.network_training import (
    DeeplabTraining,
    Med2dTraining,
    NetworkTraining,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = {"deeplab": DeeplabTraining, "med2d": Med2dTraining}
"""Settings of the networks that a class can have."""

RARE = 0.005
"""Classes that cover less of the annotated pixels than this get focal Tversky."""

OF_ONE_CLASS = (
    "loss",
    "positive",
    "window",
    "steps",
    "learning_rate",
    "batch",
    "class_network",
)
"""Settings that each class may have for itself."""


@dataclass(frozen=True)
class LesionTraining(DeeplabTraining):
    """One binary network for each class, merged."""

    class_network: str = setting(
        "deeplab", "The network of each class.", choices=tuple(KINDS)
    )
    loss: str = setting(
        "auto",
        "What is minimised: Dice and cross-entropy, focal Tversky for small lesions, "
        "or (auto) by how rare the class is.",
        choices=("auto", "dice-bce", "focal-tversky"),
    )
    positive: float = setting(
        0.5, "Share of the windows that are centred on the class.", ge=0.0, le=1.0
    )
    per_class: str = setting(
        "",
        "Settings of single classes, such as '1: loss=focal-tversky, window=128; "
        "2: positive=0.7', by mask value or name.",
    )
    crop: str = setting(
        "auto",
        "Cut the dark surround of photographs away (auto: of colour images).",
        choices=("auto", "yes", "no"),
    )
    edge: float = setting(
        0.04, "Brightness, as a share of white, up to which is surround.", ge=0, le=1
    )
    clip: float = setting(
        2.0, "Contrast that CLAHE allows, as a multiple of none; 0 for no CLAHE.", ge=0
    )
    grid: int = setting(8, "Tiles of CLAHE along each side.", ge=1, le=64)
    keep_from: str = setting(
        "", "A model file of this method; its classes are kept but those of --retrain."
    )
    retrain: str = setting(
        "",
        "Classes to train anew, by mask value or name, with commas between; the others "
        "come from --keep-from.",
    )
    class_steps: str = setting(
        "", "Steps each part of each class did; set by run files."
    )

    def __post_init__(self) -> None:
        check(self)
        if bool(self.keep_from) != bool(self.retrain):
            raise InputError(
                "--keep-from and --retrain belong together: give the model file, and "
                "say which of its classes to train anew."
            )
        for name, usual in (("label_noise", "none"), ("domains", "none")):
            if getattr(self, name) != usual:
                raise _not_here(f"--{name.replace('_', '-')}")
        if self.unlabelled:
            raise _not_here("--unlabelled")
        for _, settings in self._single():
            self._of_one(settings)

    def preparation(self, rgb: bool) -> Preparation:
        """Return how images are prepared.

        Parameters
        ----------
        rgb : bool
            Whether they are red, green and blue.

        Returns
        -------
        Preparation
            For the card.
        """
        crop = rgb if self.crop == "auto" else self.crop == "yes"
        return Preparation(rgb, crop, self.edge, self.clip, self.grid)

    def of_class(self, name: str, value: int) -> LesionTraining:
        """Return the settings of one class.

        Parameters
        ----------
        name : str
            Its name.
        value : int
            Its value in the masks.

        Returns
        -------
        LesionTraining
            With what `per_class` says of it.
        """
        chosen = self
        for who, settings in self._single():
            if names_class(who, name, value):
                chosen = chosen._of_one(settings)
        return chosen

    def check_named(self, classes: Sequence[tuple[str, int]]) -> None:
        """Refuse settings of a class that there is not.

        Parameters
        ----------
        classes : sequence of (str, int)
            Names and mask values.

        Raises
        ------
        InputError
            `per_class` or `retrain` names another one.
        """
        asked = [who for who, _ in self._single()]
        asked += [who.strip() for who in self.retrain.split(",") if who.strip()]
        for who in asked:
            if not any(names_class(who, *each) for each in classes):
                known = ", ".join(f"{value} ({name})" for name, value in classes)
                raise InputError(f"There is no class {who!r}; there is {known}.")

    def network_config(
        self, minutes: float | None, planned: int | None, stops: tuple[int, ...]
    ) -> NetworkTraining:
        """Return the settings of the network of a class.

        Parameters
        ----------
        minutes : float or None
            Time for it.
        planned : int or None
            Steps that were planned for it, of a replay.
        stops : tuple of int
            Steps of its parts, of a replay.

        Returns
        -------
        NetworkTraining
            Of the kind that `class_network` names.
        """
        kind: type[NetworkTraining] = KINDS[self.class_network]
        values = {item.name: getattr(self, item.name) for item in fields(kind)}
        values |= {"steps": planned} if planned else {}
        return kind(**{**values, "minutes": minutes, "stop_at": stops})

    def _single(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what is said of single classes."""
        found = []
        for group in filter(None, (each.strip() for each in self.per_class.split(";"))):
            who, colon, said = group.partition(":")
            words = [word.partition("=") for word in said.split(",") if word.strip()]
            if not colon or not words or any(not value for _, _, value in words):
                raise InputError(
                    f"--per-class: {group!r} cannot be used. Write it as '1: "
                    "loss=focal-tversky, window=128', with a semicolon between classes."
                )
            settings = {name.strip(): value.strip() for name, _, value in words}
            found.append((who.strip(), settings))
        return found

    def _of_one(self, settings: dict[str, Any]) -> LesionTraining:
        """Return the settings with some changed, without what is of single classes."""
        values: dict[str, Any] = {}
        for name, text in settings.items():
            name = name.replace("-", "_")
            if name not in OF_ONE_CLASS:
                raise InputError(
                    f"--per-class: {name!r} is no setting of a class; those are "
                    f"{', '.join(OF_ONE_CLASS)}."
                )
            kind: Any = {"positive": float, "learning_rate": float}.get(name, int)
            try:
                values[name] = text if name in ("loss", "class_network") else kind(text)
            except ValueError:
                raise InputError(f"--per-class: {name} is {text!r}.") from None
        return replace(self, per_class="", **values)

    @property
    def without_paths(self) -> dict[str, Any]:
        """What a card says otherwise: paths say who trained."""
        names = ("keep_from", "pretrained", "unlabelled")
        return {name: Path(getattr(self, name)).name for name in names}


def names_class(who: str, name: str, value: int) -> bool:
    """Tell whether a class is meant, by its mask value or name."""
    return who == str(value) or who.casefold() == name.casefold()


def _not_here(option: str) -> InputError:
    return InputError(
        f"{option} cannot be used with one model a class; leave it out, or choose "
        "another method."
    )
