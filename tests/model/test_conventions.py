"""What comes with the weights besides tensors: padding, ε, and what pictures go through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from reference_models import geffnet_model
from safetensors.torch import save_file
from torchvision_source import torchvision_weights

from effnet_edge.errors import CheckpointError
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import (
    CENTRED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TORCHVISION_PIXELS,
    variant_preprocessing,
)
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights
from effnet_edge.size import Size

if TYPE_CHECKING:
    from pathlib import Path


def network_of(variant: str) -> EfficientNet:
    return EfficientNet(VARIANTS[variant], num_classes=3, resolution=32)


def renamed(network: EfficientNet, scheme_name: str) -> dict[str, torch.Tensor]:
    scheme = next(scheme for scheme in NAMING_SCHEMES if scheme.name == scheme_name)
    state = network.state_dict()
    return {theirs: state[ours] for ours, theirs in translate(state, scheme).items()}


@pytest.mark.parametrize("variant", TORCHVISION_PIXELS)
def test_torchvisions_pictures_are_those_of_its_own_transforms(variant: str) -> None:
    theirs = torchvision_weights()[variant]

    ours = variant_preprocessing(VARIANTS[variant], None, TORCHVISION_PIXELS[variant])

    assert ours.resolution == Size.of(theirs.crop_size)
    assert ours.crop_fraction == theirs.crop_size / theirs.resize_size
    assert ours.interpolation == theirs.interpolation
    assert (ours.mean, ours.std) == (theirs.mean or IMAGENET_MEAN, theirs.std or IMAGENET_STD)


def test_every_variant_that_torchvision_has_is_known() -> None:
    assert torchvision_weights().keys() == TORCHVISION_PIXELS.keys()


# `state_dict()` keys of model.py in Test9_efficientNet and Test11_efficientnetV2 of
# https://github.com/WZMIAOMIAO/deep-learning-for-image-processing.
TUTORIAL_NAMES = {
    ("b0", "PyTorch tutorial"): {
        "features.stem_conv.0.weight": "stem.conv.weight",
        "features.stem_conv.1.running_mean": "stem.bn.running_mean",
        "features.1a.block.dwconv.0.weight": "stages.0.0.depthwise.conv.weight",
        "features.1a.block.se.fc2.bias": "stages.0.0.se.expand.bias",
        "features.2b.block.expand_conv.1.weight": "stages.1.1.expand.bn.weight",
        "features.6d.block.project_conv.0.weight": "stages.5.3.project.conv.weight",
        "features.top.1.bias": "head.bn.bias",
        "classifier.1.weight": "classifier.weight",
    },
    ("v2-s", "PyTorch tutorial, V2"): {
        "stem.conv.weight": "stem.conv.weight",
        "blocks.1.project_conv.conv.weight": "stages.0.1.project.conv.weight",
        "blocks.2.expand_conv.bn.bias": "stages.1.0.expand.bn.bias",
        "blocks.10.dwconv.conv.weight": "stages.3.0.depthwise.conv.weight",
        "blocks.39.se.conv_reduce.weight": "stages.5.14.se.reduce.weight",
        "head.project_conv.conv.weight": "head.conv.weight",
        "head.classifier.bias": "classifier.bias",
    },
}


@pytest.mark.parametrize(("variant", "scheme"), TUTORIAL_NAMES)
def test_the_tutorials_naming_is_told_by_its_content(
    tmp_path: Path, variant: str, scheme: str
) -> None:
    saved, loaded = network_of(variant), network_of(variant)
    state = renamed(saved, scheme)
    torch.save(state, tmp_path / "model-29.pth")

    origin = load_weights(loaded, tmp_path / "model-29.pth")

    assert origin.scheme == scheme
    for theirs, ours in TUTORIAL_NAMES[variant, scheme].items():
        assert torch.equal(state[theirs], loaded.state_dict()[ours]), theirs
    assert (loaded.padding, loaded.stem.bn.eps) == ("symmetric", 1e-3)
    prepared = variant_preprocessing(VARIANTS[variant], None, origin.pixels)
    assert (prepared.crop_fraction, prepared.interpolation) == (1.0, "bilinear")
    assert prepared.mean == (CENTRED if variant == "v2-s" else IMAGENET_MEAN)


def timm_checkpoint(folder: Path, config: object) -> Path:
    state = geffnet_model("b0", num_classes=3).state_dict()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


# As on the hub for timm/tf_efficientnet_b0.ap_in1k, less what is of no matter here.
HUB_CONFIG = {
    "architecture": "tf_efficientnet_b0",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}


@pytest.mark.parametrize(
    ("architecture", "padding", "eps"),
    [("tf_efficientnet_b0", "same", 1e-3), ("efficientnet_b0", "symmetric", 1e-5)],
)
def test_timms_config_tells_ported_weights_from_its_own(
    tmp_path: Path, architecture: str, padding: str, eps: float
) -> None:
    path = timm_checkpoint(tmp_path, HUB_CONFIG | {"architecture": architecture})
    network = network_of("b0")

    pixels = load_weights(network, path).pixels

    assert (network.padding, network.stem.bn.eps) == (padding, eps)
    assert (pixels.resolution, pixels.crop_fraction) == (Size(224, 224), 0.9)
    assert (pixels.interpolation, pixels.mean, pixels.std) == ("bilinear", CENTRED, CENTRED)


@pytest.mark.parametrize(
    ("architecture", "arguments", "padding"),
    [
        ("tf_efficientnet_es", {}, "same-timm"),
        ("efficientnet_es", {"pad_type": "same"}, "same-timm"),
        ("efficientnet_es", {}, "symmetric"),
    ],
)
def test_timm_pads_all_of_edgetpu_where_it_pads_same(
    tmp_path: Path, architecture: str, arguments: dict, padding: str
) -> None:
    save_file(geffnet_model("es", num_classes=3).state_dict(), tmp_path / "model.safetensors")
    config = HUB_CONFIG | {"architecture": architecture, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))

    source = load_source(NetworkRequest("es", str(tmp_path / "model.safetensors"), resolution=64))

    assert source.network.padding == padding


def test_what_the_user_says_of_the_padding_outweighs_the_config(tmp_path: Path) -> None:
    network = network_of("b0")

    load_weights(network, timm_checkpoint(tmp_path, HUB_CONFIG), padding="symmetric")

    assert network.padding == "symmetric"


def test_the_size_that_accuracy_was_measured_at_is_taken(tmp_path: Path) -> None:
    sizes = {"test_input_size": [3, 256, 256], "test_crop_pct": 1.0}
    config = HUB_CONFIG | {"pretrained_cfg": HUB_CONFIG["pretrained_cfg"] | sizes}

    pixels = load_weights(network_of("b0"), timm_checkpoint(tmp_path, config)).pixels

    assert (pixels.resolution, pixels.crop_fraction) == (Size(256, 256), 1.0)


@pytest.mark.parametrize(
    ("crop_mode", "fit"), [("center", "crop"), ("squash", "stretch"), ("border", "pad")]
)
def test_a_rectangle_and_what_fits_pictures_into_it_are_taken(
    tmp_path: Path, crop_mode: str, fit: str
) -> None:
    pictures = {"input_size": [3, 96, 160], "crop_mode": crop_mode}
    config = HUB_CONFIG | {"pretrained_cfg": HUB_CONFIG["pretrained_cfg"] | pictures}
    path = str(timm_checkpoint(tmp_path, config))

    told = load_source(NetworkRequest("b0", path))
    said = load_source(NetworkRequest("b0", path, resolution=Size(64, 32), fit="stretch"))

    assert told.network.resolution == told.preprocessing.resolution == Size(96, 160)
    assert (told.preprocessing.fit, told.preprocessing.crop_fraction) == (fit, 0.9)
    assert said.network.resolution == said.preprocessing.resolution == Size(64, 32)
    whole = 0.9 if fit == "stretch" else 1.0
    assert (said.preprocessing.fit, said.preprocessing.crop_fraction) == ("stretch", whole)


def test_the_config_of_an_old_timm_is_read_too(tmp_path: Path) -> None:
    config = {"architecture": "efficientnet_b0", **HUB_CONFIG["pretrained_cfg"]}
    network = network_of("b0")

    pixels = load_weights(network, timm_checkpoint(tmp_path, config)).pixels

    assert (network.padding, pixels.crop_fraction) == ("symmetric", 0.9)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["EfficientNetForImageClassification"]},
        [],
        {"architecture": 5, "pretrained_cfg": {}},
    ],
    ids=["transformers", "no object", "no text"],
)
def test_other_programs_configs_are_left_alone(tmp_path: Path, config: object) -> None:
    network = network_of("b0")

    load_weights(network, timm_checkpoint(tmp_path, config))

    assert network.padding == "same"


@pytest.mark.parametrize(
    "wrong",
    [
        {"interpolation": "lanczos"},
        {"crop_mode": "random"},
        {"mean": [0.5, 0.5]},
        {"std": "half"},
        {"crop_pct": 1.5},
        {"input_size": 224},
        {"input_size": [224, 224]},
        {"input_size": [3, 0, 224]},
    ],
)
def test_a_config_that_cannot_be_followed_is_named(tmp_path: Path, wrong: dict) -> None:
    config = HUB_CONFIG | {"pretrained_cfg": HUB_CONFIG["pretrained_cfg"] | wrong}

    with pytest.raises(CheckpointError, match=r"config.json is not as timm writes it") as it:
        load_weights(network_of("b0"), timm_checkpoint(tmp_path, config))
    assert "\n" not in str(it.value)


def test_a_config_beside_another_naming_is_left_alone(tmp_path: Path) -> None:
    torch.save(renamed(network_of("b0"), "torchvision"), tmp_path / "mine.pth")
    (tmp_path / "config.json").write_text(json.dumps(HUB_CONFIG))

    assert load_weights(network_of("b0"), tmp_path / "mine.pth").pixels.crop_fraction == 224 / 256
