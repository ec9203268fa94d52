"""Reads an HDF5 file of Keras in a process of its own, which may not take more than it is given.

Run by `hdf5_process`: the file comes on standard input, what is in it leaves on standard output.
The HDF5 library loops for ever on some damaged files, crashes on others, and unpacks what a filter
holds without an end. Nothing here imports torch.
"""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from effnet_edge.errors import CheckpointError, first_line
from effnet_edge.processes import limit_memory, limit_processor

if TYPE_CHECKING:
    import h5py
    import numpy.typing as npt

    Variables = dict[tuple[str, str], npt.NDArray[np.floating]]

LENGTH_BYTES = 8
"""Before the header, little-endian: its length."""
LARGEST_DESCRIPTION = 8 << 20
"""Bytes; b7's has less than 1 MB."""
# Compressed weights are larger than the file, but never by much: they look like noise.
_MOST_EXPANSION = 4
_SPARE_BYTES = 1 << 30
_FLOAT_BYTES = (2, 4, 8)
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_NORMALIZATION = ("mean", "variance")
# Beside the layers of a model that Keras 3 saved whole.
_OPTIMIZER = "optimizer/"


def main(name: str, seconds: int) -> None:
    """Write a header, JSON, and the variables' bytes; the header has an `error` where there is one.

    Args:
        name: of the file, for the errors.
        seconds: of the processor that reading may take.
    """
    data = sys.stdin.buffer.read()
    try:
        import h5py  # noqa: F401 - before the limits
    except ModuleNotFoundError:
        _send(sys.stdout.buffer, {"error": None})
        return
    limit_processor(seconds)
    limit_memory(_SPARE_BYTES + _MOST_EXPANSION * len(data))
    try:
        variables, description = read_variables(name, data)
    except CheckpointError as error:
        _send(sys.stdout.buffer, {"error": str(error)})
        return
    told = [
        [layer, leaf, values.dtype.str, values.shape] for (layer, leaf), values in variables.items()
    ]
    _send(sys.stdout.buffer, {"description": description, "variables": told})
    for values in variables.values():
        sys.stdout.buffer.write(np.ascontiguousarray(values).data)


def _send(output: BinaryIO, header: dict[str, Any]) -> None:
    content = json.dumps(header).encode()
    output.write(len(content).to_bytes(LENGTH_BYTES, "little") + content)


def read_variables(name: str, data: bytes) -> tuple[Variables, str | None]:
    """The floating-point variables of an HDF5 file by the names of their layer and of their own.

    And the model's own description of its layers, JSON; None where there are but weights.

    Raises:
        CheckpointError: the file is damaged, has no layer names, or two layers of one name.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = file.attrs.get("model_config")
            description = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
            return _variables(name, file, len(data)), (
                description
                if isinstance(description, str) and len(description) <= LARGEST_DESCRIPTION
                else None
            )
    except CheckpointError:
        raise
    except Exception as error:  # h5py lets out whatever the library and NumPy raise
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again ({first_line(error)})"
        ) from error


def _variables(name: str, file: h5py.File, file_bytes: int) -> Variables:
    root = file.get("model_weights", file)
    paths = _dataset_paths(root)
    is_numbered = any(_is_numbered(path) for path in paths)
    variables: Variables = {}
    left = _MOST_EXPANSION * file_bytes
    for path in paths:
        dataset = root[path]
        if is_numbered and path.startswith(_OPTIMIZER):
            continue
        if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in _FLOAT_BYTES:
            continue
        key = _numbered_name(name, dataset) if is_numbered else _legacy_name(path)
        if key in variables:
            raise CheckpointError(
                f"{name} has two layers named {key[0]}: save the EfficientNet alone"
            )
        left -= dataset.nbytes
        if dataset.external or dataset.is_virtual or dataset.nbytes > file_bytes or left < 0:
            raise CheckpointError(
                f"{name} is truncated or damaged: {dataset.name} is not wholly in the file"
            )
        values: npt.NDArray[np.floating] = dataset[()]
        variables[key] = values.astype(values.dtype.newbyteorder("="))
    return variables


def _dataset_paths(group: h5py.Group) -> list[str]:
    """Of all datasets below; links to other places and files are not followed."""
    import h5py

    paths: list[str] = []

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            paths.append(path)

    group.visititems(visit)
    return paths


def _is_numbered(path: str) -> bool:
    """Whether Keras 3 wrote it: `layers/dense/vars/0`, `head/vars/0` of a model's attribute."""
    return path.split("/")[-2:-1] == ["vars"]


def _legacy_name(path: str) -> tuple[str, str]:
    """("stem_conv", "kernel") of `stem_conv/stem_conv/kernel:0`."""
    layer, _, leaf = path.rpartition("/")
    return layer.rpartition("/")[2], re.sub(r":\d+$", "", leaf)


def _numbered_name(name: str, dataset: h5py.Dataset) -> tuple[str, str]:
    """("stem_conv", "kernel") of `layers/conv2d/vars/0`, which has an attribute of that name."""
    group = dataset.parent
    layer = group.attrs.get("name")
    number = dataset.name.rpartition("/")[2]
    if not isinstance(layer, str) or not re.fullmatch(r"[0-9]{1,9}", number):
        raise CheckpointError(
            f"{name} does not name its layers, as older Keras wrote it: load the model in Keras 3 "
            "and save it again"
        )
    if len(group) == 4 and dataset.ndim == 1:
        leaves: tuple[str, ...] = _BATCH_NORM
    elif len(group) == 3:
        leaves = (*_NORMALIZATION, "count")
    else:
        leaves = ("kernel", "bias")
    index = int(number)
    return layer, leaves[index] if index < len(leaves) else number
