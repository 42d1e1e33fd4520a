"""Workers on other computers, by Dask."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError
from napari_medseg.batch.crew import Borrowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg.batch.crew import Crew
    from napari_medseg.batch.process import Task

PATIENCE = 15.0
"""Seconds that a scheduler has to answer."""

COUNTED = 5.0
"""Seconds for which the number of workers is taken to be the same."""


@contextmanager
def cluster_crew(address: str, task: Task) -> Iterator[Crew]:
    """Give the workers of a Dask cluster; those that die are replaced by others.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://10.0.0.1:8786``, or its scheduler file.
    task : Task
        What the workers must know.

    Yields
    ------
    Crew
        As many images at a time as there are workers, twice.

    Raises
    ------
    InputError
        Dask is not installed, or nobody answers.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise InputError(
            "A cluster needs Dask, which is not installed: pip install "
            '"napari-medseg[cluster]".'
        ) from error
    try:
        client = _connect(Client, address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address}. Start one (dask scheduler), or "
            "check the address and the firewall."
        ) from error
    with client:
        # the same image may have to be done again: results are not kept by arguments
        executor = client.get_executor(pure=False)
        yield Borrowed(executor, _Places(client), task, (KilledWorker,))


def _connect(kind: Any, address: str) -> Any:
    """Connect to a scheduler."""
    options = {"timeout": PATIENCE, "set_as_default": False}
    if Path(address).is_file():
        return kind(scheduler_file=address, **options)
    return kind(address, **options)


class _Places:
    """How many images a cluster takes at a time, as workers come and go.

    Parameters
    ----------
    client : distributed.Client
        Knows the workers.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked = -COUNTED
        self._count = 2

    def __call__(self) -> int:
        """Return two for each thread of a worker, one of them in reserve."""
        if time.monotonic() - self._asked >= COUNTED:
            self._asked = time.monotonic()
            self._count = max(2, 2 * sum(self._client.nthreads().values()))
        return self._count
