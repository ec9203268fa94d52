"""Paddings that the source of a checkpoint has at every size, where SAME follows the size."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.fixed_pads import (
    FixedPads,
    pads_at_own_size,
    pads_of_transformers,
)
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet, PaddedConv2d
from effnet_edge.model.paddings import strided_convolutions
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights
from effnet_edge.size import Size

if TYPE_CHECKING:
    from pathlib import Path


def saved(folder: Path, naming: str, variant: str = "b0") -> Path:
    own = EfficientNet(VARIANTS[variant], num_classes=3, resolution=32).state_dict()
    scheme = next(each for each in NAMING_SCHEMES if each.name == naming)
    torch.save({theirs: own[ours] for ours, theirs in translate(own, scheme).items()}, folder / "m")
    return folder / "m"


def of_transformers(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "efficientnet", **config}))
    return saved(folder, "Hugging Face transformers")


def loaded(path: Path, **asked: Any) -> Source:
    return load_source(NetworkRequest("b0", str(path), **asked))


def loaded_without_a_word(path: Path, **asked: Any) -> Source:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        return loaded(path, **asked)


@pytest.mark.parametrize("size", [Size(95, 150), Size(224, 240)])
@pytest.mark.parametrize("padding", ["same", "symmetric", "same-timm"])
@pytest.mark.parametrize("variant", ["b0", "es", "v2-b0"])
def test_the_strided_convolutions_are_those_of_the_network(variant, padding, size) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=size, padding=padding)
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, PaddedConv2d) and module.stride != (1, 1):
            up, left = module.padding
            around = module.explicit_padding or (left, left, up, up)
            found[name] = (around[2:], around[:2])

    told = {each.name: each.pads(padding) for each in strided_convolutions(VARIANTS[variant], size)}

    assert told == found


# `depthwise_padding` of google/efficientnet-b0 to b7, at whose `image_size` their answers are those
# of the authors' SAME padding.
GOOGLES = {
    "b0": [],
    "b1": [16],
    "b2": [5, 8, 16],
    "b3": [5, 18],
    "b4": [6],
    "b5": [13, 27],
    "b6": [31],
    "b7": [18],
}


@pytest.mark.parametrize("variant", GOOGLES)
def test_what_google_published_for_transformers_pads_as_same_does(variant: str) -> None:
    row = VARIANTS[variant]

    assert pads_of_transformers(row, GOOGLES[variant]) == pads_at_own_size(row)


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"image_size": 224}, {}),
        ({"image_size": 256, "depthwise_padding": []}, {}),
        ({"image_size": 240, "depthwise_padding": [11]}, {}),
        ({"image_size": 240}, {"resolution": 224}),
        ({"image_size": 224}, {"resolution": Size(64, 96)}),
        ({"image_size": 224, "depthwise_padding": [11]}, {"resolution": 240}),
        ({"image_size": 224, "depthwise_padding": [0, 2, 15]}, {}),
    ],
)
def test_sizes_that_same_pads_as_transformers_does_are_taken(tmp_path, config, asked) -> None:
    source = loaded_without_a_word(of_transformers(tmp_path, **config), **asked)

    assert source.network.padding == "same"


@pytest.mark.parametrize(
    ("config", "asked", "size", "nearest"),
    [
        ({"image_size": 240}, {}, "240×240", "224"),
        ({"image_size": 300}, {}, "300×300", "288"),
        ({"image_size": 225}, {}, "225×225", "224"),
        ({"image_size": [192, 250]}, {}, "192×250", "192x256"),
        ({"image_size": 224}, {"resolution": 240}, "240×240", "224"),
        ({"image_size": 224}, {"resolution": Size(225, 64)}, "225×64", "224x64"),
        ({"image_size": 240, "depthwise_padding": [11]}, {"resolution": 250}, "250×250", "240"),
    ],
)
def test_a_size_that_transformers_pads_otherwise_is_refused(
    tmp_path, config, asked, size: str, nearest: str
) -> None:
    path = of_transformers(tmp_path, **config)

    with pytest.raises(CheckpointError, match=f"pads otherwise than SAME does at {size}") as it:
        loaded(path, **asked)

    told = str(it.value)
    assert told.startswith(f"{tmp_path / 'config.json'}: transformers, with a depthwise_padding of")
    assert f"give --resolution {nearest}, the nearest at which" in told
    assert "--padding same" in told
    assert "\n" not in told
    size_of_it = Size.parse(nearest)
    assert loaded_without_a_word(path, resolution=size_of_it).network.resolution == size_of_it


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_who_asks_for_a_padding_gets_it_and_is_told(tmp_path, padding: str) -> None:
    path = of_transformers(tmp_path, image_size=240)

    with pytest.warns(CheckpointWarning, match=f"otherwise than --padding {padding} does at 240"):
        source = loaded(path, padding=padding)

    assert (source.network.padding, source.network.resolution) == (padding, Size(240, 240))


def test_a_network_that_is_there_already_is_held_to_it(tmp_path) -> None:
    path = of_transformers(tmp_path)
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=240)

    with pytest.raises(CheckpointError, match="give --resolution 224"):
        load_weights(network, path)
    with pytest.warns(CheckpointWarning, match="was overruled"):
        load_weights(network, path, padding="same")


def test_without_its_config_transformers_is_taken_to_pad_as_google_published(tmp_path) -> None:
    path = saved(tmp_path, "Hugging Face transformers")

    loaded_without_a_word(path, resolution=64)
    with pytest.warns(CheckpointWarning, match="unless the depthwise_padding .* for 240×240"):
        loaded(path, resolution=240)


@pytest.mark.parametrize("size", [224, 192, Size(64, 256)])
def test_sizes_that_same_pads_as_the_models_own_are_taken(tmp_path, size) -> None:
    loaded_without_a_word(saved(tmp_path, "efficientnet-pytorch"), resolution=size)


def test_efficientnet_pytorch_at_another_size_is_told(tmp_path) -> None:
    path = saved(tmp_path, "efficientnet-pytorch")

    with pytest.warns(CheckpointWarning, match="m: efficientnet-pytorch, unless .*") as told:
        source = loaded(path, resolution=300)
    with pytest.warns(CheckpointWarning, match="unless it is built with an image_size of 300×300"):
        loaded(path, resolution=300, padding="same")
    loaded_without_a_word(path, resolution=300, padding="symmetric")

    assert (source.network.padding, source.network.resolution) == ("same", Size(300, 300))
    assert "--resolution 288, the nearest" in str(told[0].message)


@pytest.mark.parametrize("wrong", [{"a": 1}, "all", [1.5], [True], 7])
def test_a_list_of_blocks_that_is_none_is_refused(tmp_path, wrong: Any) -> None:
    with pytest.raises(CheckpointError, match="depthwise_padding is"):
        loaded(of_transformers(tmp_path, depthwise_padding=wrong))


def test_paddings_that_same_never_has_have_no_size() -> None:
    before = FixedPads("m.keras", {"stem.conv": ((1, 0), (1, 0))})

    with pytest.raises(CheckpointError, match="m.keras pads .* at 64×64: give --padding same"):
        before.check(VARIANTS["b0"], Size(64, 64), "same", is_asked_for=False)
