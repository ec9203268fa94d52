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
    ({"padding": "SAME"}, "padding is 'SAME': give same or symmetric"),
    ({"padding": "valid"}, "padding is 'valid': give same or symmetric"),
    ({"pooling": "mean"}, "pooling is 'mean': give avg, max or avgmax"),
    ({"pooling": "gem"}, "pooling is 'gem': give avg, max or avgmax"),
    ({"activation": "swish"}, "activation is 'swish': give silu, relu or relu6"),
    ({"batch_norm_eps": -1}, "batch_norm_eps is -1: give a number above 0 and below 1"),
    ({"batch_norm_eps": float("nan")}, "batch_norm_eps is nan: give a number above 0"),
    ({"batch_norm_eps": "1e-3"}, "batch_norm_eps is '1e-3': give a number above 0"),
    ({"output_kind": "multilabel"}, "output_kind is 'multilabel': give single-label, multi"),
]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *CONVENTIONS,
        ({"padding": None}, "padding is None: give same or symmetric"),
        ({"num_classes": -1}, "num_classes is -1: give a whole number, 0 or more"),
        ({"num_classes": 5.0}, "num_classes is 5.0: give a whole number, 0 or more"),
        ({"in_channels": 0}, "in_channels is 0: give a whole number, 1 or more"),
        ({"in_channels": True}, "in_channels is True: give a whole number, 1 or more"),
    ],
    ids=str,
)
def test_a_network_is_not_built_of_it(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        EfficientNet(VARIANTS["b0"], **{"num_classes": 5, "resolution": 32} | wrong)
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *CONVENTIONS,
        ({"fit": "letterbox"}, "fit is 'letterbox': give "),
        ({"num_classes": -3}, "num_classes is -3: give a whole number, 1 or more"),
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

    with pytest.raises(UsageError, match="padding is 'Same': give same or symmetric"):
        load_weights(network, "imagenet", padding="Same")

    assert network.conventions == before[0]
    assert torch.equal(network.classifier.bias, before[1])


def test_numbers_of_numpy_are_numbers() -> None:
    network = EfficientNet(
        VARIANTS["b0"], num_classes=np.int64(5), batch_norm_eps=np.float32(1e-3), resolution=32
    )
    assert network.output_size == 5
    assert network.state_dict()
