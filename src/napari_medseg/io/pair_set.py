"""Annotated images in memory, and the class maps to learn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medseg._labels import BoolArray
    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.io.checks import AnnotationKind, Finding
    from napari_medseg.io.normalise import Normalisation

IGNORED = -1
"""The value of pixels that training leaves out."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with its annotation.

    Attributes
    ----------
    name : str
        The image's name without endings.
    image : ndarray
        ``float32 (C, Y, X)``.
    annotation : ndarray
        ``int32 (Y, X)``, the values as drawn.
    image_path, annotation_path : Path or None
        The files; None for layers.
    class_values : tuple of int
        The annotation value of each class, background first, decided over all
        pairs; empty where this pair stands alone.
    ignore : int or None
        The annotation value of unlabelled pixels.
    rgb : bool
        Whether the image is red, green and blue.
    layers : ndarray, optional
        ``bool (K, Y, X)``, where each class but background is, of classes that may
        overlap; the annotation then has what lies uppermost.
    stack : str
        Of a slice of a file: its stack. Slices of one are much alike. Empty for an
        image of its own.
    """

    name: str
    image: FloatArray
    annotation: LabelArray
    image_path: Path | None = None
    annotation_path: Path | None = None
    class_values: tuple[int, ...] = ()
    ignore: int | None = None
    rgb: bool = False
    layers: BoolArray | None = None
    stack: str = ""

    def targets(self, kind: AnnotationKind) -> LabelArray:
        """Return the classes to learn.

        Parameters
        ----------
        kind : str
            What the annotation's values mean; `Pairs.annotation_kind` knows.

        Returns
        -------
        ndarray
            ``int32 (Y, X)``: 0 background, 1… classes, -1 left out in training.
            Dense values keep their order; objects become class 1; of sparse values
            0 is left out (with ``ignore`` given, that value is instead).
        """
        values = self.class_values
        if kind == "instances":
            result: LabelArray = (self.annotation != 0).astype(np.int32)
        else:
            own = np.unique(self.annotation).tolist()
            values = values or class_values_of([own], kind, self.ignore)
            # A value that no class has (a pair from elsewhere) is left out.
            table = np.asarray(values)
            places = np.clip(np.searchsorted(table, self.annotation), 0, len(table) - 1)
            known = table[places] == self.annotation
            result = np.where(known, places, IGNORED).astype(np.int32)
        if self.ignore is not None:
            result[self.annotation == self.ignore] = IGNORED
        return result


@dataclass(frozen=True, slots=True)
class Pairs(Sequence[Pair]):
    """Annotated images of one kind.

    Attributes
    ----------
    pairs : tuple of Pair
        At least one; all have the same number of channels (see `alike`).
    annotation_kind : str
        ``dense``, ``sparse`` or ``instances``.
    class_values : tuple of int
        The annotation value of each class, background first.
    findings : tuple of Finding
        Warnings.
    class_names : tuple of str
        Names of the classes, background first, where they are known.
    shown : tuple of int
        Which channels of their files the images are, where they were chosen.
    """

    pairs: tuple[Pair, ...]
    annotation_kind: AnnotationKind
    class_values: tuple[int, ...]
    findings: tuple[Finding, ...] = ()
    class_names: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Pairs: ...
    def __getitem__(self, index: int | slice) -> Pair | Pairs:
        """Return one pair, or some as `Pairs` of the same classes."""
        if isinstance(index, slice):
            return replace(self, pairs=self.pairs[index])
        return self.pairs[index]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def domains(self, by: str) -> list[int]:
        """Return the number of each image's domain, such as its microscope.

        Parameters
        ----------
        by : {"none", "prefix", "folder"}
            What tells domains apart: nothing, the name up to its first ``_``, or the
            folder that the image lies in.

        Returns
        -------
        list of int
            From 0 on, in the order of the names of the domains.
        """
        names = [_domain(pair, by) for pair in self.pairs]
        numbers = {name: index for index, name in enumerate(sorted(set(names)))}
        return [numbers[name] for name in names]

    @property
    def classes(self) -> int:
        """Number of classes, background included; at least 2."""
        return len(self.class_values)

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return int(self.pairs[0].image.shape[0])

    @property
    def rgb(self) -> bool:
        """Whether all images are red, green and blue."""
        return all(pair.rgb for pair in self.pairs)

    @property
    def digest(self) -> str:
        """SHA-256 over names, images and annotations, in hexadecimal digits."""
        whole = hashlib.sha256()
        for pair in self.pairs:
            name = pair.name.encode()
            arrays: list[tuple[NDArray[Any], str]]
            whole.update(len(name).to_bytes(8, "little") + name)
            arrays = [(pair.image, "<f4"), (pair.annotation, "<i4")]
            if pair.layers is not None:
                arrays.append((pair.layers, "|u1"))
            for array, kind in arrays:
                shape = np.asarray(array.shape, "<i8")
                whole.update(shape.tobytes())
                whole.update(np.ascontiguousarray(array, dtype=kind).data)
        return whole.hexdigest()

    def targets(self, index: int) -> LabelArray:
        """Return the classes to learn from one pair.

        Parameters
        ----------
        index : int
            The pair.

        Returns
        -------
        ndarray
            ``int32 (Y, X)``: 0 background, 1… classes, -1 left out.
        """
        return self.pairs[index].targets(self.annotation_kind)

    def subset(self, indices: Iterable[int]) -> Pairs:
        """Return some of the pairs, with the classes of all.

        Parameters
        ----------
        indices : iterable of int
            Which.

        Returns
        -------
        Pairs
            In the order of ``indices``.
        """
        return replace(self, pairs=tuple(self.pairs[index] for index in indices))

    def normalisation(self) -> Normalisation:
        """Return the usual normalisation for these images.

        Returns
        -------
        Normalisation
            By the number of channels, and whether they are colours.
        """
        from napari_medseg.io.normalise import Normalisation

        return Normalisation.for_channels(self.channels, self.rgb)


def alike(pairs: Sequence[Pair]) -> list[Pair]:
    """Show grey images among colour images as colours.

    Parameters
    ----------
    pairs : sequence of Pair
        Of any channels.

    Returns
    -------
    list of Pair
        The same; where one is of colours, no image of a single channel is left.
    """
    from napari_medseg.io.normalise import in_colours

    if not any(pair.rgb for pair in pairs):
        return list(pairs)
    return [
        replace(pair, image=in_colours(pair.image), rgb=True)
        if len(pair.image) == 1
        else pair
        for pair in pairs
    ]


def class_values_of(
    values: Iterable[Iterable[int]], kind: AnnotationKind, ignore: int | None
) -> tuple[int, ...]:
    """Decide which annotation value is which class.

    Parameters
    ----------
    values : iterable of iterables of int
        The values of each annotation.
    kind : str
        What they mean.
    ignore : int or None
        The value of unlabelled pixels.

    Returns
    -------
    tuple of int
        The value of each class, background first; at least two.
    """
    if kind == "instances":
        return (0, 1)
    unlabelled = 0 if kind == "sparse" and ignore is None else ignore
    background = 1 if kind == "sparse" and ignore is None else 0
    found = {value for some in values for value in some if value >= 0}
    classes = sorted(found - {unlabelled, background})
    return (background, *(classes or [background + 1]))


def _domain(pair: Pair, by: str) -> str:
    """Return the name of a pair's domain."""
    if by == "prefix":
        return pair.name.split("_")[0]
    if by == "folder" and pair.image_path is not None:
        return str(pair.image_path.parent)
    return ""
