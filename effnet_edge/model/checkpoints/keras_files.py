"""Keras's weights files read without Keras: `.h5`, `.weights.h5` and `.keras`.

Three layouts hold the variables, https://github.com/keras-team/keras, keras/src/saving:
`legacy_h5_format.py` (`LAYER/…/LAYER/kernel:0`, under `model_weights` in a whole model's file),
`saving_lib.py` (`layers/…/vars/0`, the layer's name in an attribute), and the latter as
`model.weights.h5` in the zip file of a `.keras`.

The HDF5 library itself runs in another process: see `hdf5_process`.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import CheckpointError, first_line
from effnet_edge.model.checkpoints.hdf5_child import LARGEST_DESCRIPTION
from effnet_edge.model.checkpoints.hdf5_process import read_hdf5
from effnet_edge.model.checkpoints.keras_config import check_layers
from effnet_edge.model.checkpoints.keras_places import as_meant, read_places
from effnet_edge.model.checkpoints.keras_sizes import UNSTATED, StatedSizes, read_sizes
from effnet_edge.model.checkpoints.tensorflow_layout import LEAF_NAMES, to_pytorch
from effnet_edge.model.preprocessing import IMAGENET_STD, PixelConventions

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_edge.model.checkpoints.hdf5_child import Variables
    from effnet_edge.model.checkpoints.output_activation import OutputActivation

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_MEMBER = "model.weights.h5"
_ZIP_DESCRIPTION = "config.json"
_CLASSIFIER = "predictions"
_NORMALIZATION = ("mean", "variance")


def is_keras(data: bytes) -> bool:
    """Whether these are the bytes of an HDF5 file or of a `.keras`."""
    if data.startswith(SIGNATURE):
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _ZIP_MEMBER in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


@dataclass(frozen=True)
class KerasFile:
    """What is in it.

    Attributes:
        tensors: in PyTorch's layout and with its names of a layer's parameters.
        pixels: what the layers before the network do to pictures, where they are told.
        output_activation: what the classifier's numbers go through, where it is told.
        sizes: what its description says of sizes.
    """

    tensors: dict[str, Tensor]
    pixels: PixelConventions | None
    output_activation: OutputActivation | None = None
    sizes: StatedSizes = UNSTATED


def read_keras(name: str, data: bytes) -> KerasFile:
    """A file of weights, or of a whole model.

    `stem_conv/kernel` becomes `stem_conv.weight`. The classifier may have any name where it is the
    only dense layer.

    Raises:
        CheckpointError: the file is truncated or damaged, has no layer names, or its model computes
            what none here does.
        BackendError: h5py is not installed.
    """
    content = read_hdf5(name, _weights_file(name, data))
    description = content.description if data.startswith(SIGNATURE) else _description(data)
    tensors = _tensors(content.variables)
    if description is not None:
        check_layers(name, description)
        sizes = read_sizes(name, description)
        places = read_places(name, description, content.variables)
        if places is not None:
            return KerasFile(tensors, places.pixels, places.output_activation, sizes)
        return KerasFile(tensors, _pixels(name, content.variables), sizes=sizes)
    return KerasFile(tensors, _pixels(name, content.variables))


def _tensors(variables: Variables) -> dict[str, Tensor]:
    dense = {layer for (layer, _), values in variables.items() if values.ndim == 2}
    head = dense.pop() if len(dense) == 1 else _CLASSIFIER
    tensors = {}
    for (layer, leaf), values in variables.items():
        if leaf not in (*_NORMALIZATION, "count"):
            layer_name = _CLASSIFIER if layer == head else layer
            tensors[f"{layer_name}.{LEAF_NAMES.get(leaf, leaf)}"] = to_pytorch(values)
    return tensors


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


def _description(data: bytes) -> bytes | None:
    """The model's own of its layers in a `.keras`, JSON; None where it is larger than one is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        named = {each.filename: each.file_size for each in archive.infolist()}
        size = named.get(_ZIP_DESCRIPTION, math.inf)
        return archive.read(_ZIP_DESCRIPTION) if size <= LARGEST_DESCRIPTION else None


def _pixels(name: str, variables: Variables) -> PixelConventions | None:
    """What `Rescaling(1 / 255)` and the `Normalization` layer after it do to pixels.

    The layer divides by the root of its variance. The published weights were trained with pixels
    divided by ImageNet's deviation, and have that in the place of the variance: Keras divides by
    its root once more, in a second `Rescaling` (efficientnet.py, and
    https://github.com/tensorflow/tensorflow/issues/49930).
    """
    layers = [layer for layer, leaf in variables if leaf == "variance"]
    if len(layers) > 1:
        raise CheckpointError(
            f"{name} has the statistics of {len(layers)} normalizations ({', '.join(layers)}), and "
            "not where they stand: save the whole model, model.save(FILE.keras)"
        )
    if not layers or (layers[0], "mean") not in variables:
        return None
    mean, variance = (
        np.asarray(variables[layers[0], leaf], np.float64).reshape(-1) for leaf in _NORMALIZATION
    )
    is_published = len(variance) == 3 and np.allclose(variance, IMAGENET_STD, rtol=1e-5)
    std = variance if is_published else np.sqrt(np.maximum(variance, 0))
    return PixelConventions(mean=as_meant(mean), std=as_meant(std))


def _damaged(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{name} is truncated or damaged: copy it again ({first_line(error)})")
