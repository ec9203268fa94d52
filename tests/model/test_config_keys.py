"""Every key of a config beside a checkpoint is followed, known to be harmless, named or refused."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from reference_models import geffnet_model
from safetensors.torch import save_file

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return geffnet_model("b0", num_classes=3).state_dict()


def timm_config(top: dict[str, Any], arguments: dict[str, Any], pretrained: dict[str, Any]) -> dict:
    """Of the shape that timm 1.0.31 writes."""
    return {
        "architecture": "tf_efficientnet_b0",
        "num_classes": 3,
        "num_features": 1280,
        "global_pool": "avg",
        **top,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "ns_jft_in1k",
            "custom_load": False,
            "input_size": [3, 224, 224],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            **IMAGENET,
            "num_classes": 3,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
            **pretrained,
        },
    }


def load(
    folder: Path,
    state: dict[str, torch.Tensor],
    top: dict[str, Any] | None = None,
    arguments: dict[str, Any] | None = None,
    **pretrained: Any,
) -> Source:
    config = timm_config(top or {}, arguments or {}, pretrained)
    return load_beside(folder, state, config)


def load_beside(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> Source:
    save_file({name: each.contiguous() for name, each in state.items()}, folder / "m.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return load_source(NetworkRequest("b0", str(folder / "m.safetensors"), resolution=32))


def with_channels(state: dict[str, torch.Tensor], channels: int) -> dict[str, torch.Tensor]:
    return state | {"conv_stem.weight": torch.randn(32, channels, 3, 3)}


def test_a_config_as_timm_writes_it_is_followed_without_a_word(tmp_path: Path, state) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        source = load(tmp_path, state, arguments={"drop_rate": 0.2, "drop_path_rate": 0.1})

    assert source.network.pooling == "avg"
    assert (source.network.padding, source.network.batch_norm_eps) == ("same", 1e-3)


@pytest.mark.parametrize(
    ("top", "arguments", "told"),
    [
        ({"global_pool": "max"}, {"global_pool": "max"}, ("max", "silu", "same", 1e-3)),
        ({"global_pool": None}, {"global_pool": "avgmax"}, ("avgmax", "silu", "same", 1e-3)),
        ({}, {"act_layer": "swish"}, ("avg", "silu", "same", 1e-3)),
        ({}, {"act_layer": "relu"}, ("avg", "relu", "same", 1e-3)),
        ({}, {"pad_type": ""}, ("avg", "silu", "symmetric", 1e-3)),
        ({}, {"bn_eps": 1e-4}, ("avg", "silu", "same", 1e-4)),
        ({"architecture": "efficientnet_b0"}, {}, ("avg", "silu", "symmetric", 1e-5)),
        (
            {"architecture": "efficientnet_b0.ra_in1k"},
            {"pad_type": "same", "bn_eps": 1e-3},
            ("avg", "silu", "same", 1e-3),
        ),
    ],
)
def test_what_it_says_of_the_network_holds(tmp_path, state, top, arguments, told) -> None:
    network = load(tmp_path, state, top, arguments).network

    found = (network.pooling, network.activation, network.padding, network.batch_norm_eps)
    assert found == told
    eps = {module.eps for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert eps == {told[3]}


@pytest.mark.parametrize(
    ("top", "arguments", "pretrained", "told"),
    [
        ({"global_pool": "catavgmax"}, {}, {}, "global_pool is 'catavgmax'"),
        ({"global_pool": ""}, {}, {}, "global_pool is ''"),
        ({"global_pool": "max"}, {"global_pool": "avg"}, {}, "global_pool is 'avg', and 'max' in"),
        (
            {"global_pool": "max"},
            {},
            {},
            "global_pool is 'max', and it stands outside of model_arg",
        ),
        ({"act_layer": "relu"}, {}, {}, "act_layer is 'relu', and it stands outside"),
        ({}, {}, {"pad_type": ""}, "pad_type is '', and it stands outside"),
        ({"bn_eps": 1e-5}, {}, {}, "bn_eps is 1e-05, and it stands outside"),
        ({}, {"act_layer": "gelu"}, {}, "act_layer is 'gelu'"),
        ({}, {"act_layer": {"name": "silu"}}, {}, "act_layer is {'name': 'silu'}"),
        ({}, {"pad_type": "valid"}, {}, "pad_type is 'valid'"),
        ({}, {"bn_eps": 0}, {}, "bn_eps is 0"),
        ({}, {"output_stride": 16}, {}, "output_stride is 16"),
        ({}, {"aa_layer": "blurpc"}, {}, "aa_layer is 'blurpc'"),
        ({}, {"norm_layer": "groupnorm"}, {}, "norm_layer is 'groupnorm'"),
        ({}, {"features_only": True}, {}, "features_only is True"),
        ({}, {"new_thing": 2}, {}, "new_thing is 2, and what that changes is not known"),
        ({}, {"in_chans": 1}, {}, "in_chans is 1, and the stem's weights have 3 channels"),
        ({"architecture": "efficientnet_blur_b0"}, {}, {}, "architecture is 'efficientnet_blur"),
        ({"architecture": "tf_efficientnet_b1"}, {}, {}, "tensors are those of b0"),
        ({}, {}, {"label_offset": 1}, "label_offset is 1"),
        ({}, {}, {"input_size": [17, 224, 224]}, "1 to 16 channels"),
        ({}, {}, {"input_size": [4, 9, 9], "mean": [0.5], "std": [0.5]}, r"input_size\[0\] is 4"),
        ({}, {}, {"mean": [0.5] * 4}, "not one value for each of 3 channels"),
        ({}, {}, {"std": [0.2, 0.0, 0.2]}, r"std is \[0.2, 0.0, 0.2\]"),
        ({}, {}, {"crop_mode": "random"}, "crop_mode is 'random'"),
        ({}, {}, {"interpolation": "random"}, "interpolation is 'random'"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    tmp_path, state, top, arguments, pretrained, told: str
) -> None:
    with pytest.raises(CheckpointError, match=told) as it:
        load(tmp_path, state, top, arguments, **pretrained)

    assert str(tmp_path / "config.json") in str(it.value)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    ("top", "pretrained", "told"),
    [
        ({"new_thing": 2}, {}, r"passed over: new_thing \(2\)"),
        ({}, {"gamma": 2.2}, r"passed over: gamma \(2.2\)"),
        ({"label_names": ["a", "b", "c"]}, {}, "passed over: label_names"),
        ({"num_classes": 1000}, {}, "passed over: num_classes 1000 .the classifier has 3"),
        ({"bad\nkey\x1b[2J": 1}, {}, r"passed over: bad\\nkey\\x1b\[2J"),
    ],
)
def test_what_is_not_known_is_named(tmp_path, state, top, pretrained, told: str) -> None:
    with pytest.warns(CheckpointWarning, match=told):
        load(tmp_path, state, top, **pretrained)


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_any_number_of_channels_is_as_the_config_says(tmp_path, state, channels: int) -> None:
    mean = [round(0.3 + index / 100, 2) for index in range(channels)]

    source = load(
        tmp_path,
        with_channels(state, channels),
        input_size=[channels, 224, 224],
        mean=mean,
        std=[0.25],
    )

    assert source.preprocessing.mean == tuple(mean)
    assert source.preprocessing.std == (0.25,) * channels


def test_grey_of_a_config_that_was_left_at_three_colours_is_told(tmp_path, state) -> None:
    with pytest.warns(CheckpointWarning, match="passed over: the 3 channels of input_size"):
        source = load(tmp_path, with_channels(state, 1))

    assert source.preprocessing.mean == pytest.approx((0.449,))


@pytest.fixture(scope="module")
def transformers_state() -> dict[str, torch.Tensor]:
    own = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32).state_dict()
    scheme = next(each for each in NAMING_SCHEMES if each.config == "transformers")
    return {theirs: own[ours] for ours, theirs in translate(own, scheme).items()}


# As on the hub for google/efficientnet-b0, less the names of the classes.
TRANSFORMERS = {
    "architectures": ["EfficientNetForImageClassification"],
    "model_type": "efficientnet",
    "batch_norm_eps": 0.001,
    "batch_norm_momentum": 0.99,
    "depthwise_padding": [],
    "hidden_act": "swish",
    "image_size": 224,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "num_channels": 3,
    "pooling_type": "mean",
    "strides": [1, 2, 2, 2, 1, 2, 1],
}


def test_transformers_config_is_followed(tmp_path, transformers_state) -> None:
    config = TRANSFORMERS | {"pooling_type": "max", "hidden_act": "relu", "batch_norm_eps": 1e-4}

    source = load_beside(tmp_path, transformers_state, config)

    network, preprocessing = source.network, source.preprocessing
    assert (preprocessing.fit, preprocessing.crop_fraction) == ("stretch", 1.0)
    assert (network.pooling, network.activation) == ("max", "relu")
    assert (network.padding, network.batch_norm_eps) == ("same", 1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pooling_type": "cls"}, "pooling_type is 'cls'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"kernel_sizes": [3, 3, 3, 3, 3, 3, 3]}, "kernel_sizes is"),
        ({"image_size": [192, "wide"]}, r"image_size is \[192, 'wide'\]"),
        ({"num_channels": 1}, "stem's weights have 3 channels"),
        ({"batch_norm_eps": "small"}, "batch_norm_eps is 'small'"),
    ],
)
def test_transformers_config_is_refused_by_name(
    tmp_path, transformers_state, wrong, told: str
) -> None:
    with pytest.raises(CheckpointError, match=told):
        load_beside(tmp_path, transformers_state, TRANSFORMERS | wrong)


def test_a_list_in_the_place_of_a_number_is_named(tmp_path: Path, state) -> None:
    with pytest.warns(CheckpointWarning, match=r"num_classes \[7\] \(the classifier has 3\)"):
        load(tmp_path, state, {"num_classes": [7]})
