"""Which channels of an image file a model sees.

Files of several stains hold more than a model looks at: a person says which of them is
meant, or the model knows which one it was trained on, or the first ones are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from napari_medseg.io.image_file import ImageFile


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """Which channels of image files are seen.

    Attributes
    ----------
    chosen : tuple of int
        Those that a person chose, from 0; empty for no choice. Where one was chosen, a
        file with a single channel is taken to hold that one.
    learned : tuple of int
        Those that a model was trained on, seen in files that have them; empty where it
        was trained on whole images.
    needed : int or None
        How many a model sees, the first ones; None where it takes any number.
    """

    chosen: tuple[int, ...] = ()
    learned: tuple[int, ...] = ()
    needed: int | None = None

    def __post_init__(self) -> None:
        if any(channel < 0 for channel in self.chosen):
            listed = ", ".join(map(str, self.chosen))
            raise InputError(f"Channels are counted from 0; {listed} cannot be used.")

    def of(self, image: ImageFile) -> ImageFile:
        """Return an image with the channels that are seen.

        Parameters
        ----------
        image : ImageFile
            The file; colours are seen as colours, where nobody chose and the model
            did not learn otherwise.

        Returns
        -------
        ImageFile
            The same file, of which `ImageFile.region` reads less.

        Raises
        ------
        InputError
            It lacks a channel that was chosen.
        """
        if self.chosen:
            alone = len(self.chosen) == image.channels == 1
            return image if alone else image.of_channels(self.chosen)
        seen = self._learned_in(image) or self._first_of(image)
        return image.of_channels(seen) if seen else image

    def note(self, image: ImageFile) -> str:
        """Return what is to be said of an image where nobody chose.

        Parameters
        ----------
        image : ImageFile
            The whole file.

        Returns
        -------
        str
            A sentence without the name of the file; empty where all is clear.
        """
        first = self._first_of(image)
        if self.chosen or self._learned_in(image) or not first:
            return ""
        told = "the first" if len(first) == 1 else f"the first {len(first)}"
        return (
            f"It has {image.channels} channels, of which the model saw {told}; if "
            "these are the wrong ones, say which (--channels)."
        )

    def _learned_in(self, image: ImageFile) -> tuple[int, ...]:
        """Return the channels that were trained on, of a file that has them."""
        known = self.learned
        return known if known and max(known) < image.channels else ()

    def _first_of(self, image: ImageFile) -> tuple[int, ...]:
        """Return the first channels, of a file with more stains than are looked at."""
        if image.rgb or self.needed is None or image.channels <= self.needed:
            return ()
        return tuple(range(self.needed))


ALL = ChannelChoice()
"""Everything that is in the file."""
