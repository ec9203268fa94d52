"""Checkpoints: every known naming, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
from importlib import resources
from pathlib import Path

import pytest
import torch
from reference_models import efficientnet_pytorch_model, geffnet_model
from safetensors.torch import save_file

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights


def small_network(**options: object) -> EfficientNet:
    return EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32, **options)


def test_the_bundled_weights_are_the_file_that_the_provenance_describes() -> None:
    data = resources.files("effnet_edge") / "data"
    provenance = json.loads((data / "b0.provenance.json").read_text())

    origin = load_weights(EfficientNet(VARIANTS["b0"]), "imagenet")

    assert origin.sha256 == provenance["sha256"]
    assert origin.sha256 == hashlib.sha256((data / "b0.safetensors").read_bytes()).hexdigest()
    assert origin.licence == "Apache-2.0"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_our_own_naming_round_trips(tmp_path: Path, suffix: str) -> None:
    saved, loaded = small_network(), small_network()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save(saved.state_dict(), path)
    else:
        save_file(saved.state_dict(), path)

    origin = load_weights(loaded, path)

    assert origin.scheme == "effnet-edge"
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize(
    ("scheme", "make"),
    [("efficientnet-pytorch", efficientnet_pytorch_model), ("geffnet", geffnet_model)],
)
def test_foreign_namings_are_told_by_their_content(tmp_path: Path, scheme: str, make) -> None:
    path = tmp_path / "checkpoint.bin"
    torch.save(make("b0", num_classes=5).state_dict(), path)

    assert load_weights(small_network(), path).scheme == scheme


def test_a_feature_extractor_takes_a_classifiers_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(efficientnet_pytorch_model("b0").state_dict(), path)

    load_weights(EfficientNet(VARIANTS["b0"], features_only=True), path)


def save_changed(path: Path, change) -> Path:
    state = small_network().state_dict()
    change(state)
    save_file(state, path)
    return path


def test_missing_and_extra_tensors_are_named(tmp_path: Path) -> None:
    def rename(state) -> None:
        state["head.oops.weight"] = state.pop("head.conv.weight")

    path = save_changed(tmp_path / "renamed.safetensors", rename)

    with pytest.raises(
        CheckpointError, match=r"renamed.safetensors.*missing head.conv.weight; extra head.oops"
    ):
        load_weights(small_network(), path)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "thousand.safetensors"
    save_file(EfficientNet(VARIANTS["b0"], resolution=32).state_dict(), path)

    with pytest.raises(
        CheckpointError, match=r"classifier.weight is 1000×1280 and should be 5×1280"
    ):
        load_weights(small_network(), path)


def test_another_variant_is_refused_with_the_first_tensors_only(tmp_path: Path) -> None:
    path = tmp_path / "b1.safetensors"
    save_file(EfficientNet(VARIANTS["b1"], num_classes=5, resolution=32).state_dict(), path)

    with pytest.raises(CheckpointError, match=r"does not fit b0: .*and \d+ more") as caught:
        load_weights(small_network(), path)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"layer1.0.conv1.weight": torch.zeros(1)}, path)

    with pytest.raises(CheckpointError, match="not an EfficientNet checkpoint.*layer1.0.conv1"):
        load_weights(small_network(), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save(small_network().state_dict(), path)
    else:
        save_file(small_network().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match=f"whole{suffix}.*(truncated|empty)"):
        load_weights(small_network(), path)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/effnet-edge-was-here"),)


@pytest.mark.parametrize("through_torch", [True, False])
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, through_torch: bool) -> None:
    marker = Path("/tmp/effnet-edge-was-here")
    marker.unlink(missing_ok=True)
    path = tmp_path / "evil.pth"
    if through_torch:
        torch.save({"stem.conv.weight": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))

    with pytest.raises(CheckpointError, match=r"evil.pth"):
        load_weights(small_network(), path)
    assert not marker.exists()


def test_a_pickled_module_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)

    with pytest.raises(CheckpointError, match="state_dict"):
        load_weights(small_network(), path)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    def poison(state) -> None:
        state["stages.2.0.depthwise.conv.weight"][3, 0, 1, 1] = float("nan")

    path = save_changed(tmp_path / "nan.safetensors", poison)

    with pytest.raises(CheckpointError, match=r"stages.2.0.depthwise.conv.weight holds NaN"):
        load_weights(small_network(), path)


def test_a_missing_file_is_bad_use_and_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file.*imagenet"):
        load_weights(small_network(), "imagenett")
    with pytest.raises(UsageError, match="is a directory"):
        load_weights(small_network(), tmp_path)
    with pytest.raises(UsageError, match="b1 has no bundled weights"):
        load_weights(EfficientNet(VARIANTS["b1"]), "imagenet")
