"""Train a small diffusion model that reads captions, to try the phrase route offline.

    python benchmarks/train_diffusion.py --data DIR --run DIR --minutes 60
    python benchmarks/train_diffusion.py --data DIR --run DIR --quick

Pixels, no VAE: 128 × 128 of them, 4 × 4 at each of 32 × 32 positions, a UNet with the
four resolutions of Stable Diffusion and a CLIP text encoder of two layers, both from a
random start. The images are those of the three sets that may be redistributed, without
the ones that the benchmarks test on; captions say the set, and the class where the mask
has it in the window. Minutes are those of the processor, on one thread, so that a busy
machine gives the same model, only later. It goes on from ``DIR/checkpoint.pt`` where it
was stopped (by Ctrl-C, say: up to five minutes are lost), and ``DIR/model`` is the
model so far, in the layout of diffusers: `napari-medseg models import DIR/model`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.diffusion import libraries
from napari_medseg.training.pack import is_held_out

SIDE, PATCH, GRID, LENGTH, WIDTH = 128, 4, 32, 16, 96
"""Pixels, pixels a position, positions; tokens of a caption, numbers a token."""

HELD_OUT = {
    "dsb2018_nuclei": 0.25,
    "usiigaci_phase_contrast": 0.5,
    "bubil_multiannotator": 0.25,
}
"""The sets that may be redistributed, and the share that the benchmarks test on."""

SHARES = {"fluo": 0.3, "histo": 0.3, "bf": 0.05, "phase": 0.15, "single": 0.2}
"""How often each kind of image comes."""

WITH, WITHOUT = 0.03, 0.002
"""Of a window, the share of objects from which they are named, and up to which not."""

CAPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fluo": (
        (
            "bright nuclei on a dark background",
            "fluorescence nuclei",
            "nuclei in fluorescence microscopy",
            "cell nuclei, fluorescence, dark background",
        ),
        ("dark background", "fluorescence microscopy, dark background"),
    ),
    "histo": (
        (
            "purple nuclei in pink tissue",
            "histology nuclei",
            "stained nuclei in tissue",
            "cell nuclei, histology, tissue background",
        ),
        ("pink tissue background", "stained tissue, histology"),
    ),
    "bf": (
        ("dark nuclei on a bright background", "bright field nuclei"),
        ("bright background", "bright field, empty background"),
    ),
    "phase": (
        (
            "phase contrast cells on a grey background",
            "many cells in phase contrast microscopy",
            "crowded cells, phase contrast",
        ),
        ("grey background", "phase contrast, empty background"),
    ),
    "single": (
        (
            "a single cell in phase contrast",
            "one cell on a grey background",
            "phase contrast cell",
        ),
        ("grey background", "phase contrast, empty background"),
    ),
}
"""By kind of image: captions of windows with objects, and without."""

WORDS = ("wound", "infected", "ulcer", "skin", "red", "foot", "lungs", "worm")
"""Words that the vocabulary has besides, though no image shows them."""

BATCH, PEAK, WARM, EMA, DROPPED = 8, 4e-4, 200, 0.998, 0.1
"""Windows a step, learning rate, steps to it, averaging, share without caption."""

SAVED = 300.0
"""Seconds between two checkpoints."""

UNET = {
    "sample_size": GRID,
    "in_channels": 3 * PATCH**2,
    "out_channels": 3 * PATCH**2,
    "block_out_channels": (48, 64, 96, 128),
    "layers_per_block": 1,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,  # in this class of diffusers: the number of heads
    "norm_num_groups": 16,
}
"""Of `UNet2DConditionModel`: five million numbers."""

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
"""As Stable Diffusion's."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


class Picture(NamedTuple):
    """A training image: its kind, ``uint8 (3, Y, X)`` and where objects are."""

    kind: str
    pixels: NDArray[np.uint8]
    objects: NDArray[np.bool_]


def kind_of(folder: str, stem: str) -> str:
    """Return the kind of an image by its set and name."""
    if folder == "dsb2018_nuclei":
        return stem.split("_")[0]
    return "phase" if folder == "usiigaci_phase_contrast" else "single"


