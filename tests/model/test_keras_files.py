"""Keras's files in the three layouts that it wrote over the years; none of these needs Keras."""

from __future__ import annotations

import io
import math
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from later import quick

from effnet_edge.errors import BackendError, CheckpointError
from effnet_edge.model.checkpoints import hdf5_process
from effnet_edge.model.checkpoints.files import parse_checkpoint
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

# `weight.path` of some variables of keras 3.15's applications, and our tensors of the same place.
KERAS_NAMES = {
    "b0": {
        "stem_conv/kernel": "stem.conv.weight",
        "stem_bn/moving_variance": "stem.bn.running_var",
        "block1a_dwconv/kernel": "stages.0.0.depthwise.conv.weight",
        "block1a_se_reduce/bias": "stages.0.0.se.reduce.bias",
        "block1a_project_bn/gamma": "stages.0.0.project.bn.weight",
        "block2b_expand_conv/kernel": "stages.1.1.expand.conv.weight",
        "block6d_bn/beta": "stages.5.3.depthwise.bn.bias",
        "block7a_se_expand/kernel": "stages.6.0.se.expand.weight",
        "top_conv/kernel": "head.conv.weight",
        "top_bn/moving_mean": "head.bn.running_mean",
        "predictions/kernel": "classifier.weight",
    },
    "v2-b0": {
        "block1a_project_conv/kernel": "stages.0.0.project.conv.weight",
        "block2a_expand_conv/kernel": "stages.1.0.expand.conv.weight",
        "block2b_project_bn/beta": "stages.1.1.project.bn.bias",
        "block4a_dwconv2/kernel": "stages.3.0.depthwise.conv.weight",
        "block4a_bn/gamma": "stages.3.0.depthwise.bn.weight",
    },
}
PUBLISHED = (np.array(IMAGENET_MEAN, "f4"), np.array(IMAGENET_STD, "f4"))


def network_of(variant: str = "b0", classes: int = 3) -> EfficientNet:
    network = EfficientNet(VARIANTS[variant], num_classes=classes, resolution=32)
    for tensor in network.tensors().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network


def keras_variables(network: EfficientNet) -> dict[str, np.ndarray]:
    """Ours by the names of Keras's layers and variables."""
    variables = {}
    depthwise_name = "dwconv2" if network.variant.name.startswith("v2") else "dwconv"
    for ours, tensor in network.tensors().items():
        if ours.endswith("num_batches_tracked"):
            continue
        path, _, leaf = ours.rpartition(".")
        parts = path.split(".")
        if parts[0] == "stages":
            letter = chr(ord("a") + int(parts[2]))
            layer = "_".join(parts[3:])
            layer = {"depthwise_conv": depthwise_name, "depthwise_bn": "bn"}.get(layer, layer)
            layer = f"block{int(parts[1]) + 1}{letter}_{layer}"
        elif parts == ["classifier"]:
            layer = "predictions"
        else:
            layer = "_".join(parts).replace("head", "top")
        if parts[-1] == "bn":
            leaf = {
                "weight": "gamma",
                "bias": "beta",
                "running_mean": "moving_mean",
                "running_var": "moving_variance",
            }[leaf]
        else:
            leaf = {"weight": "kernel"}.get(leaf, leaf)
        values = tensor.numpy()
        if values.ndim == 4:
            is_depthwise = "depthwise" in ours
            values = values.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
        variables[f"{layer}/{leaf}"] = values.T if values.ndim == 2 else values
    return variables


def legacy(group: h5py.Group, variables: dict[str, np.ndarray]) -> None:
    """As Keras 2 wrote: every variable under its layer, twice; depthwise kernels have a name."""
    for name, values in variables.items():
        layer, leaf = name.split("/")
        if "dwconv" in layer and leaf == "kernel":
            leaf = "depthwise_kernel"
        group[f"{layer}/{layer}/{leaf}:0"] = values
    group["top_dropout/seed_generator_state"] = np.zeros(2, "u4")


BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
OTHERS = ("kernel", "bias", "mean", "variance", "count")


def numbered(group: h5py.Group, variables: dict[str, np.ndarray]) -> None:
    """As Keras 3 writes: numbers for names, and the layer's own name in an attribute."""
    layers: dict[str, list[str]] = {}
    for name in variables:
        layers.setdefault(name.split("/")[0], []).append(name.split("/")[1])
    for index, (layer, leaves) in enumerate(layers.items()):
        made = group.create_group(f"layers/layer_{index}/vars")
        made.attrs["name"] = layer
        order = BATCH_NORM if set(leaves) == set(BATCH_NORM) else OTHERS
        for number, leaf in enumerate(sorted(leaves, key=order.index)):
            made[str(number)] = variables[f"{layer}/{leaf}"]


