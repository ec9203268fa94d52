"""TensorFlow's checkpoints: a file that TensorFlow wrote, whole networks, and damage."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_edge.errors import BackendError, CheckpointError, UsageError
from effnet_edge.model.checkpoints.files import read_checkpoint
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.checkpoints.tf_bundle import read_bundle
from effnet_edge.model.checkpoints.tf_reference import AVERAGED, read_tf_checkpoint
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

TINY = Path(__file__).with_name("tf_bundle") / "tiny.index"


def test_what_tensorflow_wrote_is_read_to_the_bit() -> None:
    tensors, files = read_bundle(TINY, lambda _: True)

    assert [file.name for file in files] == ["tiny.index", "tiny.data-00000-of-00001"]
    assert "global_step" not in tensors
    assert len(tensors) == 9
    kernel = np.arange(72, dtype="f4").reshape(3, 3, 2, 4)
    np.testing.assert_array_equal(tensors["tiny/stem/conv2d/kernel"], kernel)
    np.testing.assert_array_equal(tensors[f"tiny/stem/conv2d/kernel{AVERAGED}"], -kernel)
    np.testing.assert_array_equal(tensors["tiny/blocks_0/se/conv2d/bias"], [0.5, -1.5])
    norm = "tiny/blocks_0/tpu_batch_normalization"
    np.testing.assert_array_equal(tensors[f"{norm}/gamma"], [1e300, -2.25])
    np.testing.assert_array_equal(tensors[f"{norm}/beta"], [3.0, -0.15625])
    assert tensors["tiny/head/dense/bias"].shape == (0,)


def test_only_what_is_wanted_is_read() -> None:
    tensors, _ = read_bundle(TINY, lambda name: name.endswith("beta"))

    assert list(tensors) == ["tiny/blocks_0/tpu_batch_normalization/beta"]


def test_names_axes_and_moving_averages() -> None:
    tensors, _ = read_tf_checkpoint(TINY)

    assert sorted(tensors) == [
        "blocks_0/depthwise_conv2d.weight",
        "blocks_0/se/conv2d.bias",
        "blocks_0/tpu_batch_normalization.bias",
        "blocks_0/tpu_batch_normalization.weight",
        "head/dense.bias",
        "head/dense.weight",
        "stem/conv2d.weight",
    ]
    kernel = -torch.arange(72.0).reshape(3, 3, 2, 4)
    assert torch.equal(tensors["stem/conv2d.weight"], kernel.permute(3, 2, 0, 1))
    depthwise = torch.arange(20.0).reshape(5, 1, 4, 1)
    assert torch.equal(tensors["blocks_0/depthwise_conv2d.weight"], depthwise.permute(2, 3, 0, 1))
    assert torch.equal(tensors["head/dense.weight"], torch.arange(6.0).reshape(2, 3).T)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)

    with pytest.raises(BackendError, match=r"needs google-crc32c: pip install"):
        read_bundle(TINY, lambda _: True)


def copy_of_tiny(folder: Path) -> Path:
    for file in TINY.parent.glob("tiny.*"):
        shutil.copy(file, folder)
    return folder / TINY.name


@pytest.mark.parametrize("name", ["tiny.index", "tiny.data-00000-of-00001"])
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_flipped_bit_is_an_error_or_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    index = copy_of_tiny(tmp_path_factory.mktemp("bundle"))
    content = bytearray(index.with_name(name).read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    index.with_name(name).write_bytes(content)

    tensors, error = read_or_refuse(index)

    assert "\n" not in error
    if tensors is None:
        assert "tiny" in error
        return
    whole, _ = read_bundle(TINY, lambda _: True)
    assert tensors.keys() == whole.keys()
    for key, values in whole.items():
        np.testing.assert_array_equal(tensors[key], values)


def read_or_refuse(index: Path) -> tuple[dict[str, np.ndarray] | None, str]:
    try:
        return read_bundle(index, lambda _: True)[0], ""
    except CheckpointError as error:
        return None, str(error)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_that_end_like_an_index_are_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    index = copy_of_tiny(tmp_path_factory.mktemp("bundle"))
    index.write_bytes(content + TINY.read_bytes()[-8:])

    with pytest.raises(CheckpointError, match="tiny.index is truncated or damaged"):
        read_bundle(index, lambda _: True)


@given(st.integers(0, TINY.stat().st_size - 1))
@settings(max_examples=60, deadline=None)
def test_a_truncated_index_is_an_error(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    index = copy_of_tiny(tmp_path_factory.mktemp("bundle"))
    index.write_bytes(TINY.read_bytes()[:size])

    with pytest.raises(CheckpointError, match="tiny.index"):
        read_checkpoint(index)


def test_a_truncated_or_missing_data_file_is_named(tmp_path: Path) -> None:
    index = copy_of_tiny(tmp_path)
    shard = tmp_path / "tiny.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="data-00000-of-00001 ends before tensor"):
        read_bundle(index, lambda _: True)

    shard.unlink()
    with pytest.raises(CheckpointError, match="data-00000-of-00001 is not beside it"):
        read_bundle(index, lambda _: True)


def as_tensorflow(tensor: torch.Tensor, *, depthwise: bool) -> np.ndarray:
    values = tensor.numpy()
    if values.ndim == 4:
        return values.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return values.T


LEAVES = {"running_mean": "moving_mean", "running_var": "moving_variance"}


def reference_variables(network: EfficientNet) -> dict[str, np.ndarray]:
    """By the names of efficientnet_model.py's variables."""
    scheme = next(each for each in NAMING_SCHEMES if each.name == "TensorFlow reference")
    state = network.state_dict()
    variables = {}
    for ours, theirs in translate(state, scheme).items():
        layer, _, leaf = theirs.rpartition(".")
        depthwise = ours.endswith("depthwise.conv.weight")
        if "normalization" in layer:
            name = {"weight": "gamma", "bias": "beta"}.get(leaf) or LEAVES[leaf]
        else:
            name = {"weight": "depthwise_kernel" if depthwise else "kernel"}.get(leaf, leaf)
        values = as_tensorflow(state[ours], depthwise=depthwise)
        variables[f"efficientnet/{layer}/{name}"] = values
    return variables


