"""Reading arrays of layers: small ones at once, others in a thread of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_medseg._types import InputError, MedsegError
from napari_medseg.io.raw import READER_ERRORS
from napari_medseg.widgets._background import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUICK = 1 << 24
"""Bytes in memory that are copied within a few milliseconds."""


class Reading(QObject):
    """Calls functions that read; the window waits for none that may take long.

    Parameters
    ----------
    parent : QObject, optional
        The parent.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._background = Background("medseg-reading", drop=True, parent=self)

    def read(
        self,
        arrays: Sequence[Any],
        function: Callable[[], Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None],
    ) -> None:
        """Call a function, now or soon.

        Parameters
        ----------
        arrays : sequence of array
            What it reads: views of arrays in memory, or lazy arrays.
        function : callable
            Reads; touches no widget.
        then, otherwise : callable
            Get the result, or a `MedsegError` or what readers and disks raise.
        """

        def guarded() -> Any:
            try:
                return function()
            except (MedsegError, *READER_ERRORS):
                raise
            except Exception as error:  # a lazy array runs code of anybody
                raise InputError(str(error) or type(error).__name__) from error

        if not all(isinstance(each, np.ndarray) for each in arrays) or (
            sum(each.nbytes for each in arrays) > QUICK
        ):
            self._background.submit(guarded, then, otherwise)
            return
        try:
            result = guarded()
        except (MedsegError, *READER_ERRORS) as error:
            otherwise(error)
            return
        then(result)
