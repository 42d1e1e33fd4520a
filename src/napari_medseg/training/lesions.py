"""One binary network for each class, each trained by itself, merged into one file.

After Boulaabi et al. (AICCSA 2024, arXiv 2504.17306): a rare and small class has its
own windows, loss and threshold, can be annotated on other images, and can be trained
again without any effect on the others. Pixels rightly left out count nowhere.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, Job, Progress, default_classes
from napari_medseg.io import model_file as model_files
from napari_medseg.io.pair_set import IGNORED, Pair, Pairs
from napari_medseg.io.preparation import Preparation, prepare
from napari_medseg.models.merged import KIND, Part, join, parts_of
from napari_medseg.precision_recall import Ranking
from napari_medseg.training.class_study import ClassStudy
from napari_medseg.training.goals import RankedGoal
from napari_medseg.training.lesion_training import RARE, LesionTraining, names_class
from napari_medseg.training.report import Trained, TrainingReport
from napari_medseg.training.scoring import Summary
from napari_medseg.training.whole import CONDUCT, begun, model_file_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_medseg._types import FloatArray
    from napari_medseg.training.conduct import Conduct
    from napari_medseg.training.network_training import NetworkTraining

_UNKNOWN = 2
"""Value of pixels of a binary annotation that do not count."""

FINDS_NOTHING = 1.0
"""Threshold of a class whose training was stopped before its first step."""


@dataclass(frozen=True)
class _Class:
    """One class to train: its name, value, images with binary annotations."""

    name: str
    value: int
    pairs: Pairs

    @property
    def share(self) -> float:
        """Share of the annotated pixels that are of the class."""
        known = sum(int((pair.annotation != _UNKNOWN).sum()) for pair in self.pairs)
        shown = sum(int((pair.annotation == 1).sum()) for pair in self.pairs)
        return shown / max(1, known)


@dataclass(frozen=True)
class _Done:
    """A class that was trained, and how that went."""

    part: Part
    report: TrainingReport
    ranking: Ranking
    planned: int
    steps: tuple[int, ...]

    @property
    def scores(self) -> dict[str, float | None]:
        """Figures of the class, as reports and cards have them."""
        if not self.ranking.images:
            return {"threshold": self.part.threshold, "images": 0}
        figures = self.ranking.scores(self.part.threshold)
        return {
            **figures,
            "threshold": round(self.part.threshold, 4),
            "images": self.ranking.images,
        }


def train_lesions(
    pairs: Pairs, config: LesionTraining, conduct: Conduct = CONDUCT
) -> Job[Trained]:
    """Train one binary network for each class, or for some classes of a model file.

    Parameters
    ----------
    pairs : Pairs
        Annotated images, of classes or of objects of one class.
    config : LesionTraining
        Settings; the defaults need no touching.
    conduct : Conduct
        Date, checkpoints, when to stop. There is no preview, and no judge is asked.

    Yields
    ------
    Progress
        Training, with loss and held-out scores, class by class.

    Returns
    -------
    Trained
        Model file and report, with Dice, AUPR and lesion recall of each class.

    Raises
    ------
    InputError
        The pairs or settings cannot be used.
    JobError
        Memory ran out.
    """
    started = time.monotonic()
    names = _names(pairs)
    kept = _kept(config, pairs)
    known = [(part.name, part.value) for part in kept] or names
    config.check_named(known)
    preparation = _preparation(config, pairs)
    prepared = yield from _prepared(pairs, preparation)
    wanted = [each for each in known if not kept or _asked(config, *each)]
    runs = _runs(config.class_steps, len(wanted))
    note = ""
    if any(config.of_class(*each).class_network == "deeplab" for each in wanted):
        config, note = yield from begun(config)
    done: list[_Done] = []
    for number, (name, value) in enumerate(wanted):
        single = _Class(name, value, _binary(pairs, prepared, value))
        left = len(wanted) - number
        settings = config.of_class(name, value)
        minutes = _minutes(config, started, left)
        network = settings.network_config(minutes, *runs[number])
        done.append((yield from _train(single, settings, network, conduct)))
    report = _report(done, time.monotonic() - started, len(pairs)).with_note(note)
    parts = _with_kept(kept, [each.part for each in done])
    steps = ";".join(
        f"{each.planned}/{','.join(map(str, each.steps))}" for each in done
    )
    replay = replace(config, minutes=None, class_steps=steps)
    told = {**to_dict(replay), "preparation": to_dict(preparation)}
    file = join(
        parts,
        f"One model a class ({len(parts)}), {len(pairs)} images",
        config={**told, **config.without_paths, "device": "auto"},
        provenance={
            **_provenance(pairs, config, conduct),
            "trained": [each.part.name for each in done],
            "class_values": [0, *(part.value for part in parts)],
        },
        scores={**report.scores(), "classes": report.classes},
    )
    return Trained(file, report, replay)


def _provenance(
    pairs: Pairs, config: LesionTraining, conduct: Conduct
) -> dict[str, Any]:
    """Return on what, how and when it was trained; each part tells the rest."""
    return {
        "data": pairs.digest,
        "images": len(pairs),
        **({"channels": list(pairs.shown)} if pairs.shown else {}),
        "seed": config.seed,
        "date": conduct.date,
    }


def _names(pairs: Pairs) -> list[tuple[str, int]]:
    """Return names and mask values of the classes, without background."""
    usual = [each.name for each in default_classes(pairs.classes)]
    names = list(pairs.class_names) or usual
    return list(zip(names, pairs.class_values, strict=True))[1:]


def _kept(config: LesionTraining, pairs: Pairs) -> list[Part]:
    """Return the parts of the model file that is trained further, if there is one."""
    if not config.keep_from:
        return []
    found = model_files.load(config.keep_from)
    if found.card.kind != KIND:
        raise InputError(
            f"{config.keep_from} does not hold one model a class. Choose a file that "
            f"`train --method {KIND}` wrote."
        )
    parts = parts_of(found)
    for part in parts:
        if not _asked(config, part.name, part.value):
            continue
        if part.value not in pairs.class_values:
            raise InputError(
                f"No mask shows {part.name} (value {part.value}), which --retrain "
                "names. Give images on which it is annotated."
            )
    seen = max(parts[0].model_file.card.normalisation.get("channels", [0])) + 1
    if pairs.channels < seen:
        raise InputError(
            f"{config.keep_from} was trained on {seen} channels, and these images have "
            f"{pairs.channels}. Use images of the same kind."
        )
    return parts


def _asked(config: LesionTraining, name: str, value: int) -> bool:
    """Tell whether a class is to be trained anew."""
    asked = [who.strip() for who in config.retrain.split(",")]
    return any(names_class(who, name, value) for who in asked)


def _with_kept(kept: Sequence[Part], trained: Sequence[Part]) -> list[Part]:
    """Return all parts of the file to write, in the order of the classes."""
    if not kept:
        return list(trained)
    new = {part.value: part for part in trained}
    return [new.get(part.value, part) for part in kept]


def _preparation(config: LesionTraining, pairs: Pairs) -> Preparation:
    """Return how images are prepared: for a part of a file, as for its others."""
    if not config.keep_from:
        return config.preparation(pairs.rgb)
    values = model_files.read_card(config.keep_from).config.get("preparation", {})
    return from_dict(Preparation, values, config.keep_from)


def _prepared(
    pairs: Pairs, preparation: Preparation
) -> Job[list[tuple[FloatArray, Any]]]:
    """Prepare all images, once for all classes."""
    found = []
    for index, pair in enumerate(pairs):
        yield Progress(index, len(pairs), f"preparing {pair.name}")
        found.append(prepare(pair.image, preparation))
    return found


def _binary(
    pairs: Pairs, prepared: Sequence[tuple[FloatArray, Any]], value: int
) -> Pairs:
    """Return the prepared images with the annotation of one class alone."""
    number = pairs.class_values.index(value)

    def each() -> Iterator[Pair]:
        for index, (pair, (image, place)) in enumerate(
            zip(pairs, prepared, strict=True)
        ):
            target = pairs.targets(index)
            if pair.layers is not None:
                shown = pair.layers[number - 1]
            else:
                shown = target == number
            mask = shown.astype(np.int32)
            mask[(target == IGNORED) & ~shown.astype(bool)] = _UNKNOWN
            # what was added around the image teaches nothing
            mask = place.cut(mask, _UNKNOWN)
            yield replace(
                pair,
                image=image,
                annotation=mask,
                class_values=(0, 1),
                ignore=_UNKNOWN,
                layers=None,
            )

    return Pairs(tuple(each()), "dense", (0, 1))


def _runs(text: str, count: int) -> list[tuple[int | None, tuple[int, ...]]]:
    """Return of each class, of a replay, the steps planned and those of its parts."""
    if not text:
        return [(None, ())] * count
    try:
        found = [_run(group) for group in text.split(";")]
    except ValueError:
        found = []
    if len(found) != count:
        raise InputError(
            f"class_steps is {text!r}, which does not fit {count} classes; "
            "leave it out."
        )
    return found


def _run(text: str) -> tuple[int | None, tuple[int, ...]]:
    """Read ``73/24,73``; earlier versions wrote no planned steps."""
    planned, _, stops = text.rpartition("/")
    return int(planned) if planned else None, tuple(map(int, stops.split(",")))


def _minutes(config: LesionTraining, started: float, left: int) -> float | None:
    """Return the time for the next class."""
    if config.minutes is None:
        return None
    spent = (time.monotonic() - started) / 60.0
    return max(0.0, config.minutes - spent) / left


def _train(
    single: _Class,
    settings: LesionTraining,
    network: NetworkTraining,
    conduct: Conduct,
) -> Job[_Done]:
    """Train the network of one class and choose its threshold."""
    ranking = Ranking()
    pairs = single.pairs

    def judge(index: int, probabilities: FloatArray) -> None:
        target = pairs.targets(index)
        ranking.add(probabilities[1], target == 1, target != IGNORED)

    if settings.loss == "auto":
        loss = "focal-tversky" if single.share < RARE else "dice-bce"
        settings = replace(settings, loss=loss)
    own = replace(conduct, watch=None, judge=judge)
    study = ClassStudy(RankedGoal(pairs), network, own, settings)
    job = study.run()
    while True:
        try:
            progress = next(job)
        except StopIteration:
            break
        yield replace(progress, message=f"{single.name}: {progress.message}")
    report = study.report()
    steps = tuple(part.result.steps for part in study.parts)
    threshold = ranking.threshold if steps[-1] else FINDS_NOTHING
    file = model_file_of(study, report)
    card = replace(
        file.card,
        config={
            **file.card.config,
            "loss": settings.loss,
            "positive": settings.positive,
        },
    )
    part = Part(
        single.name, single.value, threshold, single.share, replace(file, card=card)
    )
    return _Done(part, report, ranking, study.config.steps, steps)


def _report(done: Sequence[_Done], seconds: float, images: int) -> TrainingReport:
    """Say how all classes went."""
    classes = {each.part.name: each.scores for each in done}
    warnings = [
        f"{each.part.name}: {warning}"
        for each in done
        for warning in each.report.warnings
    ]
    warnings += [
        f"{each.part.name}: the training was stopped before it began; nothing is found "
        "of this class until it is trained (--retrain)."
        for each in done
        if not each.steps[-1]
    ]
    found = [each.report.held_out for each in done]
    held = [each for each in found if each is not None]
    summary = None
    if held:
        ranked = [each.aupr for each in held if each.aupr is not None]
        summary = Summary(
            float(np.mean([each.dice for each in held])),
            float(np.mean([each.iou for each in held])),
            float(np.mean([each.dice_sd for each in held])),
            held[0].images,
            aupr=float(np.mean(ranked)) if ranked else None,
        )
    return TrainingReport(
        parameters=sum(each.report.parameters for each in done),
        seconds=seconds,
        steps=sum(each.report.steps for each in done),
        best_step=done[-1].report.best_step,
        held_out=summary,
        untuned=None,
        images=images,
        warnings=tuple(warnings),
        history=[
            {"class": float(each.part.value), **entry}
            for each in done
            for entry in each.report.history
        ],
        classes=classes,
    )
