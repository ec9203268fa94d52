"""Which kernel OpenVINO computes a layer with, where its own choice is the slower one.

Its int8 kernels for AMX do an activation behind the convolution slowly: where few channels are
read, that takes longer than AMX saves, and the kernel of AVX-512 is faster (docs/figures.md,
"Kernels"). On a processor without either OpenVINO chooses as if nothing had been asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import openvino

KERNEL = "cpu:jit_avx512_1x1"
MOST_CHANNELS = 191
"""Read by the convolution. From 192 on, on the small maps of the last stages, AMX is as fast."""

_SLOW_BEHIND_AMX = frozenset({"Swish", "HSwish"})


def slow_on_amx(model: openvino.Model) -> list[str]:
    """Name the quantized pointwise convolutions that AMX makes slower, in order of execution."""
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
        and _reads_few_channels(node)
        and node.input_value(0).get_node().get_type_name() == "FakeQuantize"
        and any(each.get_type_name() in _SLOW_BEHIND_AMX for each in _behind_bias(node))
    ]


def ask_for_kernel(ir: Path, names: Collection[str]) -> None:
    """Write `KERNEL` into the layers of these names, as OpenVINO's own attribute for it."""
    tree = ElementTree.parse(ir)
    for layer in tree.iter("layer"):
        if layer.get("name") in names:
            attribute = {"name": "primitives_priority", "version": "0", "value": KERNEL}
            ElementTree.SubElement(_notes(layer), "attribute", attribute)
    tree.write(ir, encoding="utf-8", xml_declaration=True)


def _notes(layer: ElementTree.Element) -> ElementTree.Element:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        layer.insert(1, notes)  # Behind <data>, with which every convolution begins.
    return notes


def _reads_few_channels(convolution: openvino.Node) -> bool:
    """Whether a pointwise convolution reads a map, and not a gate's mean, of few channels."""
    _, channels, *kernel = convolution.input_value(1).get_shape()
    map_size = list(convolution.input_value(0).get_partial_shape())[2:]
    return kernel == [1, 1] and map_size != [1, 1] and channels <= MOST_CHANNELS


def _behind_bias(convolution: openvino.Node) -> Iterator[openvino.Node]:
    for added in _readers(convolution):
        yield from _readers(added) if added.get_type_name() == "Add" else (added,)


def _readers(node: openvino.Node) -> Iterator[openvino.Node]:
    for reader in node.output(0).get_target_inputs():
        yield reader.get_node()
