"""The network against its original: what all other gates share the mistake of is seen here."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from original_networks import SIDE, MaxPooled, geffnet_network, trained_like
from originals_compared import PHOTOS, compared, saved
from reference_models import efficientnet_pytorch_model
from safetensors.torch import save_file
from torch import nn

from effnet_edge.errors import (
    BackendError,
    CheckpointWarning,
    EffnetEdgeError,
    GateError,
    UsageError,
)
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import CENTRED, IMAGENET_MEAN, IMAGENET_STD
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.image import normalize
from effnet_edge.size import Size
from effnet_export.against import check_origin, compare_with_original

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def ported() -> nn.Module:
    """SAME padding, an epsilon of 1e-3, the mean at the end."""
    return geffnet_network("tf_efficientnet_b0")


@pytest.fixture(scope="module")
def native() -> nn.Module:
    """Symmetric padding and PyTorch's epsilon, with the same tensors."""
    return geffnet_network("efficientnet_b0")


def answered(
    model: nn.Module, path: Path, mean: tuple[float, ...] = IMAGENET_MEAN, **arrays: Any
) -> str:
    """Save what the model answers to the photos, prepared by its own statistics."""
    request = NetworkRequest("b0", "random", num_classes=3, resolution=SIDE)
    preprocessing = load_source(request).preprocessing
    ((pixels, _),) = PHOTOS.batches(preprocessing, len(PHOTOS))
    std = IMAGENET_STD if mean == IMAGENET_MEAN else CENTRED
    inputs = (pixels.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs).permute(0, 3, 1, 2)).numpy()
    np.savez(path, **({"logits": logits, "pixels": pixels} | arrays))
    return str(path)


def test_the_package_that_a_checkpoint_comes_from_answers_the_same(tmp_path, ported) -> None:
    stage = compared(saved(ported, tmp_path), "geffnet:tf_efficientnet_b0")

    assert stage.stage == "original"
    assert stage.reference.startswith("geffnet ")
    assert "tf_efficientnet_b0" in stage.reference
    assert stage.measures["sqnr_db"].at_least == 60
    assert stage.holds


def exported(model: nn.Module, path: Path) -> str:
    """The model as an ONNX file, made by PyTorch alone, which leaves it in the mode it was in."""
    batch = torch.zeros(1, 3, SIDE, SIDE)
    dynamic = {"x": {0: "batch"}}
    torch.onnx.export(
        model.eval(), (batch,), path, input_names=["x"], dynamic_axes=dynamic, dynamo=False
    )
    return str(path)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("original.onnx", nn.Identity()),
        pytest.param("original.onnx", nn.Softmax(1), marks=pytest.mark.slow),
        ("ORIGINAL.ONNX", nn.LogSoftmax(1)),
    ],
    ids=str,
)
def test_a_file_of_the_original_answers_the_same(tmp_path, native, end, name: str) -> None:
    origin = exported(nn.Sequential(native, end), tmp_path / name)

    stage = compared(saved(native, tmp_path, {}), origin)

    assert (stage.holds, stage.images) == (True, len(PHOTOS))


@pytest.mark.sample
@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1)], ids=str)
def test_a_wrong_padding_is_named_from_a_file_too(tmp_path, native, end) -> None:
    origin = exported(nn.Sequential(native, end), tmp_path / "original.onnx")

    with pytest.raises(GateError, match=r"the likely cause is the padding: it pads symmetric"):
        compared(saved(native, tmp_path, {}), origin, padding="same")


@pytest.fixture
def years(tmp_path, native) -> nn.Module:
    """A network of one value, about 2000, which varies by about 1."""
    told = np.load(answered(native, tmp_path / "classes.npz"))["logits"][:, :1]
    model = copy.deepcopy(native)
    with torch.no_grad():
        spread, mean = float(told.std()), float(told.mean())
        model.classifier.weight = nn.Parameter(model.classifier.weight[:1] / spread)
        model.classifier.bias = nn.Parameter((model.classifier.bias[:1] - mean) / spread + 2000)
    return model


def test_values_are_compared_by_their_spread_and_not_by_their_offset(tmp_path, years) -> None:
    path, asked = saved(years, tmp_path, {}), {"output_kind": "regression"}
    origin = answered(years, tmp_path / "years.npz")

    stage = compared(path, origin, **asked)
    assert stage.holds
    assert stage.measures["nrmse"].at_most == pytest.approx(1e-3)
    assert stage.measures["sqnr_db"].value > 90
    with pytest.raises(GateError, match=r"RMSE / spread .*cause is the padding: it pads symmetric"):
        compared(path, origin, padding="same", **asked)


def test_a_single_value_proves_nothing(tmp_path, years) -> None:
    told = np.load(answered(years, tmp_path / "years.npz"))
    np.savez(tmp_path / "one.npz", **{key: told[key][:1] for key in told})

    with pytest.raises(UsageError, match="values are compared on 2 pictures or more"):
        compared(saved(years, tmp_path, {}), str(tmp_path / "one.npz"), output_kind="regression")


