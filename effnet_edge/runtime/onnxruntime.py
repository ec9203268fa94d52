"""Engines of ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.graphs.sessions import CPU, Session, available_providers
from effnet_edge.machine import usable_cores
from effnet_edge.runtime.backend import EngineSpec, most_common_precision
from effnet_edge.runtime.demand.onnx_steps import refuse_greedy_onnx
from effnet_edge.runtime.interface import Interface, Span, Tensor
from effnet_edge.runtime.layer_times import LayerTime, medians

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_SUFFIX = "ExecutionProvider"
# Runs models on a remote service: not a device of this machine.
_REMOTE_PROVIDERS = frozenset({"AzureExecutionProvider"})
# What follows a node's name where its computing was timed, in microseconds.
_TIMED = "_kernel_time"
_COMPUTE_OPERATORS = ("Conv", "MatMul", "Gemm")


class OnnxRuntimeBackend:
    """An inference session; ONNX Runtime itself lets many threads run it at once.

    Attributes:
        parallelism: 1 for latency, as one run uses every thread of the session; for throughput one
            a core, as each run has a thread to itself, and none waits busily for another.
    """

    takes_device_arrays = False

    def __init__(self, spec: EngineSpec) -> None:
        """Load the model; see `load_backend` for the errors."""
        providers = available_providers()
        _refuse_unsupported(spec)
        self._spec = spec
        self._provider = _provider(spec.device, providers)
        self._threads, self.parallelism = spec.threads, 1
        if spec.throughput and self._provider == CPU:
            self._threads, self.parallelism = 1, spec.streams or spec.threads or usable_cores()
        if self._provider == CPU:
            spec.refuse_overflow()
        if spec.interface is not None:
            refuse_greedy_onnx(spec.read(spec.model_path), spec.interface, spec.model_path)
        self._session = self._open_session()
        spec.check(Interface(_tensors(self._session.inputs), _tensors(self._session.outputs)))
        self._input = self._session.inputs[0].name

    @property
    def device(self) -> str:
        """The execution provider that comes first, without its suffix: "CPU", "CUDA", …."""
        return self._session.providers[0].removesuffix(_SUFFIX)

    @cached_property
    def execution_precision(self) -> str:
        """Found by profiling one run: the input types of the compute nodes that really ran."""
        nodes = [event["args"] for event in self._profile(_zeros(self._session.inputs[0]), runs=1)]
        return most_common_precision(
            next(iter(node["input_type_shape"][0]))
            for node in nodes
            if any(name in node.get("op_name", "") for name in _COMPUTE_OPERATORS)
            and node.get("input_type_shape")
        )

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Run one batch; ONNX Runtime reads `batch` in place and gives logits of its own."""
        return np.asarray(self._session.run({self._input: batch})[0], dtype=np.float32)

    def layer_times(self, batch: npt.NDArray[np.uint8 | np.float32], runs: int) -> list[LayerTime]:
        """Time every node of the graph as ONNX Runtime has rewritten it."""
        return medians(
            [
                LayerTime(
                    event["name"].removesuffix(_TIMED),
                    event["args"]["op_name"],
                    event["args"].get("provider", "").removesuffix(_SUFFIX),
                    event["dur"] / 1e6,
                )
            ]
            for event in self._profile(batch, runs)
            if event["name"].endswith(_TIMED)
        )

    def close(self) -> None:
        """Release the session."""
        del self._session

    def _open_session(self, profile: Path | None = None) -> Session:
        spec = self._spec
        return Session(
            spec.read(spec.model_path),
            str(spec.model_path),
            provider=self._provider,
            threads=self._threads,
            profile=profile,
            built_with=spec.built_with,
        )

    def _profile(self, batch: npt.NDArray[np.uint8 | np.float32], runs: int) -> list[Any]:
        """What ONNX Runtime writes down of every node in every run."""
        with _folder_for_profile(self._spec.model_path) as folder:
            session = self._open_session(folder / "profile")
            for _ in range(runs):
                session.run({self._input: batch})
            try:
                events = json.loads(Path(session.end_profiling()).read_bytes())
            except (OSError, ValueError) as error:  # ONNX Runtime does not tell
                raise _no_room(self._spec.model_path, folder) from error
        return [event for event in events if event.get("cat") == "Node"]


@contextmanager
def _folder_for_profile(model: Path) -> Iterator[Path]:
    """An empty folder, gone afterwards."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise _no_room(model, error.filename or "a temporary folder") from error
    with folder as name:
        yield Path(name)


def _no_room(model: Path, place: object) -> BackendError:
    return BackendError(
        f"{model}: the profile of a run cannot be written to {place}: make room there, or set "
        "TMPDIR"
    )


def _refuse_unsupported(spec: EngineSpec) -> None:
    if spec.streams is not None and spec.threads is not None:
        raise UsageError(
            "threads: ONNX Runtime gives each of several streams one: leave out threads or streams"
        )
    if spec.precision not in (None, spec.model_precision):
        raise UsageError(
            f"precision {spec.precision!r}: ONNX Runtime runs this model as it was exported "
            f"({spec.model_precision}): leave the precision out"
        )


def _provider(asked: str | None, providers: list[str]) -> str:
    available = [name.removesuffix(_SUFFIX) for name in providers if name not in _REMOTE_PROVIDERS]
    wanted = "cpu" if asked is None else asked.lower()
    matching = [name for name in available if name.lower() == wanted]
    if not matching:
        raise UsageError(
            f"device {asked!r} is not available to ONNX Runtime here: choose from "
            + ", ".join(available)
        )
    return matching[0] + _SUFFIX


def _tensors(nodes: list[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(frozenset({node.name}), _dtype(node.type), tuple(map(Span.of, node.shape)))
        for node in nodes
    )


def _dtype(element: str) -> str:
    """NumPy's name of "tensor(uint8)", "tensor(float)", …."""
    name = element.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _zeros(model_input: Any) -> npt.NDArray[np.uint8 | np.float32]:
    """The smallest batch that the session takes."""
    shape = [size if isinstance(size, int) else 1 for size in model_input.shape]
    return np.zeros(shape, np.uint8 if model_input.type == "tensor(uint8)" else np.float32)
