"""The path against what the networks themselves compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from later import quick
from tiny_networks import normalized, random_network
from torch import nn

from effnet_calibration.path import CLASSIFIER, NetworkPath, short_block

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

STRUCTURES = ["b0", "b1", "lite0", "es", "v2-b0", "v2-s"]

every_structure = pytest.mark.parametrize("variant", quick(STRUCTURES[:-1], STRUCTURES))


def followed(network: EfficientNet, batch: torch.Tensor) -> torch.Tensor:
    """What comes out if one knows of the network nothing but its path."""
    value, shortcut = batch, None
    for layer in NetworkPath.of(network).main:
        value = layer.module(network)(value)
        for name in layer.after:
            value = network.get_submodule(name)(value)
        if layer.closes:
            value = value + shortcut
        if layer.opens:
            shortcut = value
    return value


@every_structure
def test_following_the_path_gives_the_networks_answer(variant: str) -> None:
    network, batch = random_network(variant), normalized(2)
    with torch.inference_mode():
        assert torch.equal(followed(network, batch), network(batch))


@every_structure
def test_every_weighted_module_is_a_layer_in_the_order_of_execution(variant: str) -> None:
    network = random_network(variant)
    ran: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.inference_mode():
        network(normalized(1))
    assert NetworkPath.of(network).names == ran


@every_structure
def test_what_a_layer_reads_is_where_a_change_of_its_source_arrives(variant: str) -> None:
    """A layer that reads no stream sees just what its source's output became."""
    network = random_network(variant)
    path = NetworkPath.of(network)
    seen: dict[str, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}
    for layer in path:
        layer.module(network).register_forward_pre_hook(
            lambda _, inputs, name=layer.name: seen.__setitem__(name, inputs[0].clone())
        )
        last = layer.after[-1] if layer.after else layer.name
        network.get_submodule(last).register_forward_hook(
            lambda _, __, output, name=layer.name: made.__setitem__(name, output.clone())
        )
    with torch.inference_mode():
        network(normalized(1))
    sourced = [layer for layer in path.main if layer.source is not None]
    assert sourced
    for layer in sourced:
        assert torch.equal(seen[layer.name], made[layer.source]), layer.name
    for stage in path.streams:
        readers = path.stream_readers(stage)
        assert readers
        assert all(reader.source is None for reader in readers)


def test_later_blocks_of_the_first_stage_read_the_stream() -> None:
    path = NetworkPath.of(random_network("b1"))
    unscalable = [layer.name for layer in path.of_kind("depthwise") if layer.source is None]
    assert unscalable == ["stages.0.1.depthwise.conv"]
    readers = [layer.name for layer in path.stream_readers(0)]
    assert readers == ["stages.0.1.depthwise.conv", "stages.1.0.expand.conv"]


def test_the_last_stream_is_read_by_the_head(network: EfficientNet) -> None:
    path = NetworkPath.of(network)
    assert [layer.name for layer in path.stream_readers(6)] == ["head.conv"]
    assert path.last_projection().name == "stages.6.0.project.conv"


def test_a_stream_with_activations_on_it_is_not_linear() -> None:
    path = NetworkPath.of(random_network("v2-b0"))
    assert [path.has_linear_stream(stage) for stage in range(3)] == [False, True, True]


def test_the_reader_of_a_depthwise_convolution_is_its_blocks_projection(
    network: EfficientNet,
) -> None:
    path = NetworkPath.of(network)
    for layer in path.of_kind("depthwise"):
        assert path.reader(layer).block == layer.block
        assert path.reader(layer).kind == "project"


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("stages.1.0.depthwise.conv", "1.0"),
        ("stages.2.1.se.reduce", "2.1"),
        ("stem.conv", "stem"),
        (CLASSIFIER, "classifier"),
    ],
)
def test_a_block_tells_where_a_layer_is(name: str, block: str) -> None:
    assert short_block(name) == block
