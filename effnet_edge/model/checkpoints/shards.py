"""Checkpoints that were split into several files, which are told and not read."""

from __future__ import annotations

import re

from effnet_edge.errors import CheckpointError

_SHARD = re.compile(r".*-\d{5}-of-(?P<files>\d{5})\.(safetensors|bin|pt|pth)", re.IGNORECASE)
_LARGEST_INDEX = 16 << 20
_IN_ONE_FILE = 'save it in one: model.save_pretrained(FOLDER, max_shard_size="100GB")'


def refuse_shards(name: str, data: bytes) -> None:
    """Tell that a file is one of several, or names them.

    Raises:
        CheckpointError: it is; the text says how to make one file of them.
    """
    shard = _SHARD.fullmatch(name)
    if shard and int(shard["files"]) > 1:
        raise CheckpointError(
            f"{name} is one of {int(shard['files'])} files that a checkpoint was split into: "
            f"{_IN_ONE_FILE}"
        )
    # A safetensors file begins with the length of a header, and has its brace behind it.
    if data[:1] == b"{" and data[8:9] != b"{" and b'"weight_map"' in data[:_LARGEST_INDEX]:
        raise CheckpointError(
            f"{name} has no tensors, and names the files that a checkpoint was split into: "
            f"{_IN_ONE_FILE}"
        )