def normalization(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "normalization/mean": mean,
        "normalization/variance": variance,
        "normalization/count": np.array(0, "i4"),
    }


def written(path: Path, write, variables: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        write(file, variables)
    return path


def in_zip(path: Path, variables: dict[str, np.ndarray], compression: int = 0) -> Path:
    written(path, numbered, variables)
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", content)
    return path


LAYOUTS = {
    "legacy": lambda path, variables: written(path, legacy, variables),
    "whole model": lambda path, variables: written(
        path, lambda file, _: legacy(file.create_group("model_weights"), variables), variables
    ),
    "weights.h5": lambda path, variables: written(path, numbered, variables),
    "keras": in_zip,
}


def subclassed(file: h5py.File, variables: dict[str, np.ndarray]) -> None:
    """As Keras 3 writes a model of a class of one's own, by its attributes, and its optimizer."""
    of_head = {name: each for name, each in variables.items() if name.startswith("predictions/")}
    numbered(file.create_group("base"), {n: e for n, e in variables.items() if n not in of_head})
    numbered(file, of_head)
    file.move("layers/layer_0", "head")
    file["optimizer/vars/0"] = np.ones(3, "f4")


def assert_same(saved: EfficientNet, loaded: EfficientNet) -> None:
    for name, tensor in saved.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize("layout", quick(["keras", "weights.h5"], LAYOUTS, "sample"))
def test_every_layout_fills_the_network(tmp_path: Path, layout: str) -> None:
    saved, loaded = network_of(), network_of()
    variables = keras_variables(saved)
    path = LAYOUTS[layout](tmp_path / "checkpoint", variables | normalization(*PUBLISHED))

    origin = load_weights(loaded, path)

    assert origin.scheme == "Keras"
    assert_same(saved, loaded)
    assert (loaded.padding, loaded.stem.bn.eps) == ("same", 1e-3)
    for theirs, ours in KERAS_NAMES["b0"].items():
        values = loaded.state_dict()[ours].numpy()
        assert sorted(variables[theirs].shape) == sorted(values.shape)
        np.testing.assert_array_equal(np.sort(variables[theirs], None), np.sort(values, None))


def test_a_model_of_a_class_of_ones_own_has_its_layers_by_attributes(tmp_path: Path) -> None:
    saved, loaded = network_of(), network_of()

    load_weights(loaded, written(tmp_path / "a.weights.h5", subclassed, keras_variables(saved)))

    assert_same(saved, loaded)


def test_v2_is_told_from_v1_and_brings_its_pixels(tmp_path: Path) -> None:
    saved, loaded = network_of("v2-b0"), network_of("v2-b0")
    variables = keras_variables(saved)

    origin = load_weights(loaded, written(tmp_path / "v2.h5", legacy, variables))

    assert origin.scheme == "Keras, V2"
    assert_same(saved, loaded)
    assert KERAS_NAMES["v2-b0"].keys() <= variables.keys()


# What three EfficientNetB0 of keras 3.15 did to a pixel of 100: its layers up to the stem, with
# weights=None, with an adapted Normalization, and with weights="imagenet".
@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ((np.zeros(3), np.ones(3)), [100 / 255] * 3),
        (
            (np.array([0.4, 0.5, 0.45]), np.array([0.06, 0.05, 0.07])),
            [(100 / 255 - 0.4) / math.sqrt(0.06), None, None],
        ),
        (PUBLISHED, [(100 / 255 - 0.485) / 0.229, None, (100 / 255 - 0.406) / 0.225]),
    ],
    ids=["untouched", "adapted", "published"],
)
def test_the_normalization_layer_becomes_the_preparation(
    tmp_path: Path, statistics: tuple[np.ndarray, np.ndarray], expected: list[float | None]
) -> None:
    variables = keras_variables(network_of()) | normalization(*statistics)

    pixels = load_weights(network_of(), written(tmp_path / "b0.h5", legacy, variables)).pixels

    assert pixels.mean is not None
    assert pixels.std is not None
    for mean, std, value in zip(pixels.mean, pixels.std, expected, strict=True):
        if value is not None:
            assert (100 / 255 - mean) / std == pytest.approx(value, rel=1e-6)


def test_a_classifier_of_any_name_is_found(tmp_path: Path) -> None:
    saved, loaded = network_of(), network_of()
    variables = {
        name.replace("predictions", "flowers"): values
        for name, values in keras_variables(saved).items()
    }

    load_weights(loaded, written(tmp_path / "b0.h5", legacy, variables))

    assert_same(saved, loaded)


