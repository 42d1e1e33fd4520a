"""Reading SAM checkpoints safely, and telling which SAM they hold.

A checkpoint is an official file, one fine-tuned in the same format (MedSAM, a
state dict exported from micro-sam, a user's own), or the bundled one. Nothing in a
checkpoint is ever executed: ``.pth`` files go through ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from napari_medseg._types import WeightsError
from napari_medseg.models.sam import build_sam

if TYPE_CHECKING:
    import os

SamKind = Literal["vit_b", "vit_l", "vit_h", "nano"]
"""The SAMs that a checkpoint can hold."""

State = dict[str, torch.Tensor]

_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")

_PREFIXES = ("sam.", "module.")

_WRAPPERS = ("model_state", "state_dict", "model")

_VIT: Mapping[tuple[int, int], SamKind] = {
    (768, 12): "vit_b",
    (1024, 24): "vit_l",
    (1280, 32): "vit_h",
}

_OTHERS = (
    ("image_encoder.trunk.", "SAM 2"),
    ("sam_mask_decoder.", "SAM 2"),
    ("memory_encoder.", "SAM 2"),
    ("vision_encoder.", "SAM in the format of Hugging Face's transformers"),
    ("image_encoder.patch_embed.seq.", "MobileSAM (a ViT-Tiny)"),
)

_NEEDED = "the official checkpoints of Segment Anything (ViT-B, ViT-L, ViT-H)"

_UNSAFE_SIGNS = ("nsupported global", "nsupported GLOBAL", "nsupported class")
"""How torch's reader words that a file asks for code, in its several versions."""

_CHUNK = 1 << 24


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the weights of a SAM from a checkpoint, without running its code.

    Prefixes (``sam.``, ``module.``) and wrappers (``model_state``, ``state_dict``,
    ``model``) are taken off, and whatever lies beside SAM in the file is left out.

    Parameters
    ----------
    path : path-like
        A ``.pth``, ``.pt`` or ``.safetensors`` file.

    Returns
    -------
    dict of str to Tensor
        The weights on the CPU under SAM's own names. Tensors of a ``.pth`` may be
        mapped from the file, so that they take memory only when used.

    Raises
    ------
    WeightsError
        The file is missing, damaged, unsafe or not a checkpoint of SAM; the
        message says which.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix.lower() == ".safetensors":
        payload: object = _read_safetensors(path)
    else:
        payload = _read_torch(path)
    state = _sam_part(_tensors(payload, path), path)
    kind = _kind(state, path)
    _check_names(state, kind, path)
    return state


def sam_kind(state: Mapping[str, torch.Tensor]) -> SamKind:
    """Tell from names and shapes which SAM a state dict belongs to.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights under SAM's own names.

    Returns
    -------
    str
        ``vit_b``, ``vit_l``, ``vit_h`` or ``nano``.

    Raises
    ------
    WeightsError
        The weights are those of another network.
    """
    return _kind(state, None)


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights, whatever file they came from.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights under their names.

    Returns
    -------
    str
        SHA-256 over the sorted names, data types, shapes and bytes; the same for
        a ``.pth`` and a ``.safetensors`` file of the same weights.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        head = json.dumps([name, dtype, list(tensor.shape)], separators=(",", ":"))
        digest.update(head.encode() + b"\n")
        raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, raw.nbytes, _CHUNK):
            digest.update(raw[start : start + _CHUNK])
    return digest.hexdigest()


def _check_file(path: Path) -> None:
    """Refuse what is visibly not a checkpoint before any parser sees it."""
    if path.suffix.lower() not in {".pth", ".pt", ".safetensors"}:
        raise WeightsError(
            f"{path} is not a checkpoint that can be read: its name must end in "
            ".pth, .pt or .safetensors."
        )
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if not start:
        raise WeightsError(f"{path} is empty (0 bytes); download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is only a Git LFS pointer, not the checkpoint itself; fetch "
            "the file that it points to."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint: the download was answered by "
            "a page. Download it again."
        )


def _read_safetensors(path: Path) -> State:
    """Return the tensors of a safetensors file."""
    try:
        state: State = load_file(path, device="cpu")
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return state


def _read_torch(path: Path) -> object:
    """Return what a ``.pth`` file holds, mapped from disk where that is possible."""
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # torch's readers answer damaged bytes with almost any exception there is
    except Exception as error:
        if any(sign in str(error) for sign in _UNSAFE_SIGNS):
            raise WeightsError(
                f"{path} holds Python code (pickled objects) beside its weights and "
                "is refused as unsafe. If it comes from a training you trust, save "
                "only the model's state dict, with torch.save or as .safetensors."
            ) from error
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuse zip files that torch did not write as a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript program, not a checkpoint; a state dict of "
            f"{_NEEDED} is needed."
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise WeightsError(
            f"{path} is a zip archive, not a checkpoint; unpack it and choose the "
            ".pth file inside."
        )
    # torch stores without compression; a compressed entry can unpack to any size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(
            f"{path} was compressed after it was saved and is refused as unsafe; "
            "use the checkpoint as it was published."
        )


