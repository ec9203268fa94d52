"""An argument that is none of its values is refused by name, with the choices, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effnet_edge.errors import UsageError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

CONVENTIONS = [
    ({"padding": "SAME"}, "padding 'SAME': choose from same, symmetric"),
    ({"padding": "valid"}, "padding 'valid': choose from same, symmetric"),
    ({"pooling": "mean"}, "pooling 'mean': choose from avg, max, avgmax"),
    ({"pooling": "gem"}, "pooling 'gem': choose from avg, max, avgmax"),
    ({"activation": "swish"}, "activation 'swish': choose from silu, relu, relu6"),
    ({"batch_norm_eps": -1}, "batch_norm_eps -1: needs a number above 0 and below 1"),
    ({"batch_norm_eps": float("nan")}, "batch_norm_eps nan: needs a number above 0"),
    ({"batch_norm_eps": "1e-3"}, "batch_norm_eps '1e-3': needs a number above 0"),
    ({"output_kind": "multilabel"}, "output_kind 'multilabel': choose from single-label, multi"),
]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *CONVENTIONS,
        ({"padding": None}, "padding None: choose from same, symmetric"),
        ({"num_classes": -1}, "num_classes -1: needs 0 or more"),
        ({"num_classes": 5.0}, "num_classes 5.0: needs a whole number of 0 or more"),
        ({"num_classes": 1}, "num_classes 1: one output is no choice of a class"),
        ({"in_channels": 0}, "in_channels 0: needs 1 or more"),
        ({"in_channels": True}, "in_channels True: needs a whole number of 1 or more"),
    ],
    ids=str,
)
def test_a_network_is_not_built_of_it(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        EfficientNet(VARIANTS["b0"], **{"num_classes": 5, "resolution": 32} | wrong)
    assert str(raised.value).startswith(told)


def test_one_class_is_refused_with_what_python_code_can_say_instead() -> None:
    with pytest.raises(UsageError, match="say output_kind='multi-label' for") as raised:
        EfficientNet(VARIANTS["b0"], num_classes=1, resolution=32)
    assert "or output_kind='regression' for a value" in str(raised.value)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *CONVENTIONS,
        ({"fit": "letterbox"}, "fit 'letterbox': choose from "),
        ({"num_classes": -3}, "num_classes -3: needs 1 or more"),
    ],
    ids=str,
)
def test_a_network_is_not_asked_for_with_it(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        NetworkRequest("b0", "random", **wrong)
    assert str(raised.value).startswith(told)


def test_weights_are_not_loaded_with_it() -> None:
    network = EfficientNet(VARIANTS["b0"], resolution=32)
    before = network.conventions, network.classifier.bias.clone()

    with pytest.raises(UsageError, match="padding 'Same': choose from same, symmetric"):
        load_weights(network, "imagenet", padding="Same")

    assert network.conventions == before[0]
    assert torch.equal(network.classifier.bias, before[1])


def test_numbers_of_numpy_are_numbers() -> None:
    network = EfficientNet(
        VARIANTS["b0"], num_classes=np.int64(5), batch_norm_eps=np.float32(1e-3), resolution=32
    )
    assert network.output_size == 5
    assert network.state_dict()
