"""An engine that answers when a test says so: no other process, no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medseg._types import Progress, default_classes


class FakeTask:
    """A job of the fake engine."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self.running = True

        self.asked: list[str] = []

    def cancel(self) -> None:
        self.running = False
        self.listener.on_cancelled()

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def end_early(self) -> None:
        self.asked.append("end early")


class FakeEngine:
    """Answers when the test says so, without another process and without torch."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any], FakeTask]] = []

    def submit(
        self,
        name: str,
        arguments: dict[str, Any],
        listener: Any,
        *,
        urgent: bool = False,
    ) -> FakeTask:
        task = FakeTask(listener)
        self.jobs.append((name, arguments, task))
        return task

    def answer(self) -> None:
        """Answer the oldest job with a threshold at 0.5."""
        name, arguments, task = self.jobs.pop(0)
        task.listener.on_progress(Progress(0, 1, "segmenting"))
        task.running = False
        if name == "relabel":
            task.listener.on_done(np.full((8, 9), 7, np.int32))
            return
        classes = [
            {"name": item.name, "colour": item.colour} for item in default_classes(2)
        ]
        labels = (arguments["image"][0] > 0.5).astype(np.int32)
        task.listener.on_done({"labels": labels, "classes": classes, "note": ""})
