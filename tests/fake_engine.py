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

    drop = cancel

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
            labels = np.full((8, 9), 7, np.int32)
            task.listener.on_done({"labels": labels, "kinds": []})
            return
        classes = [
            {"name": item.name, "colour": item.colour} for item in default_classes(2)
        ]
        labels = (arguments["image"][0] > 0.5).astype(np.int32)
        answer = {"labels": labels, "kinds": [1] * int(labels.max())}
        task.listener.on_done(answer | {"classes": classes, "note": ""})


class Sam(FakeEngine):
    """Takes a square round the last click for the object, a larger one next."""

    pid = 7

    def answer(self) -> None:
        name, arguments, task = self.jobs.pop(0)
        task.running = False
        if name == "look":
            self.shape = arguments["image"].shape[1:]
            task.listener.on_done(None)
            return
        if name == "look_around":
            task.listener.on_done(None)
            return
        masks = np.zeros((3, *self.shape), bool)
        if arguments["mask"] is not None:
            masks[:] = arguments["mask"]
        elif arguments["box"] is not None:
            top, left, bottom, right = map(int, arguments["box"])
            masks[:, top : bottom + 1, left : right + 1] = True
        else:
            row, column = map(int, arguments["points"][-1])
            for size, mask in enumerate(masks, start=1):
                mask[row - size : row + size + 1, column - size : column + size + 1] = 1
        region = [0, 0, *self.shape]
        scores = np.ones(3, np.float32)
        asked = {name: arguments[name] for name in ("points", "adds", "box")}
        if arguments["mask"] is not None:
            places = np.argwhere(masks[0])
            asked["box"] = [*map(float, places.min(0)), *map(float, places.max(0))]
            asked |= {"points": [list(map(float, places[0]))], "adds": [True]}
        answer = {"region": region, "masks": masks, "scores": scores}
        task.listener.on_done(answer | asked)

    def answer_all(self) -> None:
        while self.jobs:
            self.answer()
