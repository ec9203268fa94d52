"""A LiteRT file as parity sees it: run as LiteRT runs it, and opened at its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError, told_as_one_line
from effnet_edge.extras import needed_for
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.inside.tracing import (
    LOGITS,
    Activations,
    Given,
    Grid,
    Kernel,
    Parameters,
)
from effnet_edge.parity.models.batches import Traces, filled_batches, joined, without_logits
from effnet_edge.parity.models.ending import without_ones
from effnet_edge.parity.models.litert_interface import Structure
from effnet_edge.parity.models.litert_opening import opened
from effnet_edge.parity.models.litert_steps import steps_of
from effnet_edge.parity.models.reading import AS_TOLD, Reading
from effnet_edge.runtime.backend import EngineSpec, one_line
from effnet_edge.runtime.demand.litert_steps import COMPUTE, known_litert
from effnet_edge.runtime.demand.steps import ForeignError
from effnet_edge.runtime.litert import precision_of_litert, refuse_unsupported
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.parity.models.entrance import Entrance
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.runtime.demand.litert_model import LiteRtModel, Operator, Tensor

_QUANTIZERS = {"QUANTIZE": "QuantizeLinear", "DEQUANTIZE": "DequantizeLinear"}
_LEVELS = 256


class LiteRtClassifier:
    """A LiteRT model, ours or foreign, of an EfficientNet's operators.

    Args:
        device, threads, precision: as in `EngineRunner.load`.
        reading: what the file does not tell of its input and its outputs.

    Attributes:
        entrance, way_out: how pictures go in, and what comes out.

    Raises:
        UsageError: there is no such file, no such device, or the reading does not fit.
        BackendError: LiteRT is not installed, or cannot load the model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        preprocessing: Preprocessing,
        name: str | None = None,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        reading: Reading = AS_TOLD,
    ) -> None:
        file = Path(path)
        self.name = name or file.name
        self._preprocessing = preprocessing
        self._threads = threads
        self._content, self._model = read_litert_file(file)
        self._structure = Structure(self._model)
        self.execution_precision = precision_of_litert(self._model)
        spec = EngineSpec(file, "unknown", device=device, precision=precision)
        refuse_unsupported(spec, self.execution_precision)
        names = [self._tensor(each).name for each in self._model.outputs]
        output = self._model.outputs[reading.choose_output(names, self.name)]
        self.entrance = self._structure.entrance(self.name, reading)
        self.way_out = self._structure.way_out(output)
        self._interpreter = self._opened([output], [])
        self._traces: Traces[LiteRtInterpreter] = Traces()
        self.batch = range_of_file(*self._limits)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        return self.way_out.rows(self.answers(batch), self.name)

    def answers(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What comes out for images, as it is."""
        pixels = self.entrance.values(batch, self._preprocessing)
        parts = [
            self._run(self._interpreter, part)[0]
            for part in filled_batches([pixels], *self._limits)
        ]
        return joined(parts, len(batch))

    @property
    def stored_precision(self) -> str:
        """Of the weights: "INT8" or "FP16" where any is stored so, otherwise "FP32"."""
        stored = {each.dtype for each in self._model.tensors if each.data is not None}
        if "int8" in stored:
            return "INT8"
        return "FP16" if "float16" in stored else "FP32"

    def kernels(self) -> list[Kernel]:
        """The operators, as `steps_of` groups them: what XNNPACK fuses, it does not tell."""
        return [self._kernel(each) for each in steps_of(self._model)]

    def grids(self) -> list[Grid]:
        """Of the tensors of integers that are computed."""
        numbers = (each.output for each in self._model.operators)
        return [_grid(tensor) for each in numbers if (tensor := self._tensor(each)).scales]

    def parameters(self, tensor: str) -> Parameters | None:
        """Of the convolution or dense layer that gives this tensor."""
        return self._structure.parameters(self._number(tensor))

    def activations(
        self, batch: NDArray[np.uint8], names: Sequence[str], given: Given | None = None
    ) -> Activations:
        """The tensors with these names, by name, (N, C, H, W); see `Traceable`."""
        given = without_logits(given)
        numbers = [self._number(name) for name in names]
        instead = {self._number(name): values for name, values in given.items()}
        interpreter = self._traces.get(names, given, lambda: self._opened(numbers, list(instead)))
        feeds: list[NDArray[Any]] = [self.entrance.values(batch, self._preprocessing)]
        feeds += [_stored(self._tensor(number), values) for number, values in instead.items()]
        parts = [self._run(interpreter, part) for part in filled_batches(feeds, *self._limits)]
        found = {}
        for index, (name, number) in enumerate(zip(names, numbers, strict=True)):
            values = self._tensor(number).real(joined([part[index] for part in parts], len(batch)))
            found[name] = without_ones(values) if name == LOGITS else _channels_first(values)
        return found

    def _run(
        self, interpreter: LiteRtInterpreter, feeds: list[NDArray[np.generic]]
    ) -> list[NDArray[Any]]:
        try:
            return interpreter.run(feeds)
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{self.name}: LiteRT: {one_line(error)}") from error

    def _opened(self, outputs: list[int], given: list[int]) -> LiteRtInterpreter:
        content = self._content
        if given or tuple(outputs) != self._model.outputs:
            content = opened(content, outputs, given)
        with (
            needed_for("a LiteRT model", "litert"),
            told_as_one_line(self.name, "LiteRT cannot load it", one_line),
        ):
            return LiteRtInterpreter(content, self._threads)

    @property
    def _limits(self) -> tuple[int, int | None]:
        """The fewest and most images that the model takes; None for any number."""
        pixels = self._tensor(self._model.inputs[0])
        return (1, None) if pixels.dynamic else (pixels.shape[0], pixels.shape[0])

    def _tensor(self, number: int) -> Tensor:
        return self._model.tensors[number]

    def _number(self, name: str) -> int:
        wanted = self.way_out.logits if name == LOGITS else name
        made = [each.output for each in self._model.operators] + list(self._model.inputs)
        return next(each for each in made if self._tensor(each).name == wanted)

    def _kernel(self, step: tuple[Operator, ...]) -> Kernel:
        first = step[0]
        told = _QUANTIZERS.get(first.kind, self._told(first))
        return Kernel(
            tuple(self._public(each.output) for each in step),
            told if len(step) == 1 else f"{told}, {_activation(step)}",
            "INT8" if self._in_integers(first) else "FP32",
        )

    def _in_integers(self, operator: Operator) -> bool:
        """Whether it computes in them: by its weights, where it has any."""
        read = operator.inputs[1 if operator.kind in COMPUTE else 0]
        return self._tensor(read).dtype == "int8"

    def _public(self, number: int) -> str:
        name = self._tensor(number).name
        return LOGITS if name == self.way_out.logits else name

    def _told(self, operator: Operator) -> str:
        if operator.kind not in COMPUTE or operator.kind == "FULLY_CONNECTED":
            return operator.kind
        parameters = self._structure.parameters(operator.output)
        pads = None if parameters is None else parameters.pads
        return operator.kind if pads is None else f"{operator.kind}, pads {list(pads)}"


def _activation(step: tuple[Operator, ...]) -> str:
    """Which one ends a step of several operators."""
    return "SiLU" if any(each.kind == "LOGISTIC" for each in step) else "HardSwish"


def litert_entrance(path: str | os.PathLike[str], reading: Reading = AS_TOLD) -> Entrance:
    """How pictures go into the model of a file; raises as `LiteRtClassifier`."""
    _, model = read_litert_file(Path(path))
    return Structure(model).entrance(Path(path).name, reading)


def read_litert_file(path: Path) -> tuple[bytes, LiteRtModel]:
    """The content of a file, and the model that it is.

    Raises:
        UsageError: there is no such file.
        BackendError: it cannot be read, is no LiteRT model, or one of other operators than an
            EfficientNet's, which is not run.
    """
    with told_as_one_line(path, "it cannot be read"):
        if not path.is_file():
            raise UsageError(f"{path}: no such LiteRT model")
        content = path.read_bytes()
    try:
        return content, known_litert(content, path)
    except ForeignError as error:
        raise BackendError(
            f"{path}: {error}: only LiteRT models of an EfficientNet's operators, with constant "
            "shapes, are compared"
        ) from error


def _grid(tensor: Tensor) -> Grid:
    least = -128 - tensor.zero_points[0]
    low, high = (tensor.scales[0] * each for each in (least, least + _LEVELS - 1))
    return Grid(tensor.name, tensor.name, low, high, _LEVELS)


def _stored(tensor: Tensor, values: NDArray[np.generic]) -> NDArray[Any]:
    """What a tensor holds for real values (N, C, …), in its layout and on its grid."""
    real = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
    if not tensor.scales:
        return np.ascontiguousarray(real, tensor.dtype)
    steps = np.asarray(real, np.float32) / np.float32(tensor.scales[0])
    integers = np.rint(steps) + tensor.zero_points[0]
    kind = np.iinfo(tensor.dtype)
    return np.ascontiguousarray(integers.clip(kind.min, kind.max), tensor.dtype)


def _channels_first(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
