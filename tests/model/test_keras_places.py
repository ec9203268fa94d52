"""A layer of a Keras model is followed or refused by where it stands."""

from __future__ import annotations

import json
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from test_keras_config import layer
from test_keras_files import LAYOUTS, keras_variables, network_of

from effnet_edge.errors import CheckpointError, CheckpointWarning, UsageError
from effnet_edge.model.checkpoints.files import read_checkpoint
from effnet_edge.model.checkpoints.keras_places import KerasPlaces, read_places
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

IMAGENET = (layer("Rescaling", scale=1 / 255), layer("Normalization", mean=None, variance=None))
DENSE = layer("Dense", activation="linear")
SOFTMAX = layer("Activation", activation="softmax")
VARIABLES = {
    ("stem_conv", "kernel"): np.zeros((3, 3, 3, 32), np.float32),
    ("normalization", "mean"): np.array([0.485, 0.456, 0.406], np.float32),
    ("normalization", "variance"): np.array([0.04, 0.09, 0.16], np.float32),
    ("mine", "mean"): np.array([100, 110, 120], np.float32),
    ("mine", "variance"): np.array([2500, 2500, 2500], np.float32),
}


def named(name: str, **changed: Any) -> dict[str, Any]:
    kind = "Activation" if name.endswith("activation") else "Conv2D"
    return layer(kind, **{"name": name, "activation": "linear", **changed})


def inside(*others: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        named("stem_conv"),
        layer("BatchNormalization", epsilon=0.001),
        named("stem_activation", activation="silu"),
        named("block1a_se_reduce", activation="swish"),
        named("block1a_se_expand", activation="sigmoid"),
        layer("Multiply"),
        *others,
        named("top_conv"),
        layer("BatchNormalization", epsilon=0.001),
        named("top_activation", activation="silu"),
    ]


def description(before=(), own=IMAGENET, others=(), behind=(DENSE,)) -> str:
    network = layer("Functional", layers=[layer("InputLayer"), *own, *inside(*others)])
    pooling = layer("GlobalAveragePooling2D")
    return json.dumps(layer("Functional", layers=[*before, network, pooling, *behind]))


def told(**parts: Any) -> KerasPlaces:
    places = read_places("flowers.keras", description(**parts), VARIABLES)
    assert places is not None
    return places


def operation(kind: str) -> dict[str, Any]:
    return {"module": "keras.src.ops.numpy", **layer(kind)}


@pytest.mark.parametrize(
    ("behind", "ending"),
    [
        ([DENSE], None),
        ([layer("Dropout"), layer("Flatten"), DENSE], None),
        ([layer("Dense", activation="softmax")], "softmax"),
        ([layer("Dense", activation="sigmoid"), layer("Rescaling", scale=1.0)], "sigmoid"),
        ([DENSE, SOFTMAX], "softmax"),
        ([DENSE, layer("Softmax", axis=-1)], "softmax"),
        ([DENSE, layer("Activation", activation="linear")], None),
        ([], None),
    ],
)
def test_what_may_stand_behind_the_network(behind: list[Any], ending: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        activation = told(behind=behind).output_activation
    assert (activation.kind if activation else None) == ending


@pytest.mark.parametrize(
    ("behind", "refused"),
    [
        ([DENSE, layer("Rescaling", scale=100.0)], r"rescaling \(Rescaling\) stands behind"),
        ([layer("Rescaling", scale=3.0), DENSE], r"rescaling \(Rescaling\) stands behind"),
        ([layer("Normalization"), DENSE], r"normalization \(Normalization\) stands behind"),
        ([operation("Multiply"), DENSE], r"multiply \(Multiply\) stands behind"),
        ([layer("TFOpLambda"), DENSE], r"TFOpLambda\) stands behind"),
        ([layer("ReLU"), DENSE], r"relu \(ReLU\) stands behind"),
        ([layer("Activation", activation="swish"), DENSE], "activation 'swish'"),
        ([layer("Activation", activation="sigmoid"), DENSE], "activation 'sigmoid'"),
        ([layer("Dense", activation="swish")], "dense .* activation 'swish'"),
        ([layer("Dense", activation="softmax"), SOFTMAX], "comes after the softmax of dense"),
        ([layer("Dense", activation="sigmoid"), DENSE], "comes after the sigmoid of dense"),
        ([DENSE, layer("Softmax", axis=0)], "is over the axis 0"),
    ],
)
def test_what_changes_the_answer_behind_the_network_is_refused(
    behind: list[Any], refused: str
) -> None:
    with pytest.raises(CheckpointError, match=f"^flowers.keras: its layer .*{refused}"):
        told(behind=behind)


@pytest.mark.parametrize(
    "other",
    [
        layer("Rescaling", scale=2.0),
        operation("Multiply"),
        named("block1a_activation", activation="sigmoid"),
        named("block1a_se_expand", activation="swish"),
        named("block1a_project_conv", activation="swish"),
    ],
)
def test_a_layer_at_another_place_inside_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="no EfficientNet here computes so"):
        told(others=[other])


MINE = layer("Normalization", mean=None, variance=None) | {"config": {"name": "mine"}}


