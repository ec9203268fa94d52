"""PyTorch's own files, `torch.save`'s zip archives and the stream before version 1.6.

They are read here and not by `torch.load`, which refuses a file for one value of a class that it
does not know, allocates what a file declares, and compares no checksum. Layouts:
https://docs.pytorch.org/docs/stable/notes/serialization.html and torch/serialization.py.
"""

from __future__ import annotations

import io
import math
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from effnet_edge.errors import CheckpointError
from effnet_edge.model.checkpoints.entries import TensorEntry
from effnet_edge.model.checkpoints.nesting import dictionaries
from effnet_edge.model.checkpoints.pickles import Call, Global, PersistentId, Pickle, read_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from effnet_edge.model.checkpoints.entries import Groups

_PICKLE = "data.pkl"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_TENSORS_AT_MOST = 100_000
_PATH_CHARACTERS_AT_MOST = 10_000_000
_SAVE_STATE_DICT = "save model.state_dict() instead"

_STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_PLAIN = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_OF_DTYPE = "torch._utils._rebuild_tensor_v3"
_WRAPPED = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
)
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_FAULTS = {
    "torch._utils._rebuild_sparse_tensor": "is sparse: save it with .to_dense()",
    "torch._utils._rebuild_sparse_csr_tensor": "is sparse: save it with .to_dense()",
    "torch._utils._rebuild_qtensor": "is quantized: give the checkpoint from before quantization",
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "has no values, as it was saved on the meta device: load the weights before saving"
    ),
}
_REBUILDS = "torch._utils._rebuild_"
# What belongs to tensors and dictionaries, and is nothing that was passed over.
_EXPECTED = ("torch.", "collections.", "__builtin__.set", "__builtin__.frozenset")


@dataclass(frozen=True)
class PyTorchFile:
    """What is in it.

    Attributes:
        groups: the dictionaries of tensors by their path of keys, joined by dots; "" is the whole.
        strangers: classes and functions of other values, which were passed over.
        said: what the file's dictionary holds beside tensors.
    """

    groups: Groups
    strangers: tuple[str, ...]
    said: Mapping[str, Any]


class _UnreadableError(Exception):
    """A tensor is of a kind that is not read; the text says of which, and what helps."""


class _Storages(ABC):
    """Where a file keeps the tensors' bytes; several tensors may be views of one storage."""

    def __init__(self) -> None:
        self._loaded: dict[str, Tensor] = {}

    def load(self, key: str, size: int) -> Tensor:
        """A storage that must have so many bytes, uint8 (size,)."""
        if key not in self._loaded:
            data = bytearray(self._read(key, size))
            self._loaded[key] = torch.frombuffer(data, dtype=torch.uint8)
        return self._loaded[key]

    @abstractmethod
    def _read(self, key: str, size: int) -> bytes:
        """Its bytes."""


