"""A checkpoint that was found, and what its place tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.model.checkpoints.files import Checkpoint
    from effnet_edge.model.preprocessing import PixelConventions
    from effnet_edge.model.variants import Padding


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint, and what is known of it from elsewhere than its tensors.

    Attributes:
        name: the registry name ("imagenet"), the repository on the hub, or the file's name.
        source: provenance in words, the URL, the address on the hub with its commit, or the file's
            path.
        licence: SPDX identifier, or None where nothing tells.
        padding, pixels: as the registry has them of a download.
        path: of a file that may have a timm `config.json` beside it.
        part: what comes before the names of the network's tensors, where somebody says so.
    """

    name: str
    source: str
    checkpoint: Checkpoint
    licence: str | None = None
    padding: Padding | None = None
    pixels: PixelConventions | None = None
    path: Path | None = None
    part: str | None = None
