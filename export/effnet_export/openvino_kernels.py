"""Which kernel OpenVINO computes a layer with, where its own choice is the slower one.

Two kinds of layers are slow by its own choice, measured in docs/figures.md, "Kernels":

- Its int8 kernels for AMX do an activation behind the convolution slowly: where few channels are
  read, that takes longer than AMX saves, and the kernel of AVX-512 is faster.
- Its depthwise kernels made of matrix products (`brgconv`) do a PReLU behind them, which a bent
  hard-swish ends with, slowly; the older ones (`jit`) do not.

On a processor without the kernel that is asked for OpenVINO takes another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import openvino

POINTWISE = "cpu:jit_avx512_1x1"
DEPTHWISE = "cpu:jit_avx512_dw"
DEPTHWISE_INT8 = "cpu:jit_avx512"
"""OpenVINO has no other name for the int8 kernel, which is for every shape of convolution."""

MOST_CHANNELS = 191
"""Read by the pointwise convolution. From 192 on, on the small maps of the last stages, AMX is as
fast."""

_SLOW_BEHIND_AMX = frozenset({"Swish", "HSwish"})
_BENT = "PRelu"


def faster_kernels(model: openvino.Model) -> dict[str, str]:
    """Tell which kernel to ask for, by the name of the convolution, in order of execution."""
    asked = ((node.get_friendly_name(), _faster_kernel(node)) for node in model.get_ordered_ops())
    return {name: kernel for name, kernel in asked if kernel is not None}


def ask_for_kernels(ir: Path, kernels: Mapping[str, str]) -> None:
    """Write them into the layers of these names, as OpenVINO's own attribute for it."""
    tree = ElementTree.parse(ir)
    for layer in tree.iter("layer"):
        kernel = kernels.get(layer.get("name", ""))
        if kernel is not None:
            attribute = {"name": "primitives_priority", "version": "0", "value": kernel}
            ElementTree.SubElement(_notes(layer), "attribute", attribute)
    tree.write(ir, encoding="utf-8", xml_declaration=True)


def _notes(layer: ElementTree.Element) -> ElementTree.Element:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        layer.insert(1, notes)  # Behind <data>, with which every convolution begins.
    return notes


def _faster_kernel(node: openvino.Node) -> str | None:
    kind = node.get_type_name()
    if kind == "Convolution":
        slow = _reads_few_channels(node) and _reads_integers(node) and _activation_is_slow(node)
        return POINTWISE if slow else None
    if kind == "GroupConvolution" and _is_bent(node):
        return DEPTHWISE_INT8 if _reads_integers(node) else DEPTHWISE
    return None


def _reads_integers(convolution: openvino.Node) -> bool:
    kind: str = convolution.input_value(0).get_node().get_type_name()
    return kind == "FakeQuantize"


def _reads_few_channels(convolution: openvino.Node) -> bool:
    """Whether a pointwise convolution reads a map, and not a gate's mean, of few channels."""
    _, channels, *kernel = convolution.input_value(1).get_shape()
    map_size = list(convolution.input_value(0).get_partial_shape())[2:]
    return kernel == [1, 1] and map_size != [1, 1] and channels <= MOST_CHANNELS


def _activation_is_slow(convolution: openvino.Node) -> bool:
    return any(each.get_type_name() in _SLOW_BEHIND_AMX for each in _behind_bias(convolution))


def _is_bent(convolution: openvino.Node) -> bool:
    return any(
        reader.get_type_name() == _BENT
        for activation in _behind_bias(convolution)
        for reader in _readers(activation)
    )


def _behind_bias(convolution: openvino.Node) -> Iterator[openvino.Node]:
    for added in _readers(convolution):
        yield from _readers(added) if added.get_type_name() == "Add" else (added,)


def _readers(node: openvino.Node) -> Iterator[openvino.Node]:
    for output in node.outputs():
        for reader in output.get_target_inputs():
            yield reader.get_node()
