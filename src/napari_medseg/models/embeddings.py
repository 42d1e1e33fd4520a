"""Embeddings that were computed once: in memory, then on disk."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.disk_room import make_room

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import Tensor

MEMORY_BYTES = 2 * 1024**3
"""Embeddings kept in memory, at most."""

DISK_BYTES = 4 * 1024**3
"""Embeddings kept on disk, at most; those unused for longest go first."""


def signature(
    inputs: Tensor, weights: str, dtype: torch.dtype, fineness: int = 1
) -> str:
    """Return what an embedding depends on, as a SHA-256.

    Parameters
    ----------
    inputs : Tensor
        ``(3, S, S)``, the window as the encoder takes it: image, size and
        normalisation are all in it.
    weights : str
        SHA-256 of the weights.
    dtype : torch.dtype
        What the encoder computes in.
    fineness : int
        How finely it looks.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    made = f"{weights} {dtype} {tuple(inputs.shape)} {fineness}"
    digest = hashlib.sha256(made.encode())
    digest.update(inputs.contiguous().numpy().tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Embeddings by signature.

    Parameters
    ----------
    folder : Path, optional
        Where to keep them across sessions; None keeps them in memory alone.
    memory_bytes, disk_bytes : int
        Limits; what was not used for longest is dropped.
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self._memory: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return an embedding, computed now if it is not there.

        Parameters
        ----------
        key : str
            From `signature`.
        compute : callable
            Gives the embedding.

        Returns
        -------
        Tensor
            ``(fineness² * 256, h, w)``, on the processor: the one that is kept.
        """
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        embedding = self._from_disk(key)
        if embedding is None:
            embedding = compute().cpu()
            self._to_disk(key, embedding)
        self._remember(key, embedding)
        return embedding

    def _remember(self, key: str, embedding: Tensor) -> None:
        self._memory[key] = embedding
        while sum(item.nbytes for item in self._memory.values()) > self.memory_bytes:
            self._memory.popitem(last=False)

    def _from_disk(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.safetensors"
        try:
            embedding = load_file(path)["embedding"]
            path.touch()
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, OSError):
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return embedding

    def _to_disk(self, key: str, embedding: Tensor) -> None:
        if self.folder is None:
            return
        # a disk that is full or cannot be written only means computing it again
        with suppress(OSError, SafetensorError):
            with atomic_path(self.folder / f"{key}.safetensors") as path:
                save_file({"embedding": embedding.contiguous()}, path)
            make_room(self.folder, "*.safetensors", self.disk_bytes)
