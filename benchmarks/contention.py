"""What another program that computes costs: two at once, by how threads wait.

    python benchmarks/contention.py [--out RESULTS.json]

Embeds images of 512 × 512 with `nano` in a process of its own on all processors, alone
and beside another one that does the same; with GNU OpenMP as it comes, where threads
wait awake, and as `napari_medseg._threads` has them wait. Milliseconds an image, by the
clock, as that is what somebody waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from napari_medseg._threads import SPINS

RESULTS = Path("benchmarks/results/contention.json")

SECONDS = 8.0
"""For which each process embeds."""


def embed() -> float:
    """Return the milliseconds of an image, embedded again and again."""
    import torch

    from napari_medseg.models.backbone import load_backbone

    backbone, device = load_backbone("nano"), torch.device("cpu")
    backbone.embed(torch.randn(3, 512, 512), device)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        backbone.embed(torch.randn(3, 512, 512), device)
        count += 1
    return 1000 * (time.monotonic() - began) / count


def measured(processes: int, spins: str | None) -> float:
    """Return the mean milliseconds of an image over processes that run at once."""
    waiting = {"GOMP_SPINCOUNT": spins} if spins else {}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--one"],
            env=os.environ | waiting,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    found = [float(each.communicate()[0]) for each in started]
    return round(sum(found) / len(found), 1)


def main(
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = RESULTS,
    one: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measure, and write the results."""
    if one:
        print(embed())
        return
    rows = {
        f"{waiting}, {words}": measured(processes, spins)
        for waiting, spins in (("awake", None), ("asleep soon", SPINS))
        for words, processes in (("alone", 1), ("two at once", 2))
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    for words, milliseconds in rows.items():
        print(f"{words}: {milliseconds} ms")


if __name__ == "__main__":
    typer.run(main)
