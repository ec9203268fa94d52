"""Which of a LiteRT model's operators are one step to who compares it.

What goes into a SiLU or a hard-swish in integers is rounded so that only what matters to it fits
its grid: a tensor that is cut off at −5, −3 or ±8 is not at fault. So a convolution and its
activation are judged by what this gives, as where an engine fuses them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from effnet_edge.runtime.demand.litert_steps import COMPUTE

if TYPE_CHECKING:
    from effnet_edge.runtime.demand.litert_model import LiteRtModel, Operator


def steps_of(model: LiteRtModel) -> list[tuple[Operator, ...]]:
    """All operators that compute from the pictures, grouped, in the order of execution."""
    activations = _Activations(model)
    grouped = {each.output: activations.before(each) for each in model.operators}
    inside = {each.output for group in grouped.values() for each in group}
    return [
        (*grouped[each.output], each)
        for each in model.operators
        if each.output not in inside and model.tensors[each.inputs[0]].data is None
    ]


class _Activations:
    def __init__(self, model: LiteRtModel) -> None:
        self._model = model
        self._makers = {each.output: each for each in model.operators}
        self._readers: defaultdict[int, list[Operator]] = defaultdict(list)
        for operator in model.operators:
            for number in operator.inputs:
                self._readers[number].append(operator)

    def before(self, operator: Operator) -> tuple[Operator, ...]:
        """What belongs to the operator, if it is the product that ends an activation."""
        if operator.kind != "MUL" or self._model.tensors[operator.output].dtype != "int8":
            return ()
        for value, gate in (operator.inputs, operator.inputs[::-1]):
            opens, layer = self._makers.get(gate), self._makers.get(value)
            if opens is None or layer is None:
                continue
            inner = self._between(value, opens)
            alone = all(each in (operator, *inner) for each in self._readers[value])
            if inner and alone and layer.kind in COMPUTE:
                return (layer, *inner)
        return ()

    def _between(self, value: int, gate: Operator) -> tuple[Operator, ...]:
        """What makes the gate of a tensor that it multiplies; nothing where it is no gate.

        A sigmoid, after a product with constants or without one; or a sum with a constant, whose
        grid ends where a hard gate does.
        """
        if gate.kind == "ADD":
            return (gate,) if self._with_constants(gate, value) else ()
        if gate.kind != "LOGISTIC":
            return ()
        (read,) = gate.inputs
        if read == value:
            return (gate,)
        product = self._makers.get(read)
        if product is None or product.kind != "MUL" or not self._with_constants(product, value):
            return ()
        return (product, gate)

    def _with_constants(self, operator: Operator, value: int) -> bool:
        """Whether it reads the tensor, and constants beside it."""
        others = [each for each in operator.inputs if each != value]
        constant = all(self._model.tensors[each].data is not None for each in others)
        return len(others) == 1 and constant
