"""A network's padding, ε, pooling and activation come with its own state dict."""

from __future__ import annotations

import copy
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from reference_models import geffnet_model
from safetensors.torch import save_file
from torch import nn

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.conventions import TELLING_TENSOR, Conventions
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

UNUSUAL = Conventions("symmetric", 1e-5, "max", "relu")
USUAL = Conventions("same", 1e-3, "avg", "silu")
EACH = [
    {"padding": "symmetric"},
    {"batch_norm_eps": 1e-5},
    {"pooling": "max"},
    {"activation": "relu"},
]


def network_of(**conventions: Any) -> EfficientNet:
    torch.manual_seed(0)
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32, **conventions)
    for tensor in network.tensors().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.01, 1)
    return network.eval()


UNUSUAL_NETWORK = network_of(
    padding="symmetric", batch_norm_eps=1e-5, pooling="max", activation="relu"
)


def saved(path: Path, state: object) -> str:
    torch.save(state, path)
    return str(path)


def logits(network: nn.Module) -> Tensor:
    with torch.no_grad():
        answer: Tensor = network(torch.ones(1, 3, 32, 32))
    return answer


def before_there_was_an_entry(network: EfficientNet) -> dict[str, Tensor]:
    return network.tensors()


@pytest.mark.parametrize("conventions", EACH, ids=str)
def test_each_comes_back_into_a_network_that_was_built_so(tmp_path, conventions) -> None:
    network = network_of(**conventions)
    path = saved(tmp_path / "own.pth", network.state_dict())

    again = network_of(**conventions)
    load_weights(again, path)

    assert again.conventions == network.conventions
    assert torch.equal(logits(again), logits(network))


@pytest.mark.parametrize("conventions", EACH, ids=str)
def test_each_stays_where_an_older_state_dict_tells_nothing(tmp_path, conventions) -> None:
    network = network_of(**conventions)
    path = saved(tmp_path / "old.pth", before_there_was_an_entry(network))

    again = network_of(**conventions)
    load_weights(again, path)

    assert again.conventions == network.conventions


@pytest.mark.parametrize("wrapped", [lambda state: state, lambda state: {"epoch": 1, "net": state}])
def test_an_export_needs_no_option_for_a_state_dict_of_ours(tmp_path, wrapped) -> None:
    path = saved(tmp_path / "own.pth", wrapped(UNUSUAL_NETWORK.state_dict()))

    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        network = load_source(NetworkRequest("b0", path, resolution=32)).network

    assert network.conventions == UNUSUAL
    assert torch.equal(logits(network), logits(UNUSUAL_NETWORK))


def test_safetensors_and_wrappers_keep_what_is_told(tmp_path) -> None:
    state = nn.ModuleDict({"model": UNUSUAL_NETWORK}).state_dict()
    save_file(state, tmp_path / "own.safetensors")

    found = load_source(NetworkRequest("b0", str(tmp_path / "own.safetensors"), resolution=32))

    assert found.network.conventions == UNUSUAL


@pytest.mark.parametrize(
    "converted", [lambda each: each.half(), lambda each: each.float() * 0.9 + each.float() * 0.1]
)
def test_training_code_may_convert_and_average_all_tensors(tmp_path, converted) -> None:
    state = {name: converted(each) for name, each in UNUSUAL_NETWORK.state_dict().items()}

    found = load_source(NetworkRequest("b0", saved(tmp_path / "own.pth", state), resolution=32))

    assert found.network.conventions == UNUSUAL


def test_what_a_person_says_outweighs_it(tmp_path) -> None:
    path = saved(tmp_path / "own.pth", UNUSUAL_NETWORK.state_dict())
    asked = NetworkRequest(
        "b0", path, padding="same", batch_norm_eps=1e-3, pooling="avg", activation="silu"
    )
    network = network_of()

    load_weights(network, path, padding="same")

    assert load_source(asked).network.conventions == USUAL
    assert network.conventions == Conventions("same", 1e-5, "max", "relu")