# By efficientnet_model.py of github.com/tensorflow/tpu and effnetv2_model.py of google/automl: a
# layer's number counts those of its class that the block has before it.
REFERENCE_NAMES = {
    "b0": {
        "efficientnet/stem/tpu_batch_normalization/gamma": "stem.bn.weight",
        "efficientnet/blocks_0/tpu_batch_normalization_1/beta": "stages.0.0.project.bn.bias",
        "efficientnet/blocks_0/tpu_batch_normalization/moving_mean": (
            "stages.0.0.depthwise.bn.running_mean"
        ),
        "efficientnet/blocks_2/tpu_batch_normalization_2/moving_variance": (
            "stages.1.1.project.bn.running_var"
        ),
        "efficientnet/blocks_15/se/conv2d_1/bias": "stages.6.0.se.expand.bias",
        "efficientnet/head/dense/bias": "classifier.bias",
    },
    "es": {"efficientnet/blocks_1/tpu_batch_normalization_1/beta": "stages.1.0.project.bn.bias"},
    "v2-b0": {
        "efficientnet/blocks_0/tpu_batch_normalization/beta": "stages.0.0.project.bn.bias",
        "efficientnet/blocks_1/tpu_batch_normalization/beta": "stages.1.0.expand.bn.bias",
    },
}