class _Zip(_Storages):
    """The members `data/KEY` of a zip archive; their CRC-32 is compared."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, file_bytes: int) -> None:
        super().__init__()
        self._archive, self._folder, self._left = archive, folder, file_bytes

    def _read(self, key: str, size: int) -> bytes:
        return self.member(f"data/{key}", size)

    def member(self, name: str, size: int | None = None) -> bytes:
        info = self._archive.getinfo(self._folder + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{self._archive.filename} was compressed after PyTorch wrote it: unpack it, and "
                "zip it again without compression (zip -0)"
            )
        self._left -= info.file_size
        if self._left < 0 or (size is not None and info.file_size != size):
            raise ValueError(f"{info.filename} has an impossible size")
        return self._archive.read(info)


class _Stream(_Storages):
    """One storage after the other, each behind its number of elements."""

    def __init__(self, data: bytes, position: int, sizes: dict[str, int], keys: list[str]) -> None:
        super().__init__()
        self._data = data
        self._places: dict[str, tuple[int, int]] = {}
        for key in keys:
            start = position + 8
            position = start + sizes[key]
            self._places[key] = (start, position)
            if position > len(data):
                raise ValueError(f"it ends before storage {key}")

    def _read(self, key: str, size: int) -> bytes:
        start, end = self._places[key]
        if end - start != size:
            raise ValueError(f"storage {key} has an impossible size")
        return self._data[start:end]


def read_pytorch(name: str, data: bytes) -> PyTorchFile:
    """The tensors of a file by their dictionaries; their values are not read yet.

    Raises:
        CheckpointError: it is something else than a checkpoint. What parsers raise on damaged
            bytes is not caught.
    """
    is_zip = data.startswith(b"PK")
    content, storages = _open_zip(name, data) if is_zip else _open_stream(name, data)
    groups = _groups(name, content.value, storages)
    return PyTorchFile(groups, _strangers(content), _said(content.value))


def _open_zip(name: str, data: bytes) -> tuple[Pickle, _Storages]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    archive.filename = name
    members = archive.namelist()
    _refuse_programs(name, members)
    pickles = [member for member in members if member.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{name} is a zip archive without a PyTorch checkpoint: unpack it, and give the "
            "checkpoint in it"
        )
    folder = pickles[0].removesuffix(_PICKLE)
    storages = _Zip(archive, folder, len(data))
    if f"{folder}byteorder" in members and storages.member("byteorder") != b"little":
        raise CheckpointError(f"{name} was saved on a big-endian machine: convert it there")
    return read_pickle(io.BytesIO(storages.member(_PICKLE))), storages


def _refuse_programs(name: str, members: list[str]) -> None:
    """TorchScript and exported programs are said to be what they are."""
    leaves = {member.rpartition("/")[2] for member in members}
    if "constants.pkl" in leaves or any("/code/" in f"/{member}" for member in members):
        raise CheckpointError(
            f"{name} is a TorchScript program, which is not run here: save its weights with "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if leaves & {"archive_format", "serialized_exported_program.json", "model.json"}:
        raise CheckpointError(
            f"{name} is an exported program (torch.export, .pt2), which is not run here: save its "
            "weights with torch.save(dict(torch.export.load(FILE).state_dict), NEW)"
        )


def _open_stream(name: str, data: bytes) -> tuple[Pickle, _Storages]:
    stream = io.BytesIO(data)
    if read_pickle(stream).value != _LEGACY_MAGIC:
        raise CheckpointError(
            f"{name} is a pickle of Python objects, which are never executed here: "
            "save the weights with torch.save(model.state_dict(), FILE), or as safetensors"
        )
    read_pickle(stream)  # the protocol's version
    system = read_pickle(stream).value
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{name} was saved on a big-endian machine: convert it there")
    content = read_pickle(stream)
    keys: Any = read_pickle(stream).value
    sizes: dict[str, int] = {}
    for identity in content.persistent_ids:
        if isinstance(identity.value, tuple) and identity.value[:1] == ("storage",):
            dtype, key, count = _storage(identity)
            sizes[key] = count * dtype.itemsize
    return content, _Stream(data, stream.tell(), sizes, keys)


def _strangers(content: Pickle) -> tuple[str, ...]:
    return tuple(
        sorted(str(each) for each in content.called if not str(each).startswith(_EXPECTED))
    )


def _said(content: object) -> dict[str, Any]:
    """Its strings and dictionaries by their keys, with an object's attributes for the object."""
    items = content if isinstance(content, dict) else {}
    plain = {key: each.state if isinstance(each, Call) else each for key, each in items.items()}
    return {
        key: each
        for key, each in plain.items()
        if isinstance(key, str) and isinstance(each, (str, dict))
    }


def _groups(name: str, content: object, storages: _Storages) -> Groups:
    groups: Groups = {}
    tensors = characters = 0
    for place, items in dictionaries(content):
        entries = {
            key: entry
            for key, value in items.items()
            if isinstance(key, str) and (entry := _entry(value, storages)) is not None
        }
        tensors += len(entries)
        if tensors > _TENSORS_AT_MOST:
            raise CheckpointError(f"{name} has more than {_TENSORS_AT_MOST} tensors")
        if entries:
            characters += place.length
            if characters > _PATH_CHARACTERS_AT_MOST:
                raise CheckpointError(f"{name} has keys that are too long: {_SAVE_STATE_DICT}")
            groups.setdefault(place.path, {}).update(entries)
    if not groups:
        function = content.function if isinstance(content, Call) else None
        made = f" but a {function}" if function else ""
        raise CheckpointError(
            f"{name} is not a state dict (tensors by name){made}, and Python objects are never "
            f"executed here: {_SAVE_STATE_DICT}"
        )
    return groups


