"""Paddings that the source of a checkpoint has at every size, where SAME follows the size."""

from __future__ import annotations

import json
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import pytest
import torch
from test_keras_files import LAYOUTS, keras_variables, network_of

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


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


NORMALIZING = (
    layer("Rescaling", "rescaling", scale=1 / 255),
    layer(
        "Normalization",
        "normalization",
        mean=[0.485, 0.456, 0.406],
        variance=[0.229**2, 0.224**2, 0.225**2],
    ),
)
# The layers that pad in an EfficientNetB0 of keras 3.15, and the sides of what they read.
PAD_LAYERS = {
    "stem_conv_pad": 1,
    "block2a_dwconv_pad": 1,
    "block3a_dwconv_pad": 2,
    "block4a_dwconv_pad": 1,
    "block6a_dwconv_pad": 2,
}


def of_keras(folder: Path, built_for: Size | None, *others: dict[str, Any], outer: Any = None):
    """A whole model as Keras 3 writes it, with the paddings of its `correct_pad`."""
    sides = [None, None] if built_for is None else [built_for.height, built_for.width]
    layers = [layer("InputLayer", "input_layer", batch_shape=[None, *sides, 3]), *NORMALIZING]
    for name, after in PAD_LAYERS.items():
        shifts = [1 if side is None else 1 - side % 2 for side in sides]
        layers.append(layer("ZeroPadding2D", name, padding=[[after - s, after] for s in shifts]))
        sides = [side if side is None else -(-side // 2) for side in sides]
    layers.append(layer("Conv2D", "stem_conv"))
    outer_input = layer("InputLayer", "input_layer_1", batch_shape=[None, *(outer or sides), 3])
    inside = layer("Functional", "efficientnetb0", layers=layers)
    document = layer("Functional", "flowers", layers=[outer_input, *others, inside])
    path = folder / "flowers.keras"
    LAYOUTS["keras"](path, keras_variables(network_of()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", json.dumps(document))
    return path


@pytest.mark.parametrize("size", [Size(240, 240), Size(225, 150), Size(128, 300)])
def test_the_size_that_a_keras_model_was_built_for_is_exported(tmp_path, size: Size) -> None:
    source = loaded_without_a_word(of_keras(tmp_path, size))

    assert source.network.resolution == source.preprocessing.resolution == size


def test_an_open_size_is_the_variants_or_that_of_the_model_around_it(tmp_path) -> None:
    open_size = loaded_without_a_word(of_keras(tmp_path, None))
    around = loaded_without_a_word(of_keras(tmp_path, None, outer=[128, 192]))

    assert open_size.network.resolution == Size(224, 224)
    assert around.network.resolution == Size(128, 192)


def test_the_size_of_a_whole_model_of_keras_2_is_exported(tmp_path) -> None:
    shaped = layer("InputLayer", "input_1", batch_input_shape=[None, 96, 160, 3])
    model = layer(
        "Functional", "model", layers=[shaped, *NORMALIZING, layer("Conv2D", "stem_conv")]
    )
    LAYOUTS["whole model"](tmp_path / "flowers.h5", keras_variables(network_of()))
    with h5py.File(tmp_path / "flowers.h5", "a") as file:
        file.attrs["model_config"] = json.dumps(model)

    source = loaded_without_a_word(tmp_path / "flowers.h5")

    assert source.network.resolution == Size(96, 160)
    assert source.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("built_for", "size", "nearest"),
    [
        (None, Size(240, 240), "224"),
        (None, Size(225, 64), "224x64"),
        (Size(240, 240), Size(224, 224), "208"),
        (Size(128, 225), Size(128, 224), "128x225"),
    ],
)
def test_a_size_that_keras_pads_otherwise_is_refused(tmp_path, built_for, size, nearest) -> None:
    path = of_keras(tmp_path, built_for)

    with pytest.raises(CheckpointError, match="flowers.keras: Keras, by the ZeroPad") as it:
        loaded(path, resolution=size)
    assert f"than SAME does at {size}: give --resolution {nearest}, the nearest" in str(it.value)

    loaded_without_a_word(path, resolution=Size.parse(nearest))
    with pytest.warns(CheckpointWarning, match="was overruled: this is another network"):
        assert loaded(path, resolution=size, padding="same").network.resolution == size


def test_other_sizes_that_keras_pads_alike_are_taken(tmp_path) -> None:
    loaded_without_a_word(of_keras(tmp_path, None), resolution=Size(64, 256))
    loaded_without_a_word(of_keras(tmp_path, Size(240, 240)), resolution=208)


def test_a_layer_that_pads_the_picture_is_refused(tmp_path) -> None:
    before = layer("ZeroPadding2D", "border", padding=[[8, 8], [8, 8]])
    nothing = layer("ZeroPadding2D", "none", padding=0)

    loaded_without_a_word(of_keras(tmp_path, None, nothing))
    with pytest.raises(CheckpointError, match=r"its layer border pads by \(\(8, 8\), \(8, 8\)\)"):
        loaded(of_keras(tmp_path, None, before))


@pytest.mark.parametrize("padding", [None, "same", [1, 2, 3], [[1], [2]], [[True, 1], [1, 1]]])
def test_a_padding_that_is_none_is_refused(tmp_path, padding: Any) -> None:
    wrong = layer("ZeroPadding2D", "border", padding=padding)

    with pytest.raises(CheckpointError, match="its layer border has the padding .*, which is none"):
        loaded(of_keras(tmp_path, None, wrong))


def test_paddings_that_same_never_has_have_no_size() -> None:
    before = FixedPads("m.keras", {"stem.conv": ((1, 0), (1, 0))})

    with pytest.raises(CheckpointError, match="m.keras pads .* at 64×64: give --padding same"):
        before.check(VARIANTS["b0"], Size(64, 64), "same", is_asked_for=False)
