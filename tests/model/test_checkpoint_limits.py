"""Small checkpoints that claim gigabytes, or that never end, are refused before they take them."""

from __future__ import annotations

import io
import json
import os
import re
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
from bundle_writer import MAGIC, block, masked_checksum, message, varint, write_bundle

from effnet_edge.errors import CheckpointError
from effnet_edge.model.checkpoints import hdf5_process
from effnet_edge.model.checkpoints.files import parse_checkpoint, read_checkpoint
from effnet_edge.model.checkpoints.tf_bundle import read_bundle
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.checkpoints.transformers_config import read_transformers_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def hdf5_of_one_chunk(chunk: bytes) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        made = file.create_dataset("a/kernel:0", (1000,), "f4", chunks=(1000,), compression="gzip")
        made.id.write_direct_chunk((0,), chunk)
    return buffer.getvalue()


def deflated_gigabytes(gigabytes: int) -> bytes:
    """Zeros, made quickly: one flushed block of 2**24 over and over."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + part * (gigabytes << 6)


def test_what_a_filter_of_hdf5_unpacks_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hdf5_of_one_chunk(deflated_gigabytes(4))
    assert len(data) < 6 << 20
    # Of ru_maxrss the child inherits this process's.
    told = "; open(%r, 'w').write(open('/proc/self/status').read())"
    status = tmp_path / "status"
    monkeypatch.setattr(hdf5_process, "_CHILD", hdf5_process._CHILD + told % str(status))

    with pytest.raises(CheckpointError, match=r"a\.h5 is truncated or damaged"):
        parse_checkpoint("a.h5", data)

    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert 0 < int(peak) < 2 << 20


def test_datasets_of_hdf5_are_never_larger_together_than_the_file_allows() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["filler"] = np.zeros(1 << 18, "u4")
        for number in range(300):
            file.create_dataset(f"layer_{number}/kernel:0", (1 << 17,), "f8")

    with pytest.raises(CheckpointError, match="is not wholly in the file"):
        parse_checkpoint("a.h5", buffer.getvalue())


def test_a_description_that_unpacks_to_much_is_not_read() -> None:
    buffer, weights = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as file:
        made = file.create_group("layers/a/vars")
        made.attrs["name"] = "a"
        made["0"] = np.ones((1, 1, 3, 8), "f4")
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.weights.h5", weights.getvalue())
        layers = json.dumps({"config": {"layers": [{"class_name": "GlobalMaxPooling2D"}]}})
        archive.writestr("config.json", layers + " " * (64 << 20), zipfile.ZIP_DEFLATED)

    assert list(parse_checkpoint("a.keras", buffer.getvalue()).tensors) == ["a.weight"]


def index_of(folder: Path, blocks: bytes, pairs_of_index: list[tuple[bytes, bytes]]) -> Path:
    """A TensorFlow index of these blocks, and its empty data file."""
    table = block(pairs_of_index)
    footer = varint(0) + varint(0) + varint(len(blocks)) + varint(len(table) - 5)
    index = folder / "a.index"
    index.write_bytes(blocks + table + footer.ljust(40, b"\0") + MAGIC)
    (folder / "a.data-00000-of-00001").write_bytes(b"")
    return index


def handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


def one_block_many_times(folder: Path) -> Path:
    entries = block([(b"%05d" % number, b"") for number in range(20_000)])
    return index_of(
        folder, entries, [(b"%05d" % n, handle(0, len(entries) - 5)) for n in range(20_000)]
    )


def names_that_share_a_long_beginning(folder: Path) -> Path:
    pairs = varint(0) + varint(1 << 19) + varint(0) + bytes(1 << 19)
    pairs += b"".join(
        varint((1 << 19) - 2) + varint(2) + varint(0) + n.to_bytes(2, "big") for n in range(60_000)
    )
    pairs += bytes(4) + (1).to_bytes(4, "little")
    entries = pairs + b"\0" + masked_checksum(pairs + b"\0")
    return index_of(folder, entries, [(b"\xff", handle(0, len(pairs)))])


def names_that_are_long_together(folder: Path) -> Path:
    pairs = varint(0) + varint(4000) + varint(0) + bytes(4000)
    pairs += b"".join(
        varint(3997) + varint(3) + varint(0) + n.to_bytes(3, "big") for n in range(300_000)
    )
    pairs += bytes(4) + (1).to_bytes(4, "little")
    entries = pairs + b"\0" + masked_checksum(pairs + b"\0")
    return index_of(folder, entries, [(b"\xff", handle(0, len(pairs)))])


def one_tensor_under_many_names(folder: Path) -> Path:
    content = bytes(1 << 20)
    shape = message((2, message((1, 1 << 18))))
    entry = message((1, 1), (2, shape), (5, len(content))) + varint(6 << 3 | 5)
    entry += masked_checksum(content)
    header = (b"", message((1, 1), (3, message((1, 1)))))
    entries = block([header, *((b"%05d/kernel" % n, entry) for n in range(9999))])
    index = index_of(folder, entries, [(b"\xff", handle(0, len(entries) - 5))])
    index.with_name("a.data-00000-of-00001").write_bytes(content)
    return index


def a_shape_of_very_many_dimensions(folder: Path) -> Path:
    side = message((2, message((1, (1 << 63) - 1))))
    entry = message((1, 1), (2, side * 5000))
    header = (b"", message((1, 1), (3, message((1, 1)))))
    entries = block([header, *((b"%02d/kernel" % n, entry) for n in range(99))])
    return index_of(folder, entries, [(b"\xff", handle(0, len(entries) - 5))])


@pytest.mark.parametrize(
    "make",
    [
        one_block_many_times,
        names_that_share_a_long_beginning,
        names_that_are_long_together,
        one_tensor_under_many_names,
        a_shape_of_very_many_dimensions,
    ],
)
def test_an_index_of_tensorflow_is_read_once_and_no_more(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"a\.index is truncated or damaged"):
        read_checkpoint(make(tmp_path))


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_a_config_that_nobody_named_is_a_small_file(tmp_path: Path, kind: str) -> None:
    config = tmp_path / "config.json"
    if kind == "pipe":
        os.mkfifo(config)
    elif kind == "device":
        config.symlink_to("/dev/zero")
    else:
        with config.open("wb") as file:
            file.truncate(1 << 40)
    assert read_timm_config(tmp_path / "model.pth") is None
    assert read_transformers_config(tmp_path / "model.pth") is None


LONG = "A" * 1_000_000
LEAVES: dict[str, Any] = {"w": torch.ones(1)}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({LONG: [0] * 2000}, "is not a state dict"),
        ({LONG: [{"a": [0]} for _ in range(2000)]}, "is not a state dict"),
        ({LONG: [dict(LEAVES) for _ in range(2000)]}, "has keys that are too long"),
    ],
    ids=["leaves", "dictionaries", "tensors"],
)
def test_the_paths_of_a_pytorch_file_take_no_more_than_the_file(
    tmp_path: Path, content: dict[str, Any], told: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    data = path.read_bytes()

    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=told):
            parse_checkpoint("a.pth", data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_an_honest_index_is_read_still(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "a", {f"{n}/kernel": np.ones(n, "f4") for n in range(1, 99)})
    assert len(read_bundle(index, lambda _: True)[0]) == 98
