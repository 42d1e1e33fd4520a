"""The settings of low-rank changes; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting


@dataclass(frozen=True)
class AdapterConfig:
    """How the attention of a transformer is changed by a few numbers."""

    adapter: str = setting(
        "lora",
        "How the attention is changed: by LoRA, or by DoRA, which learns lengths, too.",
        choices=("lora", "dora"),
    )
    rank: int = setting(
        8, "Rank of these changes: more is more numbers, and freedom.", ge=1, le=64
    )
    alpha: int = setting(
        16, "The changes are multiplied by this, divided by the rank.", ge=1, le=1024
    )
    adapter_dropout: float = setting(
        0.1, "Share of their inputs that is left out in training.", ge=0.0, le=0.9
    )

    def __post_init__(self) -> None:
        check(self)
