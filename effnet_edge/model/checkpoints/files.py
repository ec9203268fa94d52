"""Checkpoint files of every format, told by their content, as tensors by name.

Nothing in a file is executed: pickles are read as data, the other formats hold tensors alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from effnet_edge.errors import CheckpointError, first_line
from effnet_edge.model.checkpoints.entries import entry_of
from effnet_edge.model.checkpoints.keras_files import is_keras, read_keras
from effnet_edge.model.checkpoints.keras_sizes import UNSTATED, StatedSizes
from effnet_edge.model.checkpoints.pytorch_file import read_pytorch
from effnet_edge.model.checkpoints.reading import reading
from effnet_edge.model.checkpoints.shards import refuse_shards
from effnet_edge.model.checkpoints.tf_bundle import is_bundle_index
from effnet_edge.model.checkpoints.tf_reference import read_tf_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from effnet_edge.model.checkpoints.entries import Groups
    from effnet_edge.model.checkpoints.output_activation import OutputActivation
    from effnet_edge.model.preprocessing import PixelConventions

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LARGEST_FILE = 8 << 30
"""Bytes; the largest variant, l2, has 2 GB in float32."""


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint.

    Attributes:
        name: of its file, for errors.
        groups: tensors by the name that the code base gave them, with their axes in PyTorch's
            order; a dictionary for each that the file has, by its path of keys joined by dots.
        sha256: of the file, hexadecimal; of TensorFlow's files one after the other, `.index` first.
        pixels: what the checkpoint itself says of the pictures, if anything.
        sizes: what the checkpoint itself says of its input's size and of its paddings.
        strangers: classes and functions of values that were passed over.
        output_activation: what the classifier's numbers go through, where the file tells.
        said: what training code wrote beside the tensors, by its keys.
    """

    name: str
    groups: Groups
    sha256: str
    pixels: PixelConventions | None = None
    strangers: tuple[str, ...] = ()
    sizes: StatedSizes = UNSTATED
    output_activation: OutputActivation | None = None
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their path and name, joined by dots."""
        with reading(self.name):
            return {
                f"{path}.{name}".lstrip("."): entry.load()
                for path, entries in self.groups.items()
                for name, entry in entries.items()
            }


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors of a checkpoint in any of the formats that docs/your-model.md lists.

    Raises:
        CheckpointError: the file cannot be read, is truncated or damaged, or is no checkpoint.
    """
    data = read_file(path)
    if not is_bundle_index(data):
        return parse_checkpoint(path.name, data)
    with reading(path.name):
        tensors, files = read_tf_checkpoint(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(read_file(file))
    return Checkpoint(path.name, _one_group(tensors), digest.hexdigest())


def parse_checkpoint(name: str, data: bytes) -> Checkpoint:
    """Of a format that is one file, from its bytes; `name` is for the errors."""
    if not data:
        raise CheckpointError(f"{name} is empty: copy the checkpoint again")
    if data.startswith(_LFS_POINTER):
        raise CheckpointError(
            f"{name} is what Git LFS has in the place of the checkpoint: git lfs pull fetches it"
        )
    refuse_shards(name, data)
    sha256 = hashlib.sha256(data).hexdigest()
    with reading(name):
        if is_keras(data):
            keras = read_keras(name, data)
            return Checkpoint(
                name,
                _one_group(keras.tensors),
                sha256,
                keras.pixels,
                sizes=keras.sizes,
                output_activation=keras.output_activation,
            )
        if data.startswith((b"PK", b"\x80")) and not _is_safetensors(data):
            file = read_pytorch(name, data)
            return Checkpoint(name, file.groups, sha256, strangers=file.strangers, said=file.said)
        return Checkpoint(name, _one_group(_read_safetensors(name, data)), sha256)


def _one_group(tensors: Mapping[str, Tensor]) -> Groups:
    return {"": {name: entry_of(tensor) for name, tensor in tensors.items()}}


def read_file(path: Path) -> bytes:
    """The file's content; raises `CheckpointError` where it cannot be read."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise CheckpointError(
                f"{path} has {size >> 30} GiB, and {LARGEST_FILE >> 30} are read at most: save the "
                "weights alone, without the optimizer"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _is_safetensors(data: bytes) -> bool:
    """Whether a length of eight bytes and a JSON object of that length begin the file.

    The length's first byte may be that of a pickle (https://github.com/huggingface/safetensors,
    "Format").
    """
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and length <= len(data) - 8


def _read_safetensors(name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"{name} is not a checkpoint that can be read (neither safetensors nor a PyTorch, "
            f"Keras or TensorFlow file), or it is truncated: {first_line(error)}"
        ) from error
