"""What a Keras model's own description says beside its weights is held to, or named."""

from __future__ import annotations

import json
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import pytest
from test_keras_files import LAYOUTS, keras_variables, network_of

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.files import read_checkpoint
from effnet_edge.model.checkpoints.keras_config import check_layers

if TYPE_CHECKING:
    from pathlib import Path


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


def description(*others: dict[str, Any]) -> str:
    """A classifier around an EfficientNet, of the shape that Keras 3 writes."""
    inner = layer(
        "Functional",
        layers=[
            layer("InputLayer"),
            layer("Rescaling", scale=1 / 255),
            layer("Conv2D", activation="linear"),
            layer("BatchNormalization", epsilon=0.001),
            layer("Activation", activation="swish"),
            layer("Conv2D", activation="sigmoid"),
            *others,
        ],
    )
    ends = [layer("GlobalAveragePooling2D"), layer("Dropout"), layer("Dense", activation="softmax")]
    return json.dumps(layer("Functional", layers=[layer("RandomFlip"), inner, *ends]))


def test_a_fine_tuned_classifier_is_taken_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        check_layers("flowers.keras", description())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (layer("GlobalMaxPooling2D"), "globalmaxpooling2d pools otherwise than by the mean"),
        (layer("BatchNormalization", epsilon=1e-5), "has an epsilon of 1e-05, not 0.001"),
        (layer("Activation", activation="gelu"), "has the activation 'gelu'"),
        (layer("Dense", activation="relu"), "has the activation 'relu'"),
        (layer("Activation", activation={"class_name": "Custom"}), "has the activation"),
    ],
)
def test_a_layer_that_computes_otherwise_is_refused_by_name(other, told: str) -> None:
    with pytest.raises(CheckpointError, match=told) as it:
        check_layers("flowers.keras", description(other))
    assert str(it.value).startswith("flowers.keras: its layer ")


def test_a_layer_that_is_not_known_is_named() -> None:
    with pytest.warns(CheckpointWarning, match="layers of the kind My.nLayer"):
        check_layers("flowers.keras", description(layer("My\nLayer")))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"config": {"layers": 5}}'])
def test_what_is_no_description_is_passed_over(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        check_layers("flowers.keras", text)


def test_both_kinds_of_whole_models_are_looked_into(tmp_path: Path) -> None:
    variables = keras_variables(network_of())
    wrong = description(layer("GlobalMaxPooling2D"))
    LAYOUTS["keras"](tmp_path / "flowers.keras", variables)
    with zipfile.ZipFile(tmp_path / "flowers.keras", "a") as archive:
        archive.writestr("config.json", wrong)
    LAYOUTS["whole model"](tmp_path / "flowers.h5", variables)
    with h5py.File(tmp_path / "flowers.h5", "a") as file:
        file.attrs["model_config"] = wrong

    for name in ("flowers.keras", "flowers.h5"):
        with pytest.raises(CheckpointError, match="pools otherwise"):
            read_checkpoint(tmp_path / name)
