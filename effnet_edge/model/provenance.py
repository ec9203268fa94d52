"""Where a network's weights come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """Where the weights came from; `sha256` is that of the checkpoint file."""

    name: str
    source: str
    sha256: str
    licence: str | None
