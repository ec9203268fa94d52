"""What a LiteRT model tells of its input, of its output, and of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.parity.inside.tracing import Parameters
from effnet_edge.parity.models.ending import Ending, WayOut
from effnet_edge.parity.models.entrance import Entrance, Port, Rescaling, WayIn, only_input
from effnet_edge.runtime.demand.litert_steps import COMPUTE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.parity.models.reading import Reading
    from effnet_edge.runtime.demand.litert_model import LiteRtModel, Operator

_CHANNELS_FIRST_TO_LAST = (0, 2, 3, 1)
_SAME_NUMBERS = frozenset({"CAST", "DEQUANTIZE", "QUANTIZE"})
_PASSED_IN = _SAME_NUMBERS | {"PAD"}
_PASSED_OUT = _SAME_NUMBERS | {"RESHAPE", "TRANSPOSE"}
_RESCALING = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}
_ENDINGS: dict[str, Ending] = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
_SAME = 0


class Structure:
    """A model's operators by what they read and by what they make."""

    def __init__(self, model: LiteRtModel) -> None:
        self._model = model
        self.makers = {each.output: each for each in model.operators}

    def entrance(self, name: str, reading: Reading) -> Entrance:
        """How pictures go in; raises as `Entrance.of`, and BackendError where it has no one."""
        inputs = [self._model.tensors[each] for each in self._model.inputs]
        only_input([each.name for each in inputs], name)
        sides: list[int | None] = list(inputs[0].shape)
        if inputs[0].dynamic:
            sides[0] = None
        way = self._way_in(self._model.inputs[0])
        port = Port(inputs[0].name, inputs[0].dtype, tuple(sides), way.layout, way)
        return Entrance.of(port, name, reading)

    def way_out(self, output: int) -> WayOut:
        """What comes out, and the tensor with the logits."""
        name, number = self._model.tensors[output].name, output
        while number in self.makers and self.makers[number].kind in _PASSED_OUT:
            number = self.makers[number].inputs[0]
        maker = self.makers.get(number)
        if maker is None or maker.kind not in _ENDINGS:
            return WayOut(name, None, name)
        logits = self._model.tensors[maker.inputs[0]].name
        return WayOut(name, _ENDINGS[maker.kind], logits)

    def parameters(self, number: int) -> Parameters | None:
        """Of the convolution or dense layer that gives this tensor."""
        operator = self.makers.get(number)
        if operator is None or operator.kind not in COMPUTE:
            return None
        weight = self.constant(operator.inputs[1])
        bias = self.constant(operator.inputs[2]) if len(operator.inputs) > 2 else None
        if operator.kind == "FULLY_CONNECTED":
            return Parameters(weight, bias, None, None)
        order = (0, 3, 1, 2) if operator.kind == "CONV_2D" else (3, 0, 1, 2)
        rows, columns = (operator.options[f"stride_{axis}"] for axis in ("rows", "columns"))
        image = operator.inputs[0]
        if (single := self._before_pairs(image)) is not None:
            image, columns, weight = single, 2 * columns, _of_single_columns(weight)
        taps = weight.shape[1:3]
        pads = self._pads(operator, image, taps, (rows, columns))
        return Parameters(weight.transpose(order), bias, pads, (rows, columns))

    def constant(self, number: int) -> NDArray[np.float32]:
        """The values of a constant, float32, through what it is stored in."""
        tensor = self._model.tensors[number]
        if tensor.data is None:
            number = self.makers[number].inputs[0]
            tensor = self._model.tensors[number]
        return tensor.real(tensor.values)

    def _before_pairs(self, number: int) -> int | None:
        """What a RESHAPE made this of, two columns at a time one of twice the channels."""
        maker = self.makers.get(number)
        if maker is None or maker.kind != "RESHAPE":
            return None
        single, pairs = (self._model.tensors[each].shape for each in (maker.inputs[0], number))
        if len(single) != 4 or pairs[1:] != (single[1], single[2] // 2, 2 * single[3]):
            return None
        return maker.inputs[0]

    def _pads(
        self, operator: Operator, image: int, taps: tuple[int, ...], strides: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        maker = self.makers.get(image)
        if maker is not None and maker.kind == "PAD":
            return None
        if operator.options.get("padding", _SAME) != _SAME:
            return (0, 0, 0, 0)
        sides = self._model.tensors[image].shape[1:3]
        missing = [
            max((-(-side // stride) - 1) * stride + tap - side, 0)
            for side, tap, stride in zip(sides, taps, strides, strict=True)
        ]
        before = [each // 2 for each in missing]
        return (*before, *(each - first for each, first in zip(missing, before, strict=True)))

    def _way_in(self, number: int) -> WayIn:
        """Follow the input to the first convolution, as far as there is one way."""
        rescaling, transposed = Rescaling(), False
        while len(readers := self._readers(number)) == 1:
            (reader,) = readers
            if reader.kind in COMPUTE:
                single = self._before_pairs(number)
                channels = self._model.tensors[number if single is None else single].shape[-1]
                return rescaling.way("nchw" if transposed else "nhwc", channels)
            if reader.kind == "TRANSPOSE":
                order = self._model.tensors[reader.inputs[1]].numbers()
                if transposed or order != _CHANNELS_FIRST_TO_LAST:
                    break
                transposed = True
            elif (
                reader.kind not in _PASSED_IN
                and self._before_pairs(reader.output) is None
                and not self._rescales(reader, number, rescaling)
            ):
                break
            number = reader.output
        return rescaling.way()

    def _readers(self, number: int) -> list[Operator]:
        return [each for each in self._model.operators if number in each.inputs]

    def _rescales(self, operator: Operator, number: int, rescaling: Rescaling) -> bool:
        if operator.kind not in _RESCALING or len(operator.inputs) != 2:
            return False
        index = operator.inputs.index(number)
        other = self._model.tensors[operator.inputs[1 - index]]
        return other.data is not None and rescaling.step(
            _RESCALING[operator.kind], other.real(other.values), constant_first=index == 1
        )


def _of_single_columns(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (O, rows, columns, C) of those for pairs of columns; the last may be none."""
    outputs, rows, pairs, channels = weight.shape
    single = weight.reshape(outputs, rows, 2 * pairs, channels // 2)
    return single if single[:, :, -1].any() else single[:, :, :-1]
