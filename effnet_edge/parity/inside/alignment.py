"""Names for the tensors of a model that was exported by somebody else.

Two exports of one network run the same layers in the same order, whatever their tensors are called.
The layers are matched as two texts are by `diff`, the shapes of their weights being the letters: a
layer that is left out or has a wrong shape then shifts nothing behind it.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING

from effnet_edge.parity.inside.tracing import LOGITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from effnet_edge.parity.inside.tracing import Kernel, Traceable

_ACTIVATIONS = frozenset({"Clip", "HardSwish", "Mish", "Relu", "Sigmoid", "Swish"})
_ACTIVATION_MODULES = frozenset({"SiLU", "ReLU", "ReLU6", "Sigmoid"})


def shares_layers(left: Traceable, right: Traceable) -> bool:
    """Whether any layer with parameters, but for the last one, has one name in both models."""
    return bool((_layer_shapes(left).keys() & _layer_shapes(right).keys()) - {LOGITS})


def names_like(
    model: onnx.ModelProto, candidate: Traceable, reference: Traceable
) -> dict[str, str]:
    """The reference's names for tensors of an ONNX model, by the model's own names.

    Convolutions and dense layers are matched, and the activations right behind them; what follows
    a convolution that is not folded into it (batch normalization) counts as a part of it.

    Args:
        candidate: the same model as `model`, opened up.
    """
    readers = _readers(model)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    following = _following_activation(reference)
    found: dict[str, str] = {}
    for own, name in _matched_layers(candidate, reference):
        end = _through_batch_norm(own, readers)
        found[end] = name
        activated = _activated(end, readers)
        if activated is not None and name in following:
            found[activated] = following[name]
    return {own: name for own, name in found.items() if name not in taken and name != LOGITS}


def _matched_layers(candidate: Traceable, reference: Traceable) -> Iterator[tuple[str, str]]:
    ours, theirs = _layer_shapes(candidate), _layer_shapes(reference)
    own_names, names = list(ours), list(theirs)
    matcher = SequenceMatcher(None, list(ours.values()), list(theirs.values()), autojunk=False)
    for block in matcher.get_matching_blocks():
        own = own_names[block.a : block.a + block.size]
        yield from zip(own, names[block.b : block.b + block.size], strict=True)


def _layer_shapes(model: Traceable) -> dict[str, tuple[int, ...]]:
    """The shape of the weight of each layer that has one, in the order of execution."""
    found = {}
    for kernel in model.kernels():
        for name in kernel.tensors:
            parameters = model.parameters(name)
            if parameters is not None:
                found[name] = parameters.weight.shape
    return found


def _following_activation(reference: Traceable) -> dict[str, str]:
    """The activation that comes right after a tensor, by the tensor's name."""
    kernels = reference.kernels()
    return {
        kernel.tensors[-1]: after.tensors[-1]
        for kernel, after in pairwise(kernels)
        if _activates(after)
    }


def _activates(kernel: Kernel) -> bool:
    return kernel.operation in _ACTIVATION_MODULES | _ACTIVATIONS


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _through_batch_norm(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> str:
    nodes = readers.get(name, ())
    if len(nodes) == 1 and nodes[0].op_type == "BatchNormalization":
        return str(nodes[0].output[0])
    return name


def _activated(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> str | None:
    """What an activation makes of a tensor: x·sigmoid(x) in two nodes, or any other in one."""
    nodes = readers.get(name, ())
    gates = [node.output[0] for node in nodes if node.op_type == "Sigmoid"]
    for node in nodes:
        if node.op_type == "Mul" and gates and set(node.input) == {name, gates[0]}:
            return str(node.output[0])
    if len(nodes) == 1 and nodes[0].op_type in _ACTIVATIONS:
        return str(nodes[0].output[0])
    return None