def test_a_file_of_logits_may_be_named_in_capitals(tmp_path, native) -> None:
    origin = tmp_path / "LOGITS.NPZ"
    (tmp_path / "logits.npz").rename(answered(native, tmp_path / "logits.npz") and origin)

    assert compared(saved(native, tmp_path, {}), str(origin)).holds


@pytest.mark.sample
def test_the_variant_tells_the_model_where_there_is_but_one(tmp_path) -> None:
    model = efficientnet_pytorch_model("b0", 3)
    model.load_state_dict(trained_like("efficientnet-pytorch"), strict=False)

    assert compared(saved(model, tmp_path), "efficientnet-pytorch").holds


def test_a_package_that_pads_for_its_own_size_is_held_to_it(tmp_path) -> None:
    """It does as its users have it: without image_size, whatever size they give it."""
    model = efficientnet_pytorch_model("b0", 3)
    model.load_state_dict(trained_like("efficientnet-pytorch"), strict=False)
    size = SIDE + 16
    request = NetworkRequest("b0", str(saved(model, tmp_path)), resolution=size)
    with pytest.warns(CheckpointWarning, match=f"image_size of {size}×{size}, pads otherwise"):
        source = load_source(request)

    with pytest.raises(GateError, match=rf"built with image_size=\[{size}, {size}\] the") as it:
        compare_with_original("efficientnet-pytorch", request, source, PHOTOS)

    assert "but as for 224 px" in str(it.value)
    assert "\n" not in str(it.value)


def test_other_causes_are_named_of_such_a_package_too(tmp_path) -> None:
    model = efficientnet_pytorch_model("b0", 3)
    model.load_state_dict(trained_like("efficientnet-pytorch"), strict=False)

    with pytest.raises(GateError, match="the likely cause is the padding"):
        compared(saved(model, tmp_path), "efficientnet-pytorch", padding="symmetric")


def test_a_rectangle_is_compared_too(tmp_path, ported) -> None:
    path, size = saved(ported, tmp_path), Size(SIDE, 96)
    request = NetworkRequest("b0", str(path), resolution=size)

    stage = compare_with_original(
        "geffnet:tf_efficientnet_b0", request, load_source(request), PHOTOS
    )

    assert stage.holds


def test_a_config_tells_the_model(tmp_path, native) -> None:
    assert compared(saved(native, tmp_path, {}), "geffnet").holds


def test_features_are_compared_too(tmp_path, ported) -> None:
    path = saved(ported, tmp_path)

    stage = compared(path, "geffnet:tf_efficientnet_b0", output_kind="features")

    assert stage.holds


def test_a_wrong_padding_is_caught_and_named(tmp_path, native) -> None:
    path = saved(native, tmp_path)

    with pytest.raises(GateError, match=r"the padding and .*--padding symmetric says so") as it:
        compared(path, "geffnet:efficientnet_b0")

    assert "\n" not in str(it.value)
    assert compared(path, "geffnet:efficientnet_b0", padding="symmetric").holds


@pytest.mark.sample
def test_max_pooling_is_caught_and_named_and_a_config_mends_it(tmp_path, native) -> None:
    origin = answered(MaxPooled(native), tmp_path / "logits.npz")

    with pytest.raises(GateError, match='the pooling, which is max: .*"global_pool": "max"'):
        compared(saved(native, tmp_path, {}), origin)

    assert compared(saved(native, tmp_path, {"global_pool": "max"}), origin).holds


@pytest.mark.sample
def test_a_wrong_epsilon_is_caught_and_named_and_a_config_mends_it(tmp_path, native) -> None:
    origin = answered(geffnet_network("efficientnet_b0", bn_eps=1e-3), tmp_path / "logits.npz")

    with pytest.raises(GateError, match="batch norm's epsilon, which is 0.001"):
        compared(saved(native, tmp_path, {}), origin)

    assert compared(saved(native, tmp_path, {"bn_eps": 1e-3}), origin).holds


@pytest.mark.parametrize("padding", [None, "symmetric"])
def test_the_options_that_are_advised_help_a_naming_of_any_epsilon(
    tmp_path, native, padding
) -> None:
    origin = answered(native, tmp_path / "logits.npz")
    scheme = next(each for each in NAMING_SCHEMES if each.name == "geffnet")
    names = translate(EfficientNet(VARIANTS["b0"], num_classes=3).tensors(), scheme)
    state = native.state_dict()
    save_file({ours: state[name] for ours, name in names.items()}, tmp_path / "own.safetensors")
    path = tmp_path / "own.safetensors"

    with pytest.raises(GateError, match="--batch-norm-eps 1e-05 .*says so") as raised:
        compared(path, origin, padding=padding)

    assert "config.json" not in str(raised.value)
    assert compared(path, origin, padding="symmetric", batch_norm_eps=1e-5).holds


