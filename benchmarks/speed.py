"""How quick SAM is here, against segment-anything's own code in the same run.

    python benchmarks/speed.py --data DIR [--quick] [--device cuda] [--json FILE]

Each figure is taken in a process of its own, so that its peak memory is its own, and
on as many threads as ``--threads`` says; on one thread it is the processor's time,
which other work on the computer does not lengthen much. The floor is what the
encoder's matrix products take by themselves, in the type they are computed in.
``--quick`` leaves the trainings out. On a GPU (``--device cuda``) times are those of
the clock, all work waited for, and memory is the GPU's; its figures go into a file of
their own. ViT-B has random weights, saved as a checkpoint of the official format.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from sets import SETS

from napari_medseg._types import finish
from napari_medseg.api import train_job
from napari_medseg.models import sam as sams
from napari_medseg.models import vit
from napari_medseg.models.backbone import autocast, load_backbone
from napari_medseg.models.clicks import Prompt
from napari_medseg.models.devices import compute_dtype
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.models.weights import FOLDER_VARIABLE
from napari_medseg.training.prompt_tuning import PromptTuning

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path("benchmarks/results/speed.json")

GPU_RESULTS = Path("benchmarks/results/speed_gpu.json")

SIZE = 1024
"""Working size of SAM."""

CLICKS = 12

IMAGES = 16

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Bench:
    """Where something is measured.

    Attributes
    ----------
    data : Path
        Folder of the data sets.
    work : Path
        Folder for what is made on the way.
    device : torch.device
        Where to compute.
    """

    data: Path
    work: Path
    device: torch.device

    def now(self) -> float:
        """Return the time when all work is done.

        On one thread it is the processor's, which nothing else disturbs.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        one = torch.get_num_threads() == 1
        return time.process_time() if one else time.perf_counter()

    def median(self, work: Callable[[], object], runs: int = 3) -> float:
        """Return the median seconds of a call, after one to warm up."""
        work()
        times = []
        for _ in range(runs):
            started = self.now()
            work()
            times.append(self.now() - started)
        return statistics.median(times)

    def peak_mb(self) -> float:
        """Return the most memory that this process had: of the GPU, on one."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def encoder(self) -> Any:
        """Return ViT-B's encoder with random weights, in which positions matter."""
        return random_encoder().to(self.device)

    def window(self) -> torch.Tensor:
        """Return a window of SAM's size."""
        return window().to(self.device)


def random_encoder() -> Any:
    """Return ViT-B's encoder with random weights, in which positions matter."""
    torch.manual_seed(0)
    encoder = sams.build_sam("vit_b").image_encoder.eval().requires_grad_(False)
    for name, item in encoder.named_parameters():
        if "pos" in name:
            item.normal_(std=0.05)
    return encoder


