"""What a training has to say for itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_medseg.training.suspects import ranked, sentence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.io.model_file import ModelFile
    from napari_medseg.training.scoring import Score, Summary
    from napari_medseg.training.suspects import Suspect

NO_BETTER = 0.005
"""A tuned model whose Dice is not above the untuned one's by this is no better."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training has to say for itself.

    Attributes
    ----------
    parameters : int
        Numbers trained.
    seconds : float
        Wall time, embeddings included.
    steps, best_step : int
        Steps done in the last part of the run, and the step that was kept.
    held_out, untuned : Summary or None
        Scores on images that were not trained on, of the tuned model and of SAM
        without any prompt; None where no image could be held out, and ``untuned`` for
        a network from scratch, which has no untuned self.
    images : int
        Images given.
    warnings : tuple of str
        Sentences the user should read.
    history : list of dict
        Held-out figures by step.
    otsu : Summary or None
        Scores of Otsu's threshold on the same images, where nothing is untuned and
        there is one class of objects.
    suspects : dict
        By image, the share of its labels that look wrong, largest first; empty where
        labels were not doubted.
    unlabelled : int
        Images without annotation that were learned from as well.
    untuned_name : str
        What ``untuned`` is of, in words.
    alone : dict
        Where a channel was added, held-out scores with the ``old`` channels alone and
        with the ``new`` one alone.
    classes : dict
        Held-out figures of each class, where each has a model of its own: Dice at its
        threshold, AUPR, lesion recall, over all pixels of the images held out.
    """

    parameters: int
    seconds: float
    steps: int
    best_step: int
    held_out: Summary | None
    untuned: Summary | None
    images: int
    warnings: tuple[str, ...] = ()
    history: list[dict[str, float]] = field(default_factory=list)
    otsu: Summary | None = None
    suspects: dict[str, float] = field(default_factory=dict)
    unlabelled: int = 0
    untuned_name: str = "SAM untuned"
    alone: dict[str, Summary] = field(default_factory=dict)
    classes: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[str, Summary] | None:
        """What the model is compared with, in words, and its scores."""
        if self.untuned is not None:
            return self.untuned_name, self.untuned
        return None if self.otsu is None else ("Otsu's threshold", self.otsu)

    def scores(self) -> dict[str, Any]:
        """Return the scores as a card holds them."""
        found = {
            "held_out": self.held_out and self.held_out.rounded(),
            "untuned": self.untuned and self.untuned.rounded(),
        }
        alone = {f"{mode}_alone": item.rounded() for mode, item in self.alone.items()}
        otsu = {} if self.otsu is None else {"otsu": self.otsu.rounded()}
        return found | otsu | alone

    def with_suspects(self, suspects: Sequence[Suspect]) -> TrainingReport:
        """Return the report with what was found wrong with the labels."""
        told = sentence_of(suspects)
        shares = {item.name: round(item.share, 5) for item in ranked(suspects)}
        warnings = self.warnings if told is None else (*self.warnings, told)
        return replace(self, suspects=shares, warnings=warnings)

    def with_note(self, note: str) -> TrainingReport:
        """Return the report with one more sentence, where there is one."""
        return replace(self, warnings=(*self.warnings, note)) if note else self

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it; ``held_out`` and ``untuned`` are Dice."""
        return {
            "parameters": self.parameters,
            "seconds": round(self.seconds, 2),
            "steps": self.steps,
            "best_step": self.best_step,
            "images": self.images,
            "held_out": self.held_out and round(self.held_out.dice, 4),
            "untuned": self.untuned and round(self.untuned.dice, 4),
            "untuned_name": self.untuned_name,
            "held_out_scores": self.held_out and self.held_out.rounded(),
            "untuned_scores": self.untuned and self.untuned.rounded(),
            "otsu": self.otsu and round(self.otsu.dice, 4),
            **{
                f"{mode}_alone": round(item.dice, 4)
                for mode, item in self.alone.items()
            },
            "warnings": list(self.warnings),
            "suspects": self.suspects,
            "unlabelled": self.unlabelled,
            "classes": self.classes,
            "history": self.history,
        }


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes
    ----------
    model_file : ModelFile
        What to save.
    report : TrainingReport
        How it went.
    config : object
        The config that gives the same model file again.
    suspects : tuple of Suspect
        Which labels look wrong, an entry an image; empty where none were doubted.
    """

    model_file: ModelFile
    report: TrainingReport
    config: Any
    suspects: tuple[Suspect, ...] = ()


def warnings_of(
    report: TrainingReport,
    scores: Sequence[Score],
    absent: Sequence[int],
    ended_early: bool,
) -> list[str]:
    """Return what a user should know before trusting the model.

    Parameters
    ----------
    report : TrainingReport
        How the training went.
    scores : sequence of Score
        Of the held-out images.
    absent : sequence of int
        Classes that no training image shows.
    ended_early : bool
        Whether the user stopped the run.

    Returns
    -------
    list of str
        Sentences; empty when all is well.
    """
    found = []
    if report.held_out is None:
        reason = (
            "it takes at least two annotated images"
            if report.images < 2
            else "no image was held out"
        )
        found.append(
            f"There is no held-out score: {reason}. Look at the result on other images "
            "before you trust it."
        )
    elif report.images < 8:
        found.append(
            f"The score rests on {report.held_out.images} of {report.images} annotated "
            "images; annotate more for a score to rely on."
        )
    for index in absent:
        name = "background" if index == 0 else f"class {index}"
        found.append(f"No image that was trained on shows {name}; annotate some.")
    if report.held_out and report.compared:
        name, other = report.compared
        if report.held_out.dice - other.dice <= NO_BETTER:
            found.append(
                f"The tuned model (Dice {report.held_out.dice:.2f}) is no better than "
                f"{name} ({other.dice:.2f}) on the held-out images. "
                "Annotate more images, or check the annotations."
            )
    blank = [score.name for score in scores if score.blank]
    if blank:
        found.append(
            f"Nothing was found on {len(blank)} of {len(scores)} held-out images "
            f"({', '.join(blank[:3])}{', …' if len(blank) > 3 else ''})."
        )
    if ended_early:
        found.append("The training was stopped early; the best so far was kept.")
    return found
