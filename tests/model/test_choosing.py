"""The network is found among all that training code saves with it."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from later import quick
from safetensors.torch import save_file

from effnet_edge.errors import CheckpointError, CheckpointWarning, UsageError
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    State = dict[str, Tensor]

NETWORK = EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32)
SCHEMES = {scheme.name: scheme for scheme in NAMING_SCHEMES}


def state(naming: str = "geffnet", scale: float = 1.0) -> State:
    own = NETWORK.state_dict()
    names = translate(own, SCHEMES[naming])
    found = {theirs: own[ours].clone() for ours, theirs in names.items()}
    return {name: each * scale for name, each in found.items()}


def headless() -> State:
    return {name: each for name, each in state().items() if not name.startswith("classifier")}


def prefixed(prefix: str, tensors: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def classifier(weights: str) -> Tensor:
    network = load_source(NetworkRequest("b0", weights, resolution=32, padding="same")).network
    assert network.output_size == 5
    scale = (network.stem.conv.weight / NETWORK.stem.conv.weight).median()
    originals = NETWORK.state_dict()
    for name, tensor in network.state_dict().items():
        if name.startswith("stages.") and not name.endswith("num_batches_tracked"):
            assert torch.allclose(tensor, originals[name] * scale), name
    return network.classifier.weight


def is_original(weight: Tensor) -> bool:
    return torch.equal(weight, NETWORK.classifier.weight)


@pytest.mark.parametrize(
    ("content", "stranger"),
    [
        ({"args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"best": np.float64(0.9)}, "multiarray.scalar"),
        ({"out": pathlib.PurePosixPath("runs/1")}, "pathlib.PurePosixPath"),
        ({"at": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)}, "datetime.datetime"),
        ({"hist": collections.defaultdict(list, {1: [2.0]})}, None),
        ({"confusion": np.ones((5, 5))}, "_reconstruct"),
        ({"tags": {"a", "b"}, "frozen": frozenset({1}), "size": torch.Size([1, 2])}, None),
        ({"activation": torch.nn.SiLU()}, None),
        ({"code": range(3)}, "range"),
    ],
)
@pytest.mark.parametrize("is_zip", quick([True], [True, False]))
def test_what_is_saved_beside_the_weights_is_passed_over_and_named(
    tmp_path: Path, content: dict[str, Any], stranger: str | None, is_zip: bool
) -> None:
    path = tmp_path / "best.pth.tar"
    torch.save(
        {"epoch": 3, "state_dict": state(), **content}, path, _use_new_zipfile_serialization=is_zip
    )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert is_original(classifier(str(path)))

    said = "".join(str(each.message) for each in caught if each.category is CheckpointWarning)
    assert (stranger in said) if stranger else not said


def test_an_optimizers_state_is_not_taken_for_a_network(tmp_path: Path) -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()

    path = saved(tmp_path / "a.pth", {"net": state(), "optimizer": optimizer.state_dict()})

    assert is_original(classifier(path))


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
)
@pytest.mark.parametrize("naming", ["geffnet", "effnet-edge", "torchvision"])
def test_wrappers_of_single_blocks_are_taken_off(tmp_path: Path, wrapper: str, naming: str) -> None:
    wrapped = {}
    for name, tensor in state(naming).items():
        first, *others = name.split(".")
        wrapped[".".join((first, wrapper, others[0], wrapper, wrapper, *others[1:]))] = tensor

    path = saved(tmp_path / "a.pth", {"net": prefixed(f"module.{wrapper}.", wrapped)})

    assert is_original(classifier(path))
    assert is_original(classifier(f"{path}#net.module.{wrapper}"))


def test_a_network_and_its_compiled_self_in_a_file_are_two(tmp_path: Path) -> None:
    both = state() | prefixed("_orig_mod.", state(scale=0.5))
    path = saved(tmp_path / "a.pth", both)

    with pytest.raises(UsageError, match="holds 2 networks"):
        classifier(path)
    assert torch.equal(classifier(f"{path}#_orig_mod"), NETWORK.classifier.weight * 0.5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_of_one_pixel_is_a_dense_layer(tmp_path: Path, kernel: int) -> None:
    tensors = state()
    weight = tensors["classifier.weight"][:, :, None, None]
    tensors["classifier.weight"] = weight.expand(-1, -1, kernel, kernel).contiguous()
    path = saved(tmp_path / "a.pth", tensors)

    if kernel == 1:
        assert is_original(classifier(path))
    else:
        told = "wrong shape: classifier.weight is 5×1280×3×3 and should be 5×1280$"
        with pytest.raises(CheckpointError, match=told):
            classifier(path)


@pytest.mark.parametrize(
    ("extra", "is_left_out"),
    [
        ({"criterion.pos_weight": torch.ones(5)}, True),
        ({"loss_fn.ce.weight": torch.ones(5)}, True),
        ({"ce.weight": torch.ones(5)}, True),
        ({"model.bce.pos_weight": torch.ones(5)}, True),
        ({"seen.weight": torch.tensor(3.0), "seen.mean_value": torch.tensor(0.5)}, True),
        ({"neck.weight": torch.ones(5), "neck.bias": torch.ones(5)}, False),
        ({"model.scale.weight": torch.ones(5)}, False),
        ({"model.scale.weight": torch.tensor(3.0)}, False),
        ({"headLoss2.weight": torch.ones(5)}, True),
        ({"symmetric.neck.weight": torch.ones(1280)}, False),
        ({"gloss.weight": torch.ones(1280)}, False),
        ({"class_weights": torch.ones(5)}, True),
        ({"val_metrics.confmat": torch.zeros(5, 5, dtype=torch.int64)}, True),
        ({"model.total_ops": torch.zeros(1, dtype=torch.float64)}, True),
        ({"model.blocks.0.0.total_params": torch.zeros(1, dtype=torch.float64)}, True),
        ({"head2.weight": torch.ones(3, 5), "head2.bias": torch.ones(3)}, False),
        ({"model.conv_stem.bias": torch.ones(32)}, False),
        ({"model.blocks.6.1.conv_pw.weight": torch.ones(8, 8, 1, 1)}, False),
        ({"bn_last.running_mean": torch.ones(1280)}, False),
    ],
)
def test_counters_and_losses_are_left_out_and_layers_are_not(
    tmp_path: Path, extra: State, is_left_out: bool
) -> None:
    path = saved(tmp_path / "lit.ckpt", {"state_dict": prefixed("model.", state()) | extra})

    if is_left_out:
        with pytest.warns(CheckpointWarning, match=f"left out.*{next(iter(extra))}"):
            assert is_original(classifier(path))
    else:
        with pytest.raises(CheckpointError, match=f"extra {next(iter(extra))}"):
            classifier(path)


@pytest.mark.parametrize(
    "naming",
    quick(
        ["geffnet", "Keras"],
        (name for name, scheme in SCHEMES.items() if not scheme.batch_norm_folded),
    ),
)
def test_any_prefix_is_taken_off_any_naming(tmp_path: Path, naming: str) -> None:
    prefix = ("effnet.", "my-net/", "a.b.c.", "Ω: ")[len(naming) % 4]
    path = str(tmp_path / "prefixed.safetensors")
    save_file(prefixed(prefix, state(naming)), path)

    assert is_original(classifier(path))


@pytest.mark.parametrize(
    ("naming", "old", "new"),
    [
        ("geffnet", "classifier.", "classifier.1."),
        ("geffnet", "classifier.", "head.fc."),
        ("torchvision", "classifier.1.", "classifier."),
        ("torchvision", "classifier.1.", "classifier.1.0."),
        ("efficientnet-pytorch", "_fc.", "_fc.1."),
        ("Hugging Face transformers", "classifier.", "score."),
        ("geffnet", "classifier.", "geometric.fc."),
    ],
)
def test_the_only_matrix_of_so_many_features_is_the_classifier(
    tmp_path: Path, naming: str, old: str, new: str
) -> None:
    renamed = {name.replace(old, new, 1): each for name, each in state(naming).items()}

    assert is_original(classifier(saved(tmp_path / "head.pth", renamed)))


def test_a_classifier_outside_of_the_backbone_and_one_without_a_bias(tmp_path: Path) -> None:
    backbone = {name: each for name, each in state().items() if not name.startswith("classifier")}
    content = prefixed("backbone.", backbone) | {"fc.weight": state()["classifier.weight"]}
    path = saved(tmp_path / "outside.pth", content)

    assert is_original(classifier(path))
    assert not load_source(NetworkRequest("b0", path)).network.classifier.bias.any()


@pytest.mark.parametrize("naming", ["geffnet", "torchvision", "Keras"])
def test_a_classifier_may_have_no_bias_which_is_said(tmp_path: Path, naming: str) -> None:
    bias = translate(NETWORK.state_dict(), SCHEMES[naming])["classifier.bias"]
    content = {name: each for name, each in state(naming).items() if name != bias}
    path = saved(tmp_path / "a.pth", content)

    with pytest.warns(CheckpointWarning, match=r"a\.pth: its classifier has no bias.*ArcFace"):
        assert is_original(classifier(path))
    assert not load_source(NetworkRequest("b0", path)).network.classifier.bias.any()


def test_a_convolution_of_one_pixel_is_found_by_any_name(tmp_path: Path) -> None:
    head = {"1.weight": state()["classifier.weight"][:, :, None, None]}
    head["1.bias"] = state()["classifier.bias"]
    content = prefixed("backbone.", headless()) | prefixed("head.", head)

    assert is_original(classifier(saved(tmp_path / "a.pth", content)))


PRUNED = {"classifier.weight_orig": torch.ones(5, 1280), "classifier.weight_mask": torch.ones(5)}


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (headless, "no classifier; --features exports what one would read"),
        (lambda: headless() | PRUNED, "save plain weights, after .*prune.remove"),
        (
            lambda: state() | {"a.parametrizations.weight.original0": torch.ones(5)},
            "save plain weights, after .*remove_parametrizations",
        ),
        (lambda: state() | {"neck.weight": torch.ones(5)}, "--weights FILE#PREFIX"),
    ],
)
def test_what_does_not_fit_is_told_with_what_helps(tmp_path: Path, content, advice: str) -> None:
    path = saved(tmp_path / "a.pth", content())

    with pytest.raises(CheckpointError, match=f"does not fit b0: .*: .*{advice}"):
        classifier(path)


def test_hugging_faces_classifier_stands_beside_its_backbone(tmp_path: Path) -> None:
    content = {
        name if name.startswith("classifier") else f"efficientnet.{name}": each
        for name, each in state("Hugging Face transformers").items()
    }
    assert is_original(classifier(saved(tmp_path / "hf.bin", content)))


def test_two_matrices_are_no_classifier(tmp_path: Path) -> None:
    content = {name.replace("classifier.", "fc1."): each for name, each in state().items()}
    content["fc2.weight"] = torch.ones(7, 1280)

    told = r"missing classifier.weight.*extra fc1.weight.*: none of these alone"
    with pytest.raises(CheckpointError, match=told):
        classifier(saved(tmp_path / "two.pth", content))


def test_no_folded_naming_is_named_for_a_lone_classifier(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"classifier.weight": torch.ones(5, 1280)})

    with pytest.raises(CheckpointError, match="not an EfficientNet checkpoint of a known naming"):
        classifier(path)


TWO = {
    "dictionaries": lambda: {"student": state(), "teacher": state(scale=0.5)},
    "prefixes": lambda: prefixed("student.", state()) | prefixed("teacher.", state(scale=0.5)),
    "lightning": lambda: {
        "state_dict": prefixed("student.", state()) | prefixed("teacher.", state(scale=0.5))
    },
}


@pytest.mark.parametrize("form", quick(["prefixes"], TWO))
def test_of_two_networks_the_user_chooses(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "kd.pth", TWO[form]())

    with pytest.raises(UsageError, match=r"kd.pth holds 2 networks \(.*student, .*teacher\).*#"):
        classifier(path)
    assert is_original(classifier(f"{path}#student"))
    assert torch.equal(classifier(f"{path}#teacher"), NETWORK.classifier.weight * 0.5)
    with pytest.raises(UsageError, match=r"kd.pth#nobody: no network of that prefix: it holds"):
        classifier(f"{path}#nobody")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (prefixed("student.", headless()) | prefixed("teacher.", state(scale=0.5)), "student"),
        (prefixed("model.", headless()) | {"queue_head.weight": torch.ones(9, 1280)}, "model"),
    ],
    ids=["a teacher's", "a queue's"],
)
def test_a_network_that_was_asked_for_gets_no_others_classifier(
    tmp_path: Path, content: State, part: str
) -> None:
    path = saved(tmp_path / "kd.pth", content)

    with pytest.raises(CheckpointError, match=r"does not fit b0: missing classifier.weight"):
        classifier(f"{path}#{part}")


def test_a_prefix_of_a_backbone_and_its_classifier_asks_for_both(tmp_path: Path) -> None:
    whole = prefixed("backbone.", headless()) | {
        "fc.weight": state()["classifier.weight"],
        "fc.bias": state()["classifier.bias"],
    }
    other = {name: each * 0.5 for name, each in whole.items()}
    path = saved(tmp_path / "kd.pth", prefixed("a.student.", whole) | prefixed("a.other.", other))

    assert is_original(classifier(f"{path}#student"))
    assert is_original(classifier(f"{path}#a.student"))
    with pytest.raises(CheckpointError, match=r"does not fit b0: missing classifier.weight"):
        classifier(f"{path}#student.backbone")


def test_averaged_weights_are_taken_and_said_and_the_others_can_be_had(tmp_path: Path) -> None:
    content = {"state_dict": state(scale=0.5), "state_dict_ema": state()}
    path = saved(tmp_path / "ema.pth", content)

    with pytest.warns(CheckpointWarning, match="took the averaged one, state_dict_ema"):
        assert is_original(classifier(path))
    assert torch.equal(classifier(f"{path}#state_dict"), NETWORK.classifier.weight * 0.5)


@pytest.mark.parametrize("averaged", ["model_ema.module.", "model_ema.module.backbone."])
def test_averaged_weights_may_stand_in_the_dictionary_of_the_others(
    tmp_path: Path, averaged: str
) -> None:
    whole = prefixed("model_ema.module.", {"fc.weight": state()["classifier.weight"]})
    content = prefixed("model.", state(scale=0.5)) | prefixed(averaged, headless()) | whole
    path = saved(tmp_path / "ema.ckpt", {"state_dict": content})

    with pytest.warns(CheckpointWarning, match="took the averaged one, state_dict.model_ema"):
        assert is_original(classifier(path))


def test_a_file_may_have_that_sign_in_its_name(tmp_path: Path) -> None:
    assert is_original(classifier(saved(tmp_path / "run#3.pth", state())))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("as_parameter", [True, False])
def test_a_tensor_that_pytorch_negates_when_it_is_read_keeps_its_sign(
    tmp_path: Path, is_zip: bool, as_parameter: bool
) -> None:
    negated = torch._neg_view(-state()["classifier.weight"])
    weight = torch.nn.Parameter(negated) if as_parameter else negated
    path = tmp_path / "neg.pth"
    torch.save(state() | {"classifier.weight": weight}, path, _use_new_zipfile_serialization=is_zip)

    assert is_original(classifier(str(path)))


def test_a_tensor_that_pytorch_marks_otherwise_is_refused(tmp_path: Path) -> None:
    complex_weight = torch.complex(state()["classifier.weight"], torch.ones(5, 1280)).conj()
    path = saved(tmp_path / "conj.pth", state() | {"classifier.weight": complex_weight})

    with pytest.raises(CheckpointError, match=r"classifier.weight is a view .* marks as conj"):
        classifier(path)