def window() -> torch.Tensor:
    """Return a window of SAM's size."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, SIZE, SIZE, generator=generator)


# ----------------------------------------------------------------- what is measured


def measure_default(bench: Bench) -> dict[str, float]:
    """Time segment-anything as it is."""
    encoder, image = bench.encoder(), bench.window()
    with torch.inference_mode():
        return {"seconds": bench.median(lambda: encoder(image))}


def measure_bf16(bench: Bench) -> dict[str, float]:
    """Time segment-anything under autocast."""
    encoder, image = bench.encoder(), bench.window()
    with torch.inference_mode(), autocast(bench.device):
        return {"seconds": bench.median(lambda: encoder(image))}


def measure_ours(bench: Bench) -> dict[str, float]:
    """Time the encoder as the package uses it."""
    encoder, image = bench.encoder(), bench.window()
    light = vit.light(encoder, compute_dtype(bench.device))
    del encoder
    with torch.inference_mode(), autocast(bench.device):
        return {"seconds": bench.median(lambda: sams.encode(light, image))}


def measure_error(bench: Bench) -> dict[str, float]:
    """Tell how far the package's embedding is from segment-anything's in float32."""
    encoder, image = bench.encoder(), bench.window()
    light = vit.light(encoder, compute_dtype(bench.device))
    with torch.inference_mode():
        exact = encoder(image)
        with autocast(bench.device):
            found, other = sams.encode(light, image).float(), encoder(image).float()
    return {
        "relative_error": ((found - exact).norm() / exact.norm()).item(),
        "of_autocast": ((other - exact).norm() / exact.norm()).item(),
    }


def measure_uncast(bench: Bench) -> dict[str, float]:
    """Time the same encoder with matrices that are cast at every call."""
    encoder, image = bench.encoder(), bench.window()
    with torch.inference_mode(), autocast(bench.device):
        return {"seconds": bench.median(lambda: sams.encode(encoder, image))}


def measure_compiled(bench: Bench) -> dict[str, float]:
    """Time the encoder as the package uses it, through PyTorch's compiler.

    It needs a C++ compiler, which few laptops have; ``compile_seconds`` is its first
    call, with nothing compiled before.
    """
    encoder, image = bench.encoder(), bench.window()
    light = vit.light(encoder, compute_dtype(bench.device))
    del encoder
    compiled = torch.compile(sams.encode)
    with torch.inference_mode(), autocast(bench.device):
        began = time.perf_counter()
        compiled(light, image)
        first = time.perf_counter() - began
        return {
            "seconds": bench.median(lambda: compiled(light, image)),
            "compile_seconds": first,
        }


def measure_attention(bench: Bench) -> dict[str, float]:
    """Time ways to attend over the whole image, in one of the four blocks that do.

    With a table of all pairs of tokens, to which relative positions are added; by
    PyTorch's fused attention with queries and keys that are three times as long, so
    that they hold the relative positions, as it is done; and by it without any.
    """
    side = SIZE // 16
    dtype, shape = compute_dtype(bench.device), (1, 12, side**2)
    random = partial(torch.randn, dtype=dtype, device=bench.device)
    queries, keys, values = (random(*shape, 64) for _ in range(3))
    rows, columns = random(*shape, side, 1), random(*shape, 1, side)
    long = [torch.cat([each] * 3, dim=-1) for each in (queries, keys, values)]

    def table() -> torch.Tensor:
        scores = queries @ keys.mT + (rows + columns).flatten(-2)
        return scores.softmax(-1) @ values

    with torch.inference_mode():
        return {
            "table": bench.median(table),
            "fused": bench.median(lambda: vit.mix(*long, 1.0)),
            "fused_without_positions": bench.median(
                lambda: vit.mix(queries, keys, values, 1.0)
            ),
        }


def measure_empty(bench: Bench) -> dict[str, float]:
    """Load the weights alone, for its memory."""
    bench.encoder()
    return {}


def measure_floor(bench: Bench) -> dict[str, float]:
    """Time the encoder's matrix products, and nothing else."""
    dtype, width, heads, tokens = (
        compute_dtype(bench.device),
        768,
        12,
        (SIZE // 16) ** 2,
    )
    random = partial(torch.randn, dtype=dtype, device=bench.device)
    x, inside = random(tokens, width), random(tokens, 4 * width)
    shapes = ((x, 3 * width), (x, width), (x, 4 * width), (inside, width))
    layers = [(each, random(n, each.shape[1])) for each, n in shapes]
    q = random(heads, 512, width // heads)
    k = random(heads, tokens, width // heads)
    p = random(heads, 512, tokens)
    windows = random(25 * heads, 196, width // heads)
    pairs = random(25 * heads, 196, 196)

    def work_once() -> None:
        for block in range(12):
            for each, weight in layers:
                torch.nn.functional.linear(each, weight)
            if block % 3 == 2:  # four blocks attend to the whole image
                for _ in range(tokens // 512):
                    torch.bmm(q, k.mT)
                    torch.bmm(p, k)
            else:
                torch.bmm(windows, windows.mT)
                torch.bmm(pairs, windows)

    with torch.inference_mode():
        return {"seconds": bench.median(work_once)}


def checkpoint(bench: Bench) -> str:
    """Return a checkpoint of ViT-B with random weights."""
    path = bench.work / "vit_b.pth"
    if not path.exists():
        torch.manual_seed(0)
        torch.save(sams.build_sam("vit_b").state_dict(), path)
    return str(path)


def clicks(name: str, bench: Bench) -> dict[str, float]:
    """Return the seconds from a click to its mask.

    ``at_once_seconds`` as soon as the image is embedded, ``seconds`` when SAM has
    looked around as well, which takes ``around_seconds``.
    """
    image = SETS["phase"].test(bench.data)[0].image
    seen = InteractiveImage.of_image(
        image, load_backbone(name), bench.device.type, rgb=False
    )
    finish(seen.embed())
    at_once = click_seconds(seen, 0, bench)
    began = bench.now()
    finish(seen.look_around())
    around = bench.now() - began
    seconds = click_seconds(seen, 17, bench)
    return {
        "seconds": seconds,
        "at_once_seconds": at_once,
        "around_seconds": around,
    }


def click_seconds(seen: InteractiveImage, shift: int, bench: Bench) -> float:
    """Return the median over clicks that lie far from one another."""
    height, width = seen.shape
    times = []
    for number in range(CLICKS + 1):
        place = ((number * 37 + 50 + shift) % height, (number * 53 + 60) % width)
        started = bench.now()
        seen.answer(Prompt.of_clicks([(float(place[0]), float(place[1]))], [True]))
        times.append(bench.now() - started)
    return statistics.median(times[1:])


def measure_click_nano(bench: Bench) -> dict[str, float]:
    """Time a click on the bundled SAM."""
    return clicks("nano", bench)


def measure_click_vit_b(bench: Bench) -> dict[str, float]:
    """Time a click on ViT-B."""
    return clicks(checkpoint(bench), bench)


def tuned(name: str, bench: Bench) -> dict[str, float]:
    """Return the seconds to tune on 16 images of 512², embeddings included."""
    pairs = SETS["membrane"].draw(bench.data, IMAGES, 0)
    started = bench.now()
    finish(train_job(pairs, PromptTuning(sam=name, device=bench.device.type)))
    return {"seconds": bench.now() - started}


def measure_tune_nano(bench: Bench) -> dict[str, float]:
    """Time prompt tuning of the bundled SAM."""
    return tuned("nano", bench)


def measure_tune_vit_b(bench: Bench) -> dict[str, float]:
    """Time prompt tuning of ViT-B."""
    return tuned(checkpoint(bench), bench)


QUICK = {
    "default": measure_default,
    "bf16": measure_bf16,
    "ours": measure_ours,
    "error": measure_error,
    "uncast": measure_uncast,
    "attention": measure_attention,
    "empty": measure_empty,
    "floor": measure_floor,
    "click_nano": measure_click_nano,
}

FULL = QUICK | {
    "compiled": measure_compiled,
    "click_vit_b": measure_click_vit_b,
    "tune_nano": measure_tune_nano,
    "tune_vit_b": measure_tune_vit_b,
}


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    quick: Annotated[bool, typer.Option("--quick", help="No trainings.")] = False,
    threads: Annotated[int, typer.Option(help="Threads; 0: all cores.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option("--json", help="Where figures go.")
    ] = None,
    parts: Annotated[
        str,
        typer.Option(
            help="Only these, by commas; the rest is kept as the file has it."
        ),
    ] = "",
    only: Annotated[str, typer.Option(hidden=True)] = "",
    work: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, and print the figures."""
    if threads:
        torch.set_num_threads(threads)
    out = out or (RESULTS if device == "cpu" else GPU_RESULTS)
    if only and work is not None:
        bench = Bench(data, work, torch.device(device))
        found = FULL[only](bench)
        found["peak_mb"] = bench.peak_mb()
        typer.echo(json.dumps(found))
        return
    raw: dict[str, dict[str, float]] = {}
    names = list(QUICK if quick else FULL)
    if parts:
        raw, names = json.loads(out.read_text())["raw"], parts.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            command = [sys.executable, __file__, "--data", str(data), "--only", name]
            command += ["--work", folder, "--threads", str(threads)]
            command += ["--device", device]
            # nothing is embedded before: neither here nor by another program
            own = os.environ | {FOLDER_VARIABLE: folder}
            own |= {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=own)
            raw[name] = json.loads(done.stdout)
            typer.echo(f"{name}: {raw[name]}", err=True)
    figures = figures_of(raw) | {"threads": threads or torch.get_num_threads()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures | {"raw": raw}, indent=1) + "\n")
    typer.echo(json.dumps(figures, indent=1))


def figures_of(raw: dict[str, dict[str, float]]) -> dict[str, float | None]:
    """Return the ratios; None for what was left out."""

    def seconds(name: str) -> float | None:
        return raw[name]["seconds"] if name in raw else None

    ours, base = raw["ours"]["seconds"], raw["empty"]["peak_mb"]
    above = {name: raw[name]["peak_mb"] - base for name in ("default", "ours")}
    click_b = seconds("click_vit_b")
    return {
        "encoder_vs_sam_default": round(raw["default"]["seconds"] / ours, 2),
        "encoder_vs_sam_bf16": round(raw["bf16"]["seconds"] / ours, 2),
        "encoder_memory_ratio": round(above["ours"] / above["default"], 3),
        "relative_error": round(raw["error"]["relative_error"], 5),
        "tune_nano_seconds": seconds("tune_nano"),
        "tune_vit_b_seconds": seconds("tune_vit_b"),
        "click_ms": round(1000 * raw["click_nano"]["seconds"], 1),
        "click_vit_b_ms": None if click_b is None else round(1000 * click_b, 1),
        "floor_ratio": round(ours / raw["floor"]["seconds"], 2),
    }


if __name__ == "__main__":
    app()
