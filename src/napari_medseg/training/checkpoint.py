"""Where a training is, in memory and in a file: what it takes to go on from there.

A file is tensors in groups, and a note in JSON; nothing in it is ever executed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Size, Tensor, nn


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        Each by the name of its group and its own, joined by a dot.
    note : dict
        What else is to be kept, as JSON can hold it.
    """

    tensors: Mapping[str, Tensor]
    note: dict[str, Any]

    @classmethod
    def of(
        cls, groups: Mapping[str, Mapping[str, Tensor]], note: dict[str, Any]
    ) -> Checkpoint:
        """Return a checkpoint of groups of tensors."""
        tensors = {
            f"{group}.{name}": item
            for group, items in groups.items()
            for name, item in items.items()
        }
        return cls(tensors, note)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file.

        Parameters
        ----------
        path : Path
            The file.

        Raises
        ------
        InputError
            It is no checkpoint.
        """
        try:
            with safe_open(path, framework="pt") as file:
                note = json.loads((file.metadata() or {})["run"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise no_checkpoint(path) from error
        return cls(tensors, note)

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        with atomic_path(path) as temporary:
            packed = {
                key: item.detach().cpu().contiguous()
                for key, item in self.tensors.items()
            }
            save_file(packed, temporary, {"run": json.dumps(self.note)})

    def group(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a group by their own names."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }


def no_checkpoint(path: Path) -> InputError:
    """Return the refusal of a file that is no checkpoint, or a damaged one."""
    return InputError(
        f"{path} is not a checkpoint of a training and cannot be resumed. "
        "Delete it to start again."
    )


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: trained parameters, and buffers."""
    # a layer that stands in two places has two names
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, item in parameters if not item.requires_grad}
    return {
        name: item for name, item in model.state_dict().items() if name not in frozen
    }


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy what training changes."""
    return {name: item.detach().cpu().clone() for name, item in changing(model).items()}


def load_snapshot(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Put a snapshot back."""
    model.load_state_dict(kept, strict=False)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    """Return the shapes of tensors, to tell one model from another."""
    return {name: item.shape for name, item in tensors.items()}
