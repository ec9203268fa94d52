"""Keras's weights files read without Keras: `.h5`, `.weights.h5` and `.keras`.

Three layouts hold the variables, https://github.com/keras-team/keras, keras/src/saving:
`legacy_h5_format.py` (`LAYER/…/LAYER/kernel:0`, under `model_weights` in a whole model's file),
`saving_lib.py` (`layers/…/vars/0`, the layer's name in an attribute), and the latter as
`model.weights.h5` in the zip file of a `.keras`.

The HDF5 library loops for ever on some damaged files and crashes on others, and no Python code can
interrupt it. So another process reads the file first, which can be ended.
"""

from __future__ import annotations

import io
import math
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, CheckpointError, first_line
from effnet_edge.extras import install_hint
from effnet_edge.model.checkpoints.keras_config import check_layers
from effnet_edge.model.checkpoints.tensorflow_layout import LEAF_NAMES, to_pytorch
from effnet_edge.model.preprocessing import IMAGENET_STD, PixelConventions

if TYPE_CHECKING:
    import h5py
    import numpy.typing as npt
    from torch import Tensor

    Variables = dict[tuple[str, str], npt.NDArray[np.floating]]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_MEMBER = "model.weights.h5"
_ZIP_DESCRIPTION = "config.json"
_LARGEST_DESCRIPTION = 64 << 20  # bytes; b7's has less than 1 MB
_CLASSIFIER = "predictions"
_FLOAT_BYTES = (2, 4, 8)
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_NORMALIZATION = ("mean", "variance")

_TRIAL = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "import effnet_edge.model.checkpoints.keras_files as k; "
    "k.read_variables('', sys.stdin.buffer.read())"
)
_TRIAL_SECONDS = 60  # a b7 takes three


def is_keras(data: bytes) -> bool:
    """Whether these are the bytes of an HDF5 file or of a `.keras`."""
    if data.startswith(SIGNATURE):
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _ZIP_MEMBER in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read_keras(name: str, data: bytes) -> tuple[dict[str, Tensor], PixelConventions | None]:
    """Tensors in PyTorch's layout, and what the normalization layer does to pixels if there is one.

    `stem_conv/kernel` becomes `stem_conv.weight`. The classifier may have any name where it is the
    only dense layer.

    Raises:
        CheckpointError: the file is truncated or damaged, or has no layer names.
        BackendError: h5py is not installed.
    """
    file = _weights_file(name, data)
    _try_in_another_process(name, file)
    variables = read_variables(name, file)
    description = _description(data, file)
    if description is not None:
        check_layers(name, description)
    pixels = _pixels(variables)
    dense = {layer for (layer, _), values in variables.items() if values.ndim == 2}
    head = dense.pop() if len(dense) == 1 else _CLASSIFIER
    tensors = {}
    for (layer, leaf), values in variables.items():
        if leaf in LEAF_NAMES:
            layer_name = _CLASSIFIER if layer == head else layer
            tensors[f"{layer_name}.{LEAF_NAMES[leaf]}"] = to_pytorch(values)
    return tensors, pixels


def _weights_file(name: str, data: bytes) -> bytes:
    """The HDF5 file itself."""
    if data.startswith(SIGNATURE):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(_ZIP_MEMBER).compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{name} was compressed after Keras wrote it: unpack it and give the "
                    f"{_ZIP_MEMBER} in it"
                )
            return archive.read(_ZIP_MEMBER)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise _damaged(name, error) from error


def _description(data: bytes, file: bytes) -> str | bytes | None:
    """The model's own of its layers, JSON; None where there are but weights."""
    import h5py

    if data is not file:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            named = {each.filename: each.file_size for each in archive.infolist()}
            size = named.get(_ZIP_DESCRIPTION, math.inf)
            return archive.read(_ZIP_DESCRIPTION) if size <= _LARGEST_DESCRIPTION else None
    with h5py.File(io.BytesIO(file), "r") as weights:
        found = weights.attrs.get("model_config")
    return found if isinstance(found, (str, bytes)) else None