def test_weights_that_were_trained_further_tell_what_they_came_with(tmp_path) -> None:
    scheme = next(each for each in NAMING_SCHEMES if each.name == "torchvision")
    state = network_of().state_dict()
    theirs = {name: state[ours] for ours, name in translate(state, scheme).items()}
    network = network_of()

    load_weights(network, saved(tmp_path / "torchvision.pth", theirs))
    path = saved(tmp_path / "own.pth", network.state_dict())

    found = load_source(NetworkRequest("b0", path, resolution=32)).network
    assert found.conventions == Conventions("symmetric", 1e-5, "avg", "silu")
    assert torch.equal(logits(found), logits(network))


def test_pytorch_loads_old_and_new_state_dicts_strictly() -> None:
    network = network_of()
    network.load_state_dict(before_there_was_an_entry(UNUSUAL_NETWORK))
    assert network.conventions == USUAL

    network.load_state_dict(UNUSUAL_NETWORK.state_dict())
    assert network.conventions == UNUSUAL
    assert torch.equal(logits(network), logits(UNUSUAL_NETWORK))

    outer = nn.Sequential(network_of())
    outer.load_state_dict(nn.Sequential(UNUSUAL_NETWORK).state_dict())
    assert torch.equal(logits(outer), logits(UNUSUAL_NETWORK))


def test_pytorch_reads_the_state_dict_without_unpickling_objects(tmp_path) -> None:
    path = saved(tmp_path / "own.pth", UNUSUAL_NETWORK.state_dict())
    network_of().load_state_dict(torch.load(path, weights_only=True))


def test_a_copy_and_the_engines_network_keep_the_conventions() -> None:
    assert copy.deepcopy(UNUSUAL_NETWORK).conventions == UNUSUAL
    folded = fold_batch_norm(UNUSUAL_NETWORK)
    again = fold_batch_norm(UNUSUAL_NETWORK)
    again.load_state_dict(folded.state_dict())
    assert again.conventions == UNUSUAL


def test_loading_the_same_conventions_keeps_the_modules_and_their_hooks() -> None:
    network = network_of(pooling="max")
    before = dict(network.named_modules())

    network.load_state_dict(network.state_dict())

    assert all(each is before[name] for name, each in network.named_modules())


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        json.dumps(vars(USUAL) | {"padding": "valid"}).encode(),
        json.dumps(vars(USUAL) | {"batch_norm_eps": None}).encode(),
        json.dumps(vars(USUAL) | {"of_tomorrow": 1}).encode(),
        b" " * 5000 + USUAL.as_bytes(),
    ],
)
def test_what_tells_nothing_of_the_kind_is_refused_in_one_line(tmp_path, told: bytes) -> None:
    wrong = torch.tensor(list(told), dtype=torch.uint8)
    state = UNUSUAL_NETWORK.state_dict() | {TELLING_TENSOR: wrong}

    with pytest.raises(CheckpointError, match="own.pth: _extra_state is not what") as raised:
        load_weights(network_of(), saved(tmp_path / "own.pth", state))
    assert "\n" not in str(raised.value)
    for value in (wrong, wrong.double() * torch.nan if told else None):
        with pytest.raises(CheckpointError, match="_extra_state is not what"):
            network_of().load_state_dict(state | {TELLING_TENSOR: value})


def test_timms_names_tell_neither_pooling_nor_activation(tmp_path) -> None:
    path = saved(tmp_path / "timm.pth", geffnet_model("b0", num_classes=3).state_dict())
    network = network_of(pooling="max", activation="relu")

    load_weights(network, path)
    assert (network.pooling, network.activation) == ("max", "relu")


def test_published_weights_bring_the_pooling_and_activation_of_their_authors() -> None:
    network = EfficientNet(VARIANTS["b0"], resolution=32, pooling="max", batch_norm_eps=1e-5)

    load_weights(network, "imagenet")

    assert network.conventions == USUAL
    usual = EfficientNet(VARIANTS["b0"], resolution=32)
    load_weights(usual, "imagenet")
    assert torch.equal(logits(network.eval()), logits(usual.eval()))