def pictures(data: Path, most: int | None = None) -> list[Picture]:
    """Read the training images; of each set so many at most."""
    found = []
    for folder, share in HELD_OUT.items():
        paths = sorted((data / folder / "images").iterdir())
        paths = [path for path in paths if not is_held_out(path.stem, share)]
        if most is not None:
            paths = paths[:: max(1, len(paths) // most)]
        for path in paths:
            file = read_image(path)
            image = file.plane()
            usual = Normalisation.for_channels(len(image), rgb=len(image) == 3)
            pixels = (normalise(image, usual) * 255).round().astype(np.uint8)
            mask = next((path.parent.parent / "masks").glob(f"{path.stem}.*"))
            objects = read_annotation(mask).labels > 0
            found.append(Picture(kind_of(folder, path.stem), pixels, objects))
    return found


def window(
    picture: Picture, rng: np.random.Generator
) -> tuple[NDArray[np.float32], str]:
    """Cut a window ``(3, SIDE, SIDE)`` in [0, 1], and say what is in it."""
    height, width = picture.objects.shape
    longest = min(height, width)
    side = min(longest, int(np.exp(rng.uniform(np.log(80), np.log(420)))))
    top = int(rng.integers(0, height - side + 1))
    left = int(rng.integers(0, width - side + 1))
    place = slice(top, top + side), slice(left, left + side)
    pixels = torch.from_numpy(picture.pixels[:, *place].copy())[None].float() / 255
    size = (SIDE, SIDE)
    scaled = functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    turned = np.rot90(scaled.numpy(), int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        turned = turned[:, :, ::-1]
    share = float(picture.objects[place].mean())
    present, absent = CAPTIONS[picture.kind]
    if share > WITH:
        told = present
    elif share <= WITHOUT:
        told = absent
    else:
        told = ("",)  # hardly to be seen: better nothing than something wrong
    text = told[int(rng.integers(len(told)))]
    return np.ascontiguousarray(turned, np.float32), text


def batch(
    by_kind: dict[str, list[Picture]], rng: np.random.Generator
) -> tuple[Tensor, list[str]]:
    """Draw windows ``(BATCH, 3, SIDE, SIDE)`` with their captions."""
    kinds = [kind for kind in SHARES if by_kind.get(kind)]
    shares = np.array([SHARES[kind] for kind in kinds])
    images, texts = [], []
    for _ in range(BATCH):
        kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
        pictures = by_kind[kind]
        image, text = window(pictures[int(rng.integers(len(pictures)))], rng)
        images.append(image)
        texts.append("" if rng.random() < DROPPED else text)
    return torch.from_numpy(np.stack(images)), texts


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Write CLIP's kind of vocabulary: letters, and every word of the captions."""
    told = [text for pair in CAPTIONS.values() for texts in pair for text in texts]
    words = sorted({word for text in told for word in text.replace(",", "").split()})
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = dict.fromkeys([*letters, *(letter + "</w>" for letter in letters)])
    merges = []
    for word in sorted({*words, *WORDS}):
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for part in rest:
            if left + part not in vocabulary:
                merges.append(f"{left} {part}")
                vocabulary[left + part] = None
            left += part
    vocabulary |= dict.fromkeys(("<|startoftext|>", "<|endoftext|>"))
    numbers = {part: number for number, part in enumerate(vocabulary)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    head = "#version: 0.2\n"
    (folder / "merges.txt").write_text(
        head + "\n".join(merges) + "\n", encoding="utf-8"
    )
    return numbers


@dataclass
class Parts:
    """What is trained, and what reads captions."""

    unet: nn.Module
    text: nn.Module
    tokenizer: Any

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights of both networks, in one order."""
        return [*self.unet.parameters(), *self.text.parameters()]

    def states(self, texts: list[str]) -> Tensor:
        """Return what the text encoder makes of captions."""
        told = self.tokenizer(
            texts, padding="max_length", max_length=LENGTH, truncation=True
        )
        found: Tensor = self.text(torch.tensor(told.input_ids))[0]
        return found


def build(folder: Path) -> Parts:
    """Make both networks from a random start; the vocabulary goes into a folder."""
    diffusers, transformers = libraries()
    numbers = write_tokenizer(folder / "tokenizer")
    end = numbers["<|endoftext|>"]
    config = transformers.CLIPTextConfig(
        vocab_size=len(numbers),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=numbers["<|startoftext|>"],
        eos_token_id=end,
        pad_token_id=end,
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    unet = diffusers.UNet2DConditionModel(**UNET)
    return Parts(unet, transformers.CLIPTextModel(config), tokenizer)


def loss_of(
    parts: Parts, images: Tensor, texts: list[str], steps: Tensor, noise: Tensor
) -> Tensor:
    """Return how far the guessed noise is from the noise that was added."""
    clean = functional.pixel_unshuffle(images * 2 - 1, PATCH)
    kept = kept_share()[steps].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    with torch.autocast("cpu", torch.bfloat16):
        guess = parts.unet(noisy, steps, parts.states(texts)).sample
    return functional.mse_loss(guess.float(), noise)


def kept_share() -> Tensor:
    """Return what is left of an image after each step of noise, as a variance."""
    roots = torch.linspace(
        NOISE["beta_start"] ** 0.5, NOISE["beta_end"] ** 0.5, 1000, dtype=torch.float64
    )
    return torch.cumprod(1 - roots**2, 0).float()


def saved(
    parts: Parts, means: list[Tensor], folder: Path, facts: dict[str, Any]
) -> None:
    """Write the averaged weights in the layout of diffusers."""
    own = [each.detach().clone() for each in parts.parameters()]
    with torch.no_grad():
        for each, mean in zip(parts.parameters(), means, strict=True):
            each.copy_(mean)
        parts.unet.save_pretrained(folder / "unet")
        parts.text.save_pretrained(folder / "text_encoder")
        for each, kept in zip(parts.parameters(), own, strict=True):
            each.copy_(kept)
    (folder / "scheduler").mkdir(exist_ok=True)
    noise = {"_class_name": "DDPMScheduler", **NOISE}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    run: Annotated[Path, typer.Option(help="Folder of checkpoint and model.")],
    minutes: Annotated[float, typer.Option(help="Of the processor, of all runs.")] = 60,
    quick: Annotated[bool, typer.Option(help="A few images and steps.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights and draws.")] = 0,
) -> None:
    """Train, or go on with it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    parts = build(run / "model")
    weights = parts.parameters()
    means = [each.detach().clone() for each in weights]
    optimiser = torch.optim.AdamW(weights, lr=PEAK, weight_decay=1e-2)
    step, spent = 0, 0.0
    file = run / "checkpoint.pt"
    if file.exists():
        state = torch.load(file, weights_only=True)
        for each, kept in zip(weights, state["weights"], strict=True):
            each.data.copy_(kept)
        means, step, spent = state["means"], state["step"], state["seconds"]
        optimiser.load_state_dict(state["optimiser"])
    images = pictures(data, 4 if quick else None)
    by_kind = {kind: [p for p in images if p.kind == kind] for kind in SHARES}
    last = 6 if quick else None
    began, noted = time.process_time() - spent, time.process_time()
    losses: list[float] = []
    while spent < 60 * minutes and step != last:
        left = 1 - spent / (60 * minutes)
        for group in optimiser.param_groups:
            group["lr"] = PEAK * min(1, (step + 1) / WARM, max(0.05, left / 0.3))
        losses.append(one_step(parts, optimiser, by_kind, seed, step))
        step += 1
        torch._foreach_lerp_(
            means, [w.detach() for w in weights], 1 - min(EMA, step / (step + 9))
        )
        spent = time.process_time() - began
        told = {
            "steps": step,
            "minutes": round(spent / 60, 1),
            "parameters": sum(each.numel() for each in weights),
            "images": {kind: len(each) for kind, each in by_kind.items()},
            "loss": round(float(np.mean(losses[-200:])), 4),
            "seed": seed,
        }
        ended = spent >= 60 * minutes or step == last
        if ended or time.process_time() - noted > SAVED:
            noted = time.process_time()
            keep(file, weights, means, optimiser, step, spent)
            saved(parts, means, run / "model", told)
        if ended or step % 100 == 0:
            print(json.dumps(told), flush=True)


def one_step(
    parts: Parts,
    optimiser: torch.optim.Optimizer,
    by_kind: dict[str, list[Picture]],
    seed: int,
    step: int,
) -> float:
    """Do a step, and return its loss."""
    # each step has its own draw, so that going on is as never having stopped
    rng = np.random.default_rng((seed, step))
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    drawn, texts = batch(by_kind, rng)
    steps = torch.randint(0, 1000, (BATCH,), generator=generator)
    noise = torch.randn((BATCH, UNET["in_channels"], GRID, GRID), generator=generator)
    loss = loss_of(parts, drawn, texts, steps, noise)
    loss.backward()
    nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.item()


def keep(
    file: Path,
    weights: list[nn.Parameter],
    means: list[Tensor],
    optimiser: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    """Write the checkpoint, whole or not at all."""
    state = {
        "weights": [each.detach() for each in weights],
        "means": means,
        "optimiser": optimiser.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    with atomic_path(file) as part:
        torch.save(state, part)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    app()
