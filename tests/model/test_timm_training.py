"""A checkpoint of timm's train.py tells by itself which network was trained."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pytest
import torch
from reference_models import geffnet_model

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source

if TYPE_CHECKING:
    from pathlib import Path

    State = dict[str, torch.Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:.*passed over values of argparse")


@pytest.fixture(scope="module")
def state() -> State:
    return geffnet_model("b0", num_classes=3).state_dict()


def load(
    folder: Path,
    state: State,
    arch: str,
    options: dict[str, Any] | None = None,
    **asked: Any,
) -> Source:
    """As timm's CheckpointSaver writes it: `args` has all options, most of them None."""
    usual = {"model": arch, "gp": None, "bn_eps": None, "in_chans": None, "model_kwargs": {}}
    args = None if options is None else argparse.Namespace(**(usual | options))
    content = {"epoch": 3, "arch": arch, "state_dict": state, "version": 2}
    torch.save(content | ({} if args is None else {"args": args}), folder / "last.pth.tar")
    return load_source(NetworkRequest("b0", str(folder / "last.pth.tar"), **asked))


@pytest.mark.parametrize("options", [None, {}])
@pytest.mark.parametrize(
    ("arch", "padding", "eps"),
    [
        ("efficientnet_b0", "symmetric", 1e-5),
        ("tf_efficientnet_b0", "same", 1e-3),
        ("hf-hub:timm/efficientnet_b0.ra_in1k", "symmetric", 1e-5),
    ],
)
def test_its_arch_tells_the_padding_and_the_epsilon(
    tmp_path: Path, state: State, arch: str, padding: str, eps: float, options: dict | None
) -> None:
    network = load(tmp_path, state, arch, options).network

    assert (network.padding, network.batch_norm_eps) == (padding, eps)


def test_what_a_person_says_and_a_config_beside_it_outweigh_it(
    tmp_path: Path, state: State
) -> None:
    network = load(tmp_path, state, "efficientnet_b0", padding="same").network
    assert (network.padding, network.batch_norm_eps) == ("same", 1e-5)

    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_b0"}')
    assert load(tmp_path, state, "efficientnet_b0").network.padding == "same"


def test_its_args_are_followed(tmp_path: Path, state: State) -> None:
    options = {
        "gp": "max",
        "bn_eps": 2e-3,
        "model_kwargs": {"act_layer": "relu", "drop_path_rate": 0.2},
        "mean": [0.5, 0.4, 0.3],
        "img_size": 96,
    }
    source = load(tmp_path, state, "efficientnet_b0", options)

    network, pictures = source.network, source.preprocessing
    assert (network.pooling, network.batch_norm_eps, network.activation) == ("max", 2e-3, "relu")
    assert (pictures.mean, pictures.resolution.height) == ((0.5, 0.4, 0.3), 96)


def test_its_args_tell_other_channels(tmp_path: Path, state: State) -> None:
    stem = {"conv_stem.weight": torch.randn(32, 4, 3, 3)}
    options = {"in_chans": 4, "mean": [0.1, 0.2, 0.3, 0.4], "std": [0.2]}

    pictures = load(tmp_path, state | stem, "efficientnet_b0", options).preprocessing

    assert (pictures.mean, pictures.std) == ((0.1, 0.2, 0.3, 0.4), (0.2,) * 4)


def test_an_option_that_changes_the_network_otherwise_is_refused(
    tmp_path: Path, state: State
) -> None:
    for more in ({"act_layer": "gelu"}, {"aa_layer": "blurpc"}):
        with pytest.raises(CheckpointError, match=rf"last\.pth\.tar: {next(iter(more))} is"):
            load(tmp_path, state, "efficientnet_b0", {"model_kwargs": more})


def test_a_list_in_the_place_of_a_number_is_refused(tmp_path: Path, state: State) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pth\.tar: in_chans is \[3\], and the stem"):
        load(tmp_path, state, "efficientnet_b0", {"in_chans": [3]})


def test_a_network_of_timm_that_is_not_known_here_is_named(tmp_path: Path, state: State) -> None:
    with pytest.warns(CheckpointWarning, match="passed over: arch 'efficientnet_blur_b0'"):
        load(tmp_path, state, "efficientnet_blur_b0", {})


def test_an_arch_of_something_else_tells_nothing(tmp_path: Path, state: State) -> None:
    for options in (None, {"model": "mine", "gp": "max"}):
        network = load(tmp_path, state, "efficientnet", options).network
        assert (network.padding, network.pooling) == ("same", "avg")

    network = load(tmp_path, state, "efficientnet_b0", {"model": "mine", "gp": "max"}).network
    assert (network.padding, network.pooling) == ("symmetric", "avg")