def _tensors(payload: object, path: Path) -> dict[str, Any]:
    """Return the dict of weights inside the wrappers that trainings put around it."""
    for _ in range(len(_WRAPPERS) + 1):
        if not isinstance(payload, Mapping):
            break
        inner = next(
            (
                payload[name]
                for name in _WRAPPERS
                if isinstance(payload.get(name), Mapping)
            ),
            None,
        )
        if inner is None:
            return {name: value for name, value in payload.items() if _is_str(name)}
        payload = inner
    raise WeightsError(
        f"{path} is not a checkpoint: it holds a {type(payload).__name__} in place "
        "of named weights."
    )


def _is_str(name: object) -> bool:
    """Tell whether a key is text; optimisers number theirs."""
    return isinstance(name, str)


def _sam_part(found: Mapping[str, Any], path: Path) -> State:
    """Return the weights of SAM under its own names, without what lies beside."""
    state: State = {}
    foreign = []
    for key, value in found.items():
        name = key
        while name.startswith(_PREFIXES):
            name = name.split(".", 1)[1]
        if not name.startswith(_PARTS):
            foreign.append(name)
            continue
        if name in state:
            raise WeightsError(
                f"{path} holds {name} twice, under different prefixes, so that it is "
                "not clear which weights are meant."
            )
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise WeightsError(f"{path}: {name} is not an array of numbers.")
        state[name] = value
    other = _other_network([*state, *foreign])
    if other is not None:
        raise WeightsError(
            f"{path} is a checkpoint of {other}, another network; {_NEEDED} and "
            "models fine-tuned from them can be used."
        )
    if not state:
        first = f" (its first entry is {foreign[0]!r})" if foreign else ""
        raise WeightsError(
            f"{path} is a checkpoint of another network{first}; {_NEEDED} and "
            "models fine-tuned from them can be used."
        )
    return state


def _other_network(names: list[str]) -> str | None:
    """Name the well-known relative of SAM that the names give away, if any."""
    for start, title in _OTHERS:
        if any(name.startswith(start) for name in names):
            return title
    return None


def _kind(state: Mapping[str, torch.Tensor], path: Path | None) -> SamKind:
    """Tell which SAM the weights belong to; ``path`` is named in the refusal."""
    where = str(path) if path is not None else "This checkpoint"
    if any(name.startswith("image_encoder.stem") for name in state):
        return "nano"
    patches = state.get("image_encoder.patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        raise WeightsError(
            f"{where} is not a checkpoint of SAM: image_encoder.patch_embed.proj."
            f"weight is missing or of another shape. Use {_NEEDED}."
        )
    start = "image_encoder.blocks."
    blocks = {
        name.removeprefix(start).split(".", 1)[0]
        for name in state
        if name.startswith(start)
    }
    kind = _VIT.get((patches.shape[0], len(blocks)))
    if kind is None:
        raise WeightsError(
            f"{where} is not a checkpoint of SAM: its image encoder has "
            f"{len(blocks)} blocks of width {patches.shape[0]}. Use {_NEEDED}."
        )
    return kind


def _check_names(state: State, kind: SamKind, path: Path) -> None:
    """Refuse weights that lack a name, have another shape or have more parts."""
    expected = _expected(kind)
    for name, wanted in expected.items():
        if name not in state:
            raise WeightsError(
                f"{path} is not a whole checkpoint of SAM {kind}: {name} is missing."
            )
        found = state[name]
        fits = found.is_floating_point() == wanted.is_floating_point()
        if found.shape != wanted.shape or not fits:
            raise WeightsError(
                f"{path} does not fit SAM {kind}: {name} is {_shape_text(found)}, not "
                f"{_shape_text(wanted)}; it may have been trained for images of "
                "another size."
            )
    extra = [name for name in state if name not in expected]
    if extra:
        raise WeightsError(
            f"{path} is a changed SAM {kind}: {extra[0]!r} is not part of SAM (an "
            "adapter or another decoder). Merge it into SAM's own weights first."
        )


def _expected(kind: SamKind) -> State:
    """Return SAM's own weights as names, shapes and types without any numbers."""
    # on the meta device a network takes no memory and no time
    with torch.device("meta"):
        return dict(build_sam(kind).state_dict())


def _shape_text(tensor: torch.Tensor) -> str:
    """Return a tensor's shape and type in words, such as ``768×3 float32``."""
    size = "×".join(map(str, tensor.shape)) or "one"
    return f"{size} {str(tensor.dtype).removeprefix('torch.')}"


def _damaged(path: Path, error: Exception) -> WeightsError:
    """Return the refusal of a file that its reader could not make sense of."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0][:200].rstrip(".")
    return WeightsError(
        f"{path} is damaged or not a checkpoint ({reason}). Download or copy it again."
    )
