"""Checkpoint files of every format, told by their content, as tensors by name.

Nothing in a file is executed: pickles are read with `weights_only=True`, the other formats hold
tensors alone.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from effnet_edge.errors import CheckpointError, UsageError, first_line
from effnet_edge.model.checkpoints.keras_files import is_keras, read_keras
from effnet_edge.model.checkpoints.tf_bundle import is_bundle_index
from effnet_edge.model.checkpoints.tf_reference import read_tf_checkpoint

if TYPE_CHECKING:
    import os

    from effnet_edge.model.preprocessing import PixelConventions

# Where training code puts the weights in a checkpoint, the averaged ones first: they are what
# evaluation uses (timm, Lightning, torch.optim.swa_utils).
_WRAPPERS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
)
# Before every name: DistributedDataParallel, Lightning, torch.compile, averaged models.
_PREFIXES = ("module.", "model.", "net.", "backbone.", "_orig_mod.", "ema.")

_INDEX = ".index"
_TF_DATA_FILE = re.compile(r"(?P<name>.+)\.data-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint.

    Attributes:
        tensors: by the name that the code base gave them, with their axes in PyTorch's order.
        sha256: of the file, hexadecimal; of TensorFlow's files one after the other, `.index` first.
        pixels: what the checkpoint itself says of the pictures, if anything.
    """

    tensors: dict[str, Tensor]
    sha256: str
    pixels: PixelConventions | None = None


def find_checkpoint(weights: str | os.PathLike[str]) -> Path | None:
    """The file to read for what a person gave; None where there is none.

    A TensorFlow checkpoint is several files: any of them, their common name or the directory that
    they are in stands for its `.index`.

    Raises:
        UsageError: a directory that does not hold one TensorFlow checkpoint.
    """
    path = Path(weights)
    if path.is_dir():
        found = sorted(path.glob(f"*{_INDEX}"))
        if len(found) != 1:
            raise UsageError(f"--weights {path} is a directory: give the checkpoint file in it")
        return found[0]
    data_file = _TF_DATA_FILE.fullmatch(path.name)
    index = path.with_name(f"{data_file['name'] if data_file else path.name}{_INDEX}")
    if index.is_file() and (data_file or not path.is_file()):
        return index
    return path if path.is_file() else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors of a checkpoint in any of the formats that docs/your-model.md lists.

    Raises:
        CheckpointError: the file cannot be read, is truncated or damaged, or is no checkpoint.
    """
    data = read_file(path)
    if not is_bundle_index(data):
        return parse_checkpoint(path.name, data)
    tensors, files = read_tf_checkpoint(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(read_file(file))
    return Checkpoint(tensors, digest.hexdigest())


def parse_checkpoint(name: str, data: bytes) -> Checkpoint:
    """Of a format that is one file, from its bytes; `name` is for the errors."""
    if not data:
        raise CheckpointError(f"{name} is empty: copy the checkpoint again")
    sha256 = hashlib.sha256(data).hexdigest()
    if is_keras(data):
        tensors, pixels = read_keras(name, data)
        return Checkpoint(tensors, sha256, pixels)
    return Checkpoint(_pytorch_tensors(name, data), sha256)


def read_file(path: Path) -> bytes:
    """The file's content; raises `CheckpointError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _pytorch_tensors(name: str, data: bytes) -> dict[str, Tensor]:
    """Of a PyTorch or safetensors file, without what training code wraps around them."""
    is_pickled = data.startswith((b"PK", b"\x80")) and not _is_safetensors(data)
    state = _unwrapped(_read_pickled(name, data) if is_pickled else _read_safetensors(name, data))
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(
            f"{name} is not a state dict (tensors by name): save model.state_dict() instead"
        )
    return _without_prefixes(dict(state))


def _unwrapped(state: object) -> object:
    """What training code saved the weights in, taken off."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    return state


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what all of them begin with; an averaged model's counter is dropped."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            return _without_prefixes(bare)
    return state


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


def _read_pickled(name: str, data: bytes) -> object:
    try:
        state: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name} holds Python objects, which are never executed here: "
            "save its state_dict() alone, or convert it to safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again ({first_line(error)})"
        ) from error
    return state