def _entry(node: object, storages: _Storages) -> TensorEntry | None:
    """The tensor that a call would have made; None where it would have made something else."""
    call = _unwrapped(node)
    function = str(call.function) if call else ""
    if call is None or not function.startswith(_REBUILDS):
        return None
    try:
        if function not in {*_PLAIN, _OF_DTYPE}:
            _unreadable(function)
        dtype = getattr(torch, call.arguments[6].name) if function == _OF_DTYPE else None
        identity, offset, shape, stride = call.arguments[:4]
        entry = _stored(storages, identity, offset, shape, stride, dtype)
        return _as_said(entry, call.arguments[7 if function == _OF_DTYPE else 6 :])
    except _UnreadableError as error:
        return TensorEntry((), True, lambda: torch.empty(0), str(error))


def _as_said(entry: TensorEntry, metadata: Sequence[object]) -> TensorEntry:
    """The tensor with what PyTorch keeps beside its numbers: that all of them are negated."""
    said = {key for each in metadata if isinstance(each, dict) for key in each if each[key]}
    if said - {"neg"}:
        told = ", ".join(sorted(str(key) for key in said))
        raise _UnreadableError(f"is a view that PyTorch marks as {told}: save it with .clone()")
    return replace(entry, load=lambda: -entry.load()) if said else entry


def _unwrapped(node: object) -> Call | None:
    """The call that makes the tensor of a parameter or of a subclass's instance."""
    while isinstance(node, Call):
        function = str(node.function)
        if function in _WRAPPED:
            node = node.arguments[0]
        elif function == _OF_TYPE:
            node = Call(node.arguments[0], node.arguments[2])
        else:
            return node
    return None


def _unreadable(function: str) -> NoReturn:
    raise _UnreadableError(
        _FAULTS.get(
            function,
            f"was saved by {function}, which is not read here: save plain tensors of the CPU",
        )
    )


def _storage(identity: PersistentId) -> tuple[torch.dtype, str, int]:
    """The type of its elements, its name in the file, and how many elements it has."""
    value: Any = identity.value
    kind, key, count = value[1], str(value[2]), value[4]
    if not isinstance(kind, Global) or type(count) is not int or count < 0:
        raise ValueError("a storage is no storage")
    if kind.name not in _STORAGE_DTYPES:
        raise CheckpointError(f"a tensor's storage is a {kind}: convert it to float32 first")
    if len(value) > 5 and value[5] is not None:
        raise CheckpointError(
            "it was saved by a PyTorch before 0.4: save it again with a newer one"
        )
    return _STORAGE_DTYPES[kind.name], key, count


def _stored(
    storages: _Storages,
    identity: PersistentId,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: torch.dtype | None = None,
) -> TensorEntry:
    stored, key, count = _storage(identity)
    size = count * stored.itemsize
    dtype = dtype or stored
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or any(type(each) is not int or each < 0 for each in numbers):
        raise ValueError("a tensor has an impossible shape")
    elements, elements_at_most = math.prod(shape), size // dtype.itemsize
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if elements and last >= elements_at_most:
        raise ValueError("a tensor is larger than its storage")
    fault = ""
    if elements > elements_at_most:
        fault = "is an expanded view of fewer numbers: save it with .contiguous()"
    load = partial(_load, storages, key, size, dtype, shape, stride, offset)
    return TensorEntry(tuple(shape), dtype.is_floating_point, load, fault)


def _load(
    storages: _Storages,
    key: str,
    size: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
) -> Tensor:
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    return storages.load(key, size).view(dtype).as_strided(shape, stride, offset)