@pytest.mark.sample
def test_a_wrong_mean_is_caught_and_named(tmp_path, native) -> None:
    path = saved(native, tmp_path, {})
    origin = answered(native, tmp_path / "logits.npz", mean=CENTRED)

    with pytest.raises(GateError, match=r"--mean 0\.5,0\.5,0\.5 --std 0\.5,0\.5,0\.5 says so"):
        compared(path, origin)

    assert compared(path, origin, mean=CENTRED, std=CENTRED).holds


@pytest.mark.sample
def test_a_wrong_activation_is_caught_and_named(tmp_path, native) -> None:
    origin = answered(geffnet_network("efficientnet_b0", act_layer="relu"), tmp_path / "logits.npz")

    with pytest.raises(GateError, match="the activation, which is relu"):
        compared(saved(native, tmp_path, {}), origin)

    assert compared(saved(native, tmp_path, {"act_layer": "relu"}), origin).holds


@pytest.mark.sample
def test_other_weights_have_no_cause(tmp_path, native) -> None:
    other = geffnet_network("efficientnet_b0")
    nn.init.normal_(other.conv_stem.weight)

    with pytest.raises(GateError, match="another network, or has other weights"):
        compared(saved(native, tmp_path, {}), answered(other, tmp_path / "logits.npz"))


def test_probabilities_are_told(tmp_path, native) -> None:
    origin = answered(nn.Sequential(native, nn.Softmax(1)), tmp_path / "logits.npz")

    with pytest.raises(GateError, match="gives probabilities"):
        compared(saved(native, tmp_path, {}), origin)


def test_normalized_inputs_do_as_well_as_pixels(tmp_path, native) -> None:
    request = NetworkRequest("b0", "random", num_classes=3, resolution=SIDE)
    preprocessing = load_source(request).preprocessing
    ((pixels, _),) = PHOTOS.batches(preprocessing, len(PHOTOS))
    inputs = normalize(pixels, preprocessing)
    with torch.no_grad():
        logits = native(torch.from_numpy(inputs)).numpy()
    np.savez(tmp_path / "logits.npz", logits=logits, inputs=inputs)

    stage = compared(saved(native, tmp_path, {}), str(tmp_path / "logits.npz"))

    assert (stage.holds, stage.images) == (True, len(PHOTOS))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"pixels": np.zeros((4, 32, 32, 3), np.uint8)}, r"the network takes uint8 \(N, 64, 64"),
        ({"pixels": np.zeros((4, SIDE, SIDE, 3))}, "pixels is float64"),
        ({"logits": np.zeros((3, 3), np.float32)}, r"logits is float32 \(3, 3\)"),
        ({"logits": np.zeros((4, 3), np.int64)}, "logits is int64"),
        ({"logits": np.zeros((4, 7), np.float32)}, "7 classes"),
        ({"inputs": np.zeros((4, 3, SIDE, SIDE), np.float32)}, "either pixels"),
        ({"logits": np.array([None] * 4, object)}, "cannot be read"),
    ],
)
def test_a_file_of_logits_that_does_not_fit_is_told(tmp_path, native, arrays, told: str) -> None:
    origin = answered(native, tmp_path / "logits.npz", **arrays)

    with pytest.raises(EffnetEdgeError, match=told) as it:
        compared(saved(native, tmp_path, {}), origin)
    assert "\n" not in str(it.value)


def test_a_file_that_is_no_archive_is_told(tmp_path, native) -> None:
    (tmp_path / "logits.npz").write_bytes(b"nonsense")

    with pytest.raises(UsageError, match="cannot be read"):
        compared(saved(native, tmp_path, {}), str(tmp_path / "logits.npz"))


def test_a_package_of_another_naming_is_refused(tmp_path, native) -> None:
    with pytest.raises(UsageError, match="has the naming of geffnet, and torchvision takes"):
        compared(saved(native, tmp_path), "torchvision")


def test_without_a_config_the_model_has_to_be_said(tmp_path, native) -> None:
    with pytest.raises(UsageError, match="geffnet:efficientnet_b0 or tf_efficientnet_b0"):
        compared(saved(native, tmp_path), "geffnet")


def test_random_weights_have_no_original() -> None:
    with pytest.raises(UsageError, match="random weights have no original"):
        compared("random", "geffnet:efficientnet_b0")  # type: ignore[arg-type]


def test_a_model_that_the_package_does_not_have_is_told(tmp_path, native) -> None:
    with pytest.raises(BackendError, match="geffnet failed .*no_such"):
        compared(saved(native, tmp_path), "geffnet:no_such")


@pytest.mark.parametrize("origin", ["pytorch", "", "timmm:tf_efficientnet_b0", "logits.npy"])
def test_an_origin_that_is_none_is_told_at_once(origin: str) -> None:
    with pytest.raises(UsageError, match="give a package"):
        check_origin(origin)


def test_a_file_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="no such file"):
        check_origin("nowhere.npz")
