"""The compute process, and the viewer's side of it.

Jobs run in a process of their own, ``python -m napari_medseg.engine``: torch never
enters the viewer's, whatever happens there leaves the viewer's layers alone, and a
job that hangs can be ended by force. `client` is the viewer's side and knows neither
Qt nor torch; `server` runs the jobs of `jobs`; `channel` is what both speak.
"""

from __future__ import annotations

from napari_medseg.engine.client import Engine, Listener, Task
from napari_medseg.engine.lane import Lane

__all__ = ["Engine", "Lane", "Listener", "Task"]
