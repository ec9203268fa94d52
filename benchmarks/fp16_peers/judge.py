"""What a typed graph is worth: its answers, its types and what TensorRT-RTX makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import onnx
from int8_peers.reference import Reference
from onnx import TensorProto

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.graphs.editing import copied
from effnet_edge.graphs.types import element_types
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.runtime.tensorrt.plan import BuildOptions, Source, build_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from int8_peers.subject import Pictures, Subject

    from effnet_edge.parity import ParityResult

TARGET = "tensorrt-rtx"
GENERATION = "8.6"


@dataclass(frozen=True)
class Judgement:
    """Of one graph.

    Attributes:
        parity: with PyTorch in FP32, FP16 simulated.
        largest: the largest magnitude, in FP32, of a tensor that is in FP16; 0 if none is.
        casts: Cast nodes.
        nodes: other nodes.
        in_fp32: those of them that read or give a float32 tensor or weight.
        engine: its size in bytes, or why there is none.
    """

    parity: ParityResult
    largest: float
    casts: int
    nodes: int
    in_fp32: int
    engine: int | str


class Judge:
    """Judges graphs of one network on one set of pictures."""

    def __init__(self, subject: Subject, evaluation: Pictures) -> None:
        self._subject = subject
        self._evaluation = evaluation

    @cached_property
    def _reference(self) -> Reference:
        network = self._subject.source.network
        return Reference.of(network, self._subject.preprocessing, self._evaluation)

    def judge(self, model: onnx.ModelProto, ranges: Mapping[str, float]) -> Judgement:
        """Judge a typed graph.

        Args:
            ranges: the largest magnitude of each tensor of the graph that it was made from.

        Raises:
            onnx.checker.ValidationError, onnx.shape_inference.InferenceError: its types do not
                fit each other.
        """
        bare = copied(model)
        del bare.graph.value_info[:]
        onnx.checker.check_model(bare, full_check=True)
        types = element_types(bare)
        casts = [node for node in bare.graph.node if node.op_type == "Cast"]
        others = [node for node in bare.graph.node if node.op_type not in {"Cast", "Constant"}]
        reach = _through_casts(casts, ranges)
        halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
        return Judgement(
            self._compare(bare),
            max((reach[name] for name in halves if name in reach), default=0.0),
            len(casts),
            len(others),
            sum(
                any(types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
                for node in others
            ),
            _engine(model),
        )

    def _compare(self, model: onnx.ModelProto) -> ParityResult:
        candidate = OnnxClassifier(model, self._subject.preprocessing, "typed", rounding=True)
        return self._reference.compare("typed", candidate.execution_precision, candidate.infer)


def _through_casts(casts: list[onnx.NodeProto], ranges: Mapping[str, float]) -> dict[str, float]:
    """The ranges, and those of the tensors that only a Cast tells from one of these."""
    reach = dict(ranges)
    for node in (*casts, *reversed(casts)):
        source, target = node.input[0], node.output[0]
        if source in reach:
            reach.setdefault(target, reach[source])
        elif target in reach:
            reach[source] = reach[target]
    return reach


def _engine(model: onnx.ModelProto) -> int | str:
    name = model.graph.input[0].name
    source = Source(model.SerializeToString(), "graph", name, None, "fp16")
    options = BuildOptions(compute_capabilities=(GENERATION,))
    try:
        return len(build_plan(TARGET, source, (GENERATION,), options))
    except EffnetEdgeError as error:
        return str(error)
