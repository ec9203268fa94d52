"""An OpenVINO IR as parity sees it: run as OpenVINO runs it, and opened at its fused kernels."""

from __future__ import annotations

import re
from functools import cached_property
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
from effnet_edge.parity.models.openvino_interface import (
    entrance_of_openvino,
    output_names,
    way_out_of_openvino,
)
from effnet_edge.parity.models.reading import AS_TOLD, Reading
from effnet_edge.runtime.backend import EngineSpec, one_line
from effnet_edge.runtime.openvino import compile_model, compiled_precision, executed_precision
from effnet_edge.runtime.openvino_constants import constant_of
from effnet_edge.runtime.openvino_core import import_openvino, openvino_core

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.bundle import BatchRange
    from effnet_edge.parity.models.entrance import Entrance
    from effnet_edge.pictures.image import Preprocessing

_ORIGINAL_NAMES = "originalLayersNames"
_NO_WORK = frozenset({"Const", "Input", "Output"})
_GIVEN = "/given"

_HEAD_BYTES = 4096
_ROOT = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<net\b[^>]*", re.DOTALL
)
_VERSION = re.compile(rb"\bversion=[\"'](\d+)[\"']")


class OpenVinoClassifier:
    """An OpenVINO IR, ours or foreign.

    Args:
        path: the `.xml` file, its `.bin` beside it.
        device, threads, precision: as in `EngineRunner.load`.
        reading: what the file does not tell of its input and its outputs.

    Attributes:
        entrance, way_out: how pictures go in, and what comes out.

    Raises:
        UsageError: there is no such file, no such device, or the reading does not fit.
        BackendError: OpenVINO is not installed, or cannot load the model.
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
        self._spec = EngineSpec(
            file, "unknown", device=device, threads=threads, precision=precision
        )
        self._model = _with_chosen_output(read_ir(file), self.name, reading)
        self.entrance = entrance_of_openvino(self._model, self.name, reading)
        self.way_out, self._logits = way_out_of_openvino(self._model)
        self._compiled = compile_model(self._model, self._spec)
        self._traces: Traces[Any] = Traces()

    @cached_property
    def execution_precision(self) -> str:
        """What most of it computes in here: "FP32", "BF16", "FP16" or "INT8"."""
        return compiled_precision(self._compiled)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        return self.way_out.rows(self.answers(batch), self.name)

    def answers(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What comes out for images, as it is."""
        pixels = self.entrance.values(batch, self._preprocessing)
        parts = [
            self._run(self._compiled, part) for part in filled_batches([pixels], *self._limits)
        ]
        return joined([answer for (answer,) in parts], len(batch))

    @property
    def batch(self) -> BatchRange:
        """The batch sizes that the model takes."""
        return range_of_file(*self._limits)

    @cached_property
    def stored_precision(self) -> str:
        """Of the weights: "FP16" where any is stored so, otherwise "FP32"."""
        stored = (
            node.get_element_type().get_type_name()
            for node in self._model.get_ops()
            if node.get_type_name() == "Constant"
        )
        return "FP16" if "f16" in stored else "FP32"

    def kernels(self) -> list[Kernel]:
        """The kernels that the nodes were fused into, as OpenVINO tells of its compiled graph."""
        runtime_model = self._compiled.get_runtime_model()
        executed = [node.get_rt_info() for node in runtime_model.get_ordered_ops()]
        kernels = [
            self._kernel(info) for info in executed if _text(info, "layerType") not in _NO_WORK
        ]
        return [kernel for kernel in kernels if kernel.tensors]

    def grids(self) -> list[Grid]:
        """Of the FakeQuantize nodes with one range for the whole tensor, and of Q/DQ pairs."""
        return [
            grid
            for node in self._model.get_ordered_ops()
            if node.get_type_name() == "FakeQuantize" and (grid := self._grid(node)) is not None
        ]

    def parameters(self, _tensor: str) -> Parameters | None:
        """None: the compiled model does not show what it computes with."""
        return None

    def activations(
        self, batch: NDArray[np.uint8], names: Sequence[str], given: Given | None = None
    ) -> Activations:
        """The tensors with these names, by name; see `Traceable`."""
        given = without_logits(given)
        compiled = self._traces.get(
            names, given, lambda: compile_model(self._opened(names, given), self._spec)
        )
        pixels = self.entrance.values(batch, self._preprocessing)
        feeds = [pixels, *given.values()]
        parts = [self._run(compiled, part) for part in filled_batches(feeds, *self._limits)]
        found = {
            name: joined([part[index] for part in parts], len(batch))
            for index, name in enumerate(names)
        }
        return {
            name: without_ones(values) if name == LOGITS else values
            for name, values in found.items()
        }

    def _run(self, compiled: Any, feeds: list[NDArray[np.generic]]) -> list[NDArray[Any]]:
        try:
            # A request of its own, so that its buffers are the results and end with them.
            request = compiled.create_infer_request()
            results = request.infer(feeds, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(f"{self.name}: OpenVINO: {one_line(error)}") from error
        return [np.asarray(results[index]) for index in range(len(compiled.outputs))]

    def _opened(self, names: Sequence[str], given: Given) -> Any:
        """The model with `names` as its results, where readers of `given` read new parameters."""
        openvino = import_openvino()
        model = self._model.clone()
        ports = self._ports_of(model)
        results = [openvino.opset13.result(ports[name]) for name in names]
        parameters = []
        for name, value in given.items():
            port = ports[name]
            # The candidate's own shape may be what is wrong with it.
            shape = openvino.PartialShape([port.get_partial_shape()[0], *value.shape[1:]])
            parameter = openvino.opset13.parameter(
                shape, port.get_element_type(), name=f"{name}{_GIVEN}"
            )
            for reader in list(port.get_target_inputs()):
                if reader.get_node().get_type_name() != "Result":
                    reader.replace_source_output(parameter.output(0))
            parameters.append(parameter)
        return openvino.Model(results, [*model.get_parameters(), *parameters], "opened")

    @cached_property
    def _tensor_of_node(self) -> dict[str, str]:
        """The tensor that each node gives, by the node's friendly name, which kernels tell."""
        return {
            port.get_node().get_friendly_name(): name
            for name, port in self._ports_of(self._model).items()
        }

    @cached_property
    def _limits(self) -> tuple[int, int | None]:
        """The fewest and most images that the model takes; None for any number."""
        size = self._model.input(0).get_partial_shape()[0]
        most = int(size.get_max_length())
        return max(int(size.get_min_length()), 1), most if most > 0 else None

    def _ports_of(self, model: Any) -> dict[str, Any]:
        """The outputs of the nodes by tensor name; the one with the logits is called "logits"."""
        ports = {
            name: port
            for node in model.get_ordered_ops()
            if node.get_type_name() not in ("Constant", "Result", "Parameter")
            for port in node.outputs()
            for name in port.get_names()
        }
        if not self.way_out.by_graph:  # which of them has the logits is not known
            return ports
        return ports | {LOGITS: way_out_of_openvino(model)[1]}

    def _kernel(self, info: Any) -> Kernel:
        nodes = _text(info, _ORIGINAL_NAMES).split(",")
        tensors = tuple(
            self._tensor_of_node[node] for node in nodes if node in self._tensor_of_node
        )
        return Kernel(tensors, _text(info, "layerType"), executed_precision(info))

    def _grid(self, node: Any) -> Grid | None:
        ends = [constant_of(node.input_value(index)) for index in (1, 2)]
        ports = self._ports_of(self._model)
        names = [name for name, port in ports.items() if port == node.input_value(0)]
        if any(end is None or end.size > 1 for end in ends) or not names:
            return None
        low, high = (float(end.item()) for end in ends if end is not None)
        return Grid(
            node.get_friendly_name(), names[-1], low, high, int(node.get_attributes()["levels"])
        )


def _with_chosen_output(model: Any, name: str, reading: Reading) -> Any:
    """The model with the one output that is compared; raises as `Reading.choose_output`."""
    openvino = import_openvino()
    index = reading.choose_output(output_names(model), name)
    if len(model.outputs) == 1:
        return model
    chosen = model.output(index).get_node()
    return openvino.Model([chosen], model.get_parameters(), model.get_friendly_name())


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def openvino_entrance(path: str | os.PathLike[str], reading: Reading = AS_TOLD) -> Entrance:
    """How pictures go into the model of a file; raises as `OpenVinoClassifier`."""
    return entrance_of_openvino(read_ir(Path(path)), Path(path).name, reading)


def read_ir(path: Path) -> Any:
    """An `openvino.Model` of a file.

    Raises:
        UsageError: there is no such file.
        BackendError: OpenVINO is not installed, or cannot read the model.
    """
    with told_as_one_line(path, "it cannot be read"):
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not an OpenVINO model (.xml)")
        if not path.is_file():
            raise UsageError(f"{path}: no such OpenVINO model")
        version = _ir_version(path)
    weights = path.with_suffix(".bin").name
    failed = f"OpenVINO cannot read it with its weights in {weights}"
    with needed_for("an OpenVINO model", "openvino"), told_as_one_line(path, failed, one_line):
        _refuse_version(path, version)
        return openvino_core().read_model(path)


def _refuse_version(path: Path, version: str) -> None:
    """Raise BackendError for a format that OpenVINO's reader of IRs does not take.

    OpenVINO itself would try its readers of other formats, which complain on standard error.
    """
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager

    if not FrontEndManager().load_by_framework("ir").supported(str(path)):
        raise BackendError(
            f"{path}: it is an IR of version {version}, which OpenVINO {openvino.__version__} does "
            "not read: convert the model again with this OpenVINO"
        )


def _ir_version(path: Path) -> str:
    """Of an IR's format; raises BackendError for another file, which OpenVINO might take, too."""
    with path.open("rb") as file:
        root = _ROOT.match(file.read(_HEAD_BYTES))
    if root is None:
        raise BackendError(
            f"{path} is not an OpenVINO model: it is empty or does not begin with <net …>: save "
            "the model again with openvino.save_model"
        )
    version = _VERSION.search(root.group())
    return version.group(1).decode() if version else "unknown"