def test_a_network_inside_a_model_is_found(tmp_path: Path) -> None:
    saved, loaded = network_of(), network_of()

    def nested(file: h5py.File, variables: dict[str, np.ndarray]) -> None:
        for name, values in variables.items():
            outer = "predictions" if name.startswith("predictions") else "efficientnetb0"
            file[f"model_weights/{outer}/{name}:0"] = values
        file["optimizer_weights/Adam/m/stem_conv/kernel:0"] = variables["stem_conv/kernel"]

    load_weights(loaded, written(tmp_path / "b0.h5", nested, keras_variables(saved)))

    assert_same(saved, loaded)


def test_layers_that_an_efficientnet_has_not_are_named(tmp_path: Path) -> None:
    variables = keras_variables(network_of())
    variables["my_norm/gamma"] = np.ones(1280, "f4")

    with pytest.raises(CheckpointError, match=r"extra my_norm.weight"):
        load_weights(network_of(), written(tmp_path / "b0.h5", legacy, variables))


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    def twice(file: h5py.File, variables: dict[str, np.ndarray]) -> None:
        for outer in ("left", "right"):
            legacy(file.create_group(outer), variables)

    path = written(tmp_path / "two.h5", twice, keras_variables(network_of()))
    with pytest.raises(CheckpointError, match=r"two.h5 has two layers named"):
        load_weights(network_of(), path)


def test_numbered_layers_without_names_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "old.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 32), "f4")

    with pytest.raises(CheckpointError, match=r"does not name its layers.*Keras 3"):
        load_weights(network_of(), path)


def test_a_compressed_keras_file_is_refused_with_advice(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "b0.keras", {"a/kernel": np.zeros(1, "f4")}, zipfile.ZIP_DEFLATED)

    with pytest.raises(CheckpointError, match=r"compressed.*model.weights.h5"):
        load_weights(network_of(), path)


def test_tensors_in_other_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    path = tmp_path / "b0.h5"
    with h5py.File(path, "w") as file:
        external = [(str(tmp_path / "secret"), 0, 12)]
        file.create_dataset("predictions/bias:0", (3,), "f4", external=external)

    with pytest.raises(CheckpointError, match=r"not wholly in the file"):
        load_weights(network_of(), path)


def test_a_size_beyond_the_file_is_never_allocated(tmp_path: Path) -> None:
    path = tmp_path / "b0.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("stem_conv/kernel:0", (1 << 20, 1 << 20), "f4", chunks=(8, 8))

    with pytest.raises(CheckpointError, match=r"not wholly in the file"):
        load_weights(network_of(), path)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_file()
    child = hdf5_process._CHILD.replace("c.main", "sys.modules['h5py'] = None; c.main")
    monkeypatch.setattr(hdf5_process, "_CHILD", child)

    with pytest.raises(BackendError, match=r"b0.h5 is an HDF5 file.*needs h5py: pip install"):
        parse_checkpoint("b0.h5", content)


def small_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        legacy(file, {"stem_conv/kernel": np.ones((3, 3, 3, 8), "f4")})
    return buffer.getvalue()


@pytest.mark.sample
@given(st.integers(0, len(small_file()) - 1))
@settings(max_examples=15, deadline=None)
def test_a_truncated_file_is_an_error_in_one_line(size: int) -> None:
    with pytest.raises(CheckpointError, match=r"\Ab0.h5 is .*(truncated|empty).*\Z"):
        parse_checkpoint("b0.h5", small_file()[:size])


def file_that_hdf5_never_comes_to_the_end_of() -> bytes:
    """One whose attributes are in a heap with a wrong size of its free space, its object 0.

    The library then takes the zeros in the middle of that space for an object of no size, and goes
    from it to itself. Layout: HDF5 File Format Specification, "Global Heap".
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        numbered(file, {"stem_conv/kernel": np.ones((3, 3, 3, 8), "f4")})
    data = bytearray(buffer.getvalue())
    place = data.index(b"GCOL") + 16
    while number := int.from_bytes(data[place : place + 2], "little"):
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        assert number < 100
        place += 16 + -(-size // 8) * 8
    size = int.from_bytes(data[place + 8 : place + 16], "little")
    data[place + 8 : place + 16] = (size - 512).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.sample
def test_a_file_on_which_the_library_loops_is_an_error_after_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hdf5_process, "_SECONDS", 3)

    with pytest.raises(CheckpointError, match=r"b0.h5 is .*damaged: copy it again \(.*in 3 s\)"):
        parse_checkpoint("b0.h5", file_that_hdf5_never_comes_to_the_end_of())


def test_a_file_on_which_the_library_crashes_does_not_end_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(hdf5_process, "_CHILD", crash)

    with pytest.raises(CheckpointError, match="damaged: copy it again.*crashed.*Segmentation"):
        parse_checkpoint("b0.h5", small_file())
