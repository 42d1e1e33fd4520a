"""What a study keeps of its windows: in memory, and beyond a limit on the disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_medseg._types import JobError
from napari_medseg.models.weights import weights_folder

if TYPE_CHECKING:
    from torch import Tensor

MEMORY_BYTES = 2 * 1024**3
"""Embeddings that a study keeps in memory: those of some hundred images."""


class Kept:
    """Tensors that are kept: the first in memory, the others in files.

    The files are read as they are wanted, so that what the computer has no memory for
    costs time and nothing else. They go when the tensors do, however the program ends;
    on Windows when this object does.

    Parameters
    ----------
    memory_bytes : int
        What is kept in memory, at most.
    folder : Path, optional
        Where files are made; by default beside the weights, as the usual place for
        temporary files may be in memory itself.
    """

    def __init__(
        self, memory_bytes: int = MEMORY_BYTES, folder: Path | None = None
    ) -> None:
        self.left = memory_bytes
        self._parent = folder
        self._place: Path | None = None
        self._count = 0

    def keep(self, item: Tensor) -> Tensor:
        """Keep a tensor.

        Parameters
        ----------
        item : Tensor
            On the processor, contiguous.

        Returns
        -------
        Tensor
            Itself, or the same values out of a file. It must not be changed.

        Raises
        ------
        JobError
            The disk is full, or cannot be written to.
        """
        if item.nbytes <= self.left:
            self.left -= item.nbytes
            return item
        # asked for here, as finding it takes a while
        parent = self._parent or weights_folder()
        try:
            path = self._folder(parent) / f"{self._count}.bin"
            item.numpy().tofile(path)
        except OSError as error:
            raise JobError(
                f"{parent} cannot be written to ({error.strerror or error}). What "
                "SAM makes of so many images goes there, as it would fill the memory. "
                "Free some space, or train on fewer images."
            ) from error
        self._count += 1
        found = torch.from_file(str(path), size=item.numel(), dtype=item.dtype)
        # what is read from stays until nobody reads it; Windows wants it later
        with suppress(OSError):
            path.unlink()
        return found.view(item.shape)

    def _folder(self, parent: Path) -> Path:
        """Return the folder of the files, made at the first call."""
        if self._place is None:
            parent.mkdir(parents=True, exist_ok=True)
            self._place = Path(tempfile.mkdtemp(prefix="tuning-", dir=parent))
            weakref.finalize(self, shutil.rmtree, self._place, ignore_errors=True)
        return self._place