def _try_in_another_process(name: str, data: bytes) -> None:
    """Raise `CheckpointError` where reading does not end, or ends the process that does it.

    Any other failure is left to the reading in this process, which can tell it.
    """
    try:
        trial = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL, *_places_of_code()],
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again (the HDF5 library did not come to its "
            f"end in {_TRIAL_SECONDS} s)"
        ) from error
    if trial.returncode < 0:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again (the HDF5 library crashed on it: "
            f"{signal.strsignal(-trial.returncode)})"
        )


def _places_of_code() -> list[str]:
    """Where this process finds its modules, but for the current directory.

    The checkpoint may lie there, and beside it a `numpy.py` that came with it.
    """
    own, here = Path(__file__).parents[3], Path.cwd()
    places = [Path(each) for each in sys.path if Path(each).is_absolute()]
    return [str(each) for each in places if each == own or each != here]


def read_variables(name: str, data: bytes) -> Variables:
    """The floating-point variables of an HDF5 file by the names of their layer and of their own.

    Of a damaged file this may never return, or end the process: see the top.

    Raises:
        CheckpointError, BackendError: as `read_keras`.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{name} is an HDF5 file, and reading it needs h5py: {install_hint('export')}"
        ) from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = file.get("model_weights", file)
            in_layers = "layers" in root
            variables: Variables = {}
            for path in _dataset_paths(root["layers"] if in_layers else root):
                dataset = (root["layers"] if in_layers else root)[path]
                if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in _FLOAT_BYTES:
                    continue
                key = _numbered_name(name, dataset) if in_layers else _legacy_name(path)
                if key in variables:
                    raise CheckpointError(
                        f"{name} has two layers named {key[0]}: save the EfficientNet alone"
                    )
                variables[key] = _values(name, dataset, len(data))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise _damaged(name, error) from error
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


def _legacy_name(path: str) -> tuple[str, str]:
    """("stem_conv", "kernel") of `stem_conv/stem_conv/kernel:0`."""
    layer, _, leaf = path.rpartition("/")
    return layer.rpartition("/")[2], re.sub(r":\d+$", "", leaf)


def _numbered_name(name: str, dataset: h5py.Dataset) -> tuple[str, str]:
    """("stem_conv", "kernel") of `layers/conv2d/vars/0`, which has an attribute of that name."""
    group = dataset.parent
    layer = group.attrs.get("name")
    number = dataset.name.rpartition("/")[2]
    if not isinstance(layer, str) or not number.isdigit():
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


def _values(name: str, dataset: h5py.Dataset, file_bytes: int) -> npt.NDArray[np.floating]:
    """What the file itself holds; never more than it has bytes."""
    if dataset.external or dataset.is_virtual or dataset.nbytes > file_bytes:
        raise CheckpointError(
            f"{name} is truncated or damaged: {dataset.name} is not wholly in the file"
        )
    values: npt.NDArray[np.floating] = dataset[()]
    return values.astype(values.dtype.newbyteorder("="))


def _pixels(variables: Variables) -> PixelConventions | None:
    """What `Rescaling(1 / 255)` and the `Normalization` layer after it do to pixels.

    The layer divides by the root of its variance. The published weights were trained with pixels
    divided by ImageNet's deviation, and have that in the place of the variance: Keras divides by
    its root once more, in a second `Rescaling` (efficientnet.py, and
    https://github.com/tensorflow/tensorflow/issues/49930).
    """
    statistics = {
        leaf: np.asarray(values, np.float64).reshape(-1)
        for (_, leaf), values in variables.items()
        if leaf in _NORMALIZATION
    }
    if len(statistics) != 2:
        return None
    mean, variance = statistics["mean"], statistics["variance"]
    is_published = len(variance) == 3 and np.allclose(variance, IMAGENET_STD, rtol=1e-5)
    std = variance if is_published else np.sqrt(np.maximum(variance, 0))
    return PixelConventions(mean=_floats(mean), std=_floats(std))


def _floats(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    # A float32 of 0.485 is 0.48500001430511475: give what was meant.
    return tuple(float(np.format_float_positional(np.float32(each))) for each in values)


def _damaged(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{name} is truncated or damaged: copy it again ({first_line(error)})")