def network_of(variant: str, classes: int = 3) -> EfficientNet:
    network = EfficientNet(VARIANTS[variant], num_classes=classes, resolution=32)
    for tensor in network.tensors().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize(
    ("variant", "given_as"),
    [
        ("b0", "directory"),
        ("es", "index"),
        pytest.param("es", "data file", marks=pytest.mark.slow),
        pytest.param("es", "prefix", marks=pytest.mark.slow),
        pytest.param("v2-b0", "index", marks=pytest.mark.slow),
    ],
)
def test_a_reference_checkpoint_fills_the_network(
    tmp_path: Path, variant: str, given_as: str
) -> None:
    saved, loaded = network_of(variant), network_of(variant)
    variables = reference_variables(saved)
    write_bundle(tmp_path / "model.ckpt", variables)
    suffix = {"index": ".index", "data file": ".data-00000-of-00001", "prefix": ""}

    where = tmp_path / f"model.ckpt{suffix[given_as]}" if given_as in suffix else tmp_path
    origin = load_weights(loaded, where)

    assert (origin.scheme, origin.name) == ("TensorFlow reference", "model.ckpt.index")
    assert (loaded.padding, loaded.stem.bn.eps) == ("same", 1e-3)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    for theirs, ours in REFERENCE_NAMES[variant].items():
        np.testing.assert_array_equal(variables[theirs], loaded.state_dict()[ours], theirs)


def test_the_hash_is_of_all_files(tmp_path: Path) -> None:
    network = network_of("b0")
    variables = reference_variables(network)
    write_bundle(tmp_path / "one", variables)
    variables["efficientnet/head/dense/bias"] = variables["efficientnet/head/dense/bias"] + 1
    write_bundle(tmp_path / "two", variables)

    first, second = (load_weights(network, tmp_path / name) for name in ("one", "two"))

    assert first.sha256 != second.sha256


def test_the_background_class_is_dropped_from_1001(tmp_path: Path) -> None:
    saved, loaded = network_of("b0", 1001), network_of("b0", 1000)
    write_bundle(tmp_path / "model.ckpt", reference_variables(saved))

    load_weights(loaded, tmp_path / "model.ckpt")

    assert torch.equal(loaded.classifier.weight, saved.classifier.weight[1:])
    assert torch.equal(loaded.classifier.bias, saved.classifier.bias[1:])


def test_all_1001_classes_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    saved, loaded = network_of("b0", 1001), network_of("b0", 1001)
    write_bundle(tmp_path / "model.ckpt", reference_variables(saved))

    load_weights(loaded, tmp_path / "model.ckpt")

    assert torch.equal(loaded.classifier.bias, saved.classifier.bias)


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", reference_variables(network_of("b0", 4)))

    with pytest.raises(CheckpointError, match=r"head/dense.weight is 4×1280 and should be 3×1280"):
        load_weights(network_of("b0"), tmp_path / "model.ckpt")


def test_a_directory_of_two_checkpoints_is_bad_use(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_bundle(tmp_path / name, {"kernel": np.zeros(1)})

    with pytest.raises(UsageError, match="is a directory"):
        load_weights(network_of("b0"), tmp_path)


def test_pixels_are_centred_as_the_authors_do(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", reference_variables(network_of("es")))

    pixels = load_weights(network_of("es"), tmp_path / "model.ckpt").pixels

    assert pixels.mean is not None
    assert pixels.std is not None
    assert pixels.mean[0] * 255 == pytest.approx(127)
    assert pixels.std[2] * 255 == pytest.approx(128)


def test_of_two_networks_the_user_chooses(tmp_path: Path) -> None:
    student, teacher = network_of("b0"), network_of("b0")
    variables = {
        name.replace("efficientnet", model): values
        for model, network in (("student", student), ("distilled/teacher", teacher))
        for name, values in reference_variables(network).items()
    }
    write_bundle(tmp_path / "model.ckpt", variables)
    path, loaded = f"{tmp_path}/model.ckpt.index", network_of("b0")

    with pytest.raises(UsageError, match=r"holds 2 networks \(student, distilled/teacher\)"):
        load_weights(loaded, path)
    for part, network in (("student", student), ("distilled/teacher", teacher)):
        load_weights(loaded, f"{path}#{part}")
        assert torch.equal(loaded.classifier.weight, network.classifier.weight)