@pytest.mark.parametrize(
    ("before", "own", "mean", "std"),
    [
        ([], IMAGENET, (0.485, 0.456, 0.406), (0.2, 0.3, 0.4)),
        ([layer("RandomFlip")], IMAGENET, (0.485, 0.456, 0.406), (0.2, 0.3, 0.4)),
        ([], [layer("Rescaling", scale=1 / 127.5, offset=-1)], (0.5,) * 3, (0.5,) * 3),
        ([layer("Rescaling", scale=1 / 127.5, offset=-1)], [], (0.5,) * 3, (0.5,) * 3),
        (
            [],
            [*IMAGENET, layer("Rescaling", scale=[2.0, 2.0, 0.5])],
            (0.485, 0.456, 0.406),
            (0.1, 0.15, 0.8),
        ),
        (
            [],
            [layer("Rescaling", scale=1 / 255), layer("Normalization", mean=[0.5], variance=0.25)],
            (0.5,) * 3,
            (0.5,) * 3,
        ),
    ],
)
def test_what_stands_before_the_network_is_followed(before, own, mean, std) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        pixels = told(before=before, own=own).pixels
    assert pixels is not None
    assert pixels.mean == pytest.approx(mean, abs=1e-6)
    assert pixels.std == pytest.approx(std, abs=1e-6)


def test_a_normalization_of_ones_own_comes_before_the_networks() -> None:
    with pytest.warns(CheckpointWarning, match="which is followed"):
        pixels = told(before=[MINE]).pixels
    assert pixels is not None
    factor = 1 / 50 / 255 / np.array([0.2, 0.3, 0.4])
    offset = -np.array([100, 110, 120]) / 50 / 255 - np.array([0.485, 0.456, 0.406])
    np.testing.assert_allclose(pixels.std, 1 / factor / 255, rtol=1e-6)
    np.testing.assert_allclose(
        pixels.mean, -offset / np.array([0.2, 0.3, 0.4]) / factor / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ([operation("TrueDivide")], "changes the pixels before the network"),
        ([layer("Activation", activation="tanh")], "changes the pixels before the network"),
        ([layer("Normalization", invert=True)], "undoes a normalization"),
        ([layer("Rescaling", scale="much")], "a scale that is not read here"),
        ([layer("Rescaling", scale=[1.0, 2.0])], "numbers for other channels"),
        ([layer("Normalization", name="gone")], "has no mean in the file"),
    ],
)
def test_what_cannot_be_followed_before_the_network_is_refused(before, refused: str) -> None:
    with pytest.raises(CheckpointError, match=f"^flowers.keras: its layer .*{refused}"):
        told(before=before)


def test_a_network_without_a_normalization_is_told() -> None:
    with pytest.warns(CheckpointWarning, match=r"no layers that normalize.*--mean and --std"):
        assert told(own=[]).pixels is None


def test_a_convolution_behind_the_network_is_a_dense_layer() -> None:
    head = layer("Conv2D", name="logits", activation="linear")
    assert told(behind=[head]).output_activation is None
    ending = told(behind=[head, layer("Flatten"), SOFTMAX]).output_activation
    assert ending is not None
    assert ending.kind == "softmax"
    with pytest.raises(CheckpointError, match="logits .*skips pixels"):
        told(behind=[layer("Conv2D", name="logits", strides=[2, 2])])
    with pytest.raises(CheckpointError, match="has the activation 'swish'"):
        told(behind=[head, layer("Activation", activation="swish")])

    for activation in ("sigmoid", "swish"):
        head = layer("Conv2D", name="logits", activation=activation)
        with pytest.raises(CheckpointError, match=f"logits .*has the activation '{activation}'"):
            told(behind=[head])


def saved(path: Path, text: str, layout: str = "keras") -> str:
    LAYOUTS[layout](path, keras_variables(network_of()))
    if layout == "keras":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("config.json", text)
    else:
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = text
    return str(path)


def test_values_are_none_behind_a_sigmoid(tmp_path: Path) -> None:
    rescaling = layer("Rescaling", scale=1 / 255)
    sigmoid = description(own=[rescaling], behind=[layer("Dense", activation="sigmoid")])
    path = saved(tmp_path / "a.keras", sigmoid)

    with pytest.raises(UsageError, match="layer dense ends in a sigmoid, and --regression gives"):
        load_source(NetworkRequest("b0", path, resolution=32, output_kind="regression"))
    with pytest.raises(UsageError, match="layer dense ends in a sigmoid"):
        load_weights(EfficientNet(VARIANTS["b0"], num_classes=5, output_kind="regression"), path)
    load_source(NetworkRequest("b0", path, resolution=32, output_kind="multi-label"))
    load_source(NetworkRequest("b0", path, resolution=32, output_kind="features"))
    with pytest.warns(CheckpointWarning, match="without --multi-label"):
        load_source(NetworkRequest("b0", path, resolution=32))


@pytest.mark.parametrize("layout", ["keras", "whole model"])
def test_both_kinds_of_whole_models_are_followed(tmp_path: Path, layout: str) -> None:
    text = description(own=[layer("Rescaling", scale=1 / 127.5, offset=-1)])
    path = tmp_path / ("a.keras" if layout == "keras" else "a.h5")
    saved(path, text, layout)

    pixels = read_checkpoint(path).pixels
    assert pixels is not None
    assert pixels.mean == pytest.approx((0.5,) * 3)


def test_two_normalizations_without_their_places_are_refused(tmp_path: Path) -> None:
    variables = keras_variables(network_of())
    for name, value in (("mine/mean", 0.0), ("mine/variance", 1.0)):
        variables[name] = np.full(3, value, np.float32)
    for name in ("normalization/mean", "normalization/variance"):
        variables[name] = np.ones(3, np.float32)
    LAYOUTS["whole model"](tmp_path / "a.h5", variables)

    with pytest.raises(CheckpointError, match="statistics of 2 normalizations"):
        read_checkpoint(tmp_path / "a.h5")
