"""Text-conditioned diffusion models of the layout of Stable Diffusion 1.x.

A folder as diffusers writes it: ``unet`` with four resolutions that looks at a latent
and at the words of a text, ``text_encoder`` and ``tokenizer`` (CLIP), and ``vae``,
which makes the latent of an image. A model without ``vae`` sees the pixels themselves,
p × p of them at each position. Nothing is generated here: the models are only looked
into (see `napari_medseg.models.attention_maps`).

Rombach et al., CVPR 2022.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from napari_medseg._types import InputError, MedsegError, WeightsError
from napari_medseg.models.devices import compute_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

CHANNELS = 3
"""Of an image: red, green and blue."""

LARGEST_CONFIG = 1 << 20
"""Bytes of a config, at most."""

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
}
"""What each part has to be."""


@dataclass(frozen=True, slots=True)
class Diffusion:
    """A diffusion model, to be looked into.

    Attributes
    ----------
    unet, text_encoder, tokenizer : object
        Of diffusers and transformers.
    vae : object or None
        None where the model sees pixels.
    digest : str
        SHA-256 of its files.
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    vae: Any | None = None
    digest: str = ""

    @property
    def grid(self) -> int:
        """Positions along a side of the latent."""
        return int(self.unet.config.sample_size)

    @property
    def patch(self) -> int:
        """Pixels of an image along a side of each position."""
        if self.vae is not None:
            return 1 << (len(self.vae.config.block_out_channels) - 1)
        return math.isqrt(self.unet.config.in_channels // CHANNELS)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        found: torch.device = self.unet.device
        return found

    @property
    def side(self) -> int:
        """Side of the square image that the model looks at, in pixels."""
        return self.grid * self.patch

    @property
    def length(self) -> int:
        """Tokens of a text, those at its beginning and end included."""
        return int(self.text_encoder.config.max_position_embeddings)

    def latent(self, images: Tensor) -> Tensor:
        """Return what the UNet looks at; no noise is added.

        Parameters
        ----------
        images : Tensor
            ``float32 (B, 3, side, side)`` in [0, 1].

        Returns
        -------
        Tensor
            ``(B, C, grid, grid)``: the mean of the VAE times its scaling factor, or
            the pixels.
        """
        scaled = images * 2 - 1
        if self.vae is None:
            return functional.pixel_unshuffle(scaled, self.patch)
        found: Tensor = self.vae.encode(scaled).latent_dist.mode()
        return found * float(self.vae.config.scaling_factor)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, without those at its beginning and end.

        Raises
        ------
        InputError
            The text is longer than the model reads.
        """
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        if len(found) > self.length - 2:
            raise InputError(
                f"The phrase has {len(found)} parts, but the diffusion model reads "
                f"{self.length - 2} at most; use fewer words."
            )
        return found

    def states(self, texts: Sequence[str]) -> Tensor:
        """Return what the text encoder makes of texts.

        Parameters
        ----------
        texts : sequence of str
            They may be empty.

        Returns
        -------
        Tensor
            ``(B, length, width)``: beginning, tokens, and ends up to the length.

        Raises
        ------
        InputError
            A text is longer than the model reads.
        """
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        rows = []
        for text in texts:
            row = [begin, *self.tokens(text)]
            rows.append(row + [end] * (self.length - len(row)))
        device = self.text_encoder.device
        found: Tensor = self.text_encoder(torch.tensor(rows, device=device))[0]
        return found

    def to(self, device: torch.device) -> Diffusion:
        """Move the networks to a device, and return the model itself."""
        for part in (self.unet, self.text_encoder, self.vae):
            if part is not None:
                part.to(device)
        return self


def libraries() -> tuple[Any, Any]:
    """Return the modules diffusers and transformers.

    Raises
    ------
    MedsegError
        They are not installed.
    """
    try:
        diffusers, transformers = (
            import_module(name) for name in ("diffusers", "transformers")
        )
    except ImportError as error:
        raise MedsegError(
            "Segmenting by a phrase needs the packages diffusers and transformers, "
            f"which are not here ({error}). Install them with: pip install "
            '"napari-medseg[text]"'
        ) from error
    # their bars would be drawn over those of the commands
    transformers.utils.logging.disable_progress_bar()
    return diffusers, transformers


def read_diffusion(
    folder: Path, device: torch.device | None = None, digest: str = ""
) -> Diffusion:
    """Read a model from a folder in the layout of diffusers.

    Only safetensors files are read. Weights that are stored in 16 bits are computed
    with in 16 bits, where the device can.

    Parameters
    ----------
    folder : Path
        With ``unet``, ``text_encoder``, ``tokenizer`` and mostly ``vae``.
    device : torch.device, optional
        Where to compute; by default the processor.
    digest : str
        SHA-256 of its files.

    Returns
    -------
    Diffusion
        Ready to look at images.

    Raises
    ------
    WeightsError
        A part is missing, damaged or of another kind.
    MedsegError
        diffusers or transformers is not installed.
    """
    check_layout(folder)
    diffusers, transformers = libraries()
    device = device or torch.device("cpu")
    half = is_half(folder)
    dtype = compute_dtype(device) if half else torch.float32
    unet = _part(folder, "unet", diffusers.UNet2DConditionModel, dtype)
    text = _part(folder, "text_encoder", transformers.CLIPTextModel, dtype)
    vae = None
    if (folder / "vae").is_dir():
        # 16 bits are too few for some images
        vae = _part(folder, "vae", diffusers.AutoencoderKL, torch.float32)
    model = Diffusion(unet, text, _tokenizer(folder, transformers), vae, digest)
    _check_fit(model, folder)
    return model.to(device)


def check_layout(folder: Path) -> None:
    """Refuse a folder that is visibly no diffusion model; no weights are read.

    Raises
    ------
    WeightsError
        A part is missing or is of another kind.
    """
    if not (folder / "unet").is_dir():
        raise WeightsError(
            f"{folder} is no diffusion model: it has no folder unet. Choose the folder "
            "in the layout of diffusers, the one with unet, text_encoder and tokenizer "
            "in it."
        )
    for part, kind in CLASSES.items():
        if part == "vae" and not (folder / part).exists():
            continue
        config = _config(folder / part / "config.json")
        found = config.get("_class_name") or next(
            iter(config.get("architectures") or []), kind
        )
        if found != kind:
            raise WeightsError(
                f"{folder / part} is a {found}, not a {kind}: only models of the "
                "layout of Stable Diffusion 1.x can be used."
            )
        weights_file(folder / part)
    for name in ("vocab.json", "merges.txt"):
        if not (folder / "tokenizer" / name).is_file():
            raise WeightsError(
                f"{folder} is no whole diffusion model: tokenizer/{name} is missing."
            )


def weights_file(part: Path) -> Path:
    """Return the file of weights of a part: the one in full precision, or in 16 bits.

    Raises
    ------
    WeightsError
        There is no safetensors file.
    """
    stem = "model" if part.name == "text_encoder" else "diffusion_pytorch_model"
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (part / name).is_file():
            return part / name
    raise WeightsError(
        f"{part} has no {stem}.safetensors. Files of other formats (.bin, .ckpt) may "
        "hold programs and are not read; look for the safetensors files of the model."
    )


def is_half(folder: Path) -> bool:
    """Tell whether the UNet's weights are stored in 16 bits."""
    from safetensors import SafetensorError, safe_open

    path = weights_file(folder / "unet")
    try:
        with safe_open(path, framework="pt") as file:
            kind = file.get_slice(next(iter(file.keys()))).get_dtype()
    except (SafetensorError, OSError, StopIteration) as error:
        raise _damaged(path, error) from error
    return str(kind) in {"F16", "BF16"}


def _part(folder: Path, name: str, kind: Any, dtype: torch.dtype) -> Any:
    """Read one network, and see that none of its weights is missing."""
    path = weights_file(folder / name)
    half = ".fp16." in path.name
    try:
        network, told = kind.from_pretrained(
            folder / name,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if half else None,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    # the libraries answer damaged files with almost any exception there is
    except Exception as error:
        raise _damaged(path, error) from error
    missing = sorted(told["missing_keys"])
    if missing or told["mismatched_keys"]:
        which = missing[0] if missing else sorted(told["mismatched_keys"])[0]
        raise WeightsError(
            f"{path} is not whole, or does not fit its config.json: {which} is missing "
            "or of another shape."
        )
    return network.eval().requires_grad_(False)


def _tokenizer(folder: Path, transformers: Any) -> Any:
    try:
        return transformers.CLIPTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
    # as above
    except Exception as error:
        raise _damaged(folder / "tokenizer", error) from error


def _check_fit(model: Diffusion, folder: Path) -> None:
    """Refuse parts that do not belong together."""
    told, words = model.unet.config, model.text_encoder.config
    latent = model.vae.config.latent_channels if model.vae is not None else None
    pixels = CHANNELS * model.patch**2
    wanted = pixels if latent is None else latent
    size = told.sample_size
    if not isinstance(size, int) or told.in_channels != wanted:
        raise WeightsError(
            f"The UNet in {folder} takes {told.in_channels} channels, which do not "
            "come from its vae, nor are they pixels. Models that are told more than "
            "an image (inpainting, editing) cannot be used."
        )
    if told.cross_attention_dim != words.hidden_size:
        raise WeightsError(
            f"The UNet and the text encoder in {folder} do not belong together: one "
            f"takes {told.cross_attention_dim} numbers a word, the other gives "
            f"{words.hidden_size}."
        )
    known = len(model.tokenizer)
    if known > words.vocab_size:
        raise WeightsError(
            f"The tokenizer in {folder} has {known} parts of words, but the text "
            f"encoder knows {words.vocab_size}: they do not belong together."
        )


def _config(path: Path) -> dict[str, Any]:
    """Read a config, which is JSON of no great length."""
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise WeightsError(f"{path} is too large for a config; it is damaged.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing: the model is not whole.") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is damaged: it holds no settings.")
    return found


def _damaged(path: Path, error: BaseException) -> WeightsError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WeightsError(
        f"{path} is damaged or of another kind ({lines[0][:200].rstrip('.')}). "
        "Download or copy it again."
    )
