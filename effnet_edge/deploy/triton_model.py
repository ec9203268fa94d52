"""The model that Triton's Python backend runs for a wrapped bundle."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from effnet_edge import EngineRunner
from effnet_edge.deploy.triton import OPTION_PARAMETER, WRAPPED_BUNDLE
from effnet_edge.errors import EffnetEdgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# The capsule keeps a pointer to it.
_TAKEN = ctypes.c_char_p(b"used_dltensor")
_OPTIONS = {"device": str, "threads": int, "precision": str}


class TritonPythonModel:
    """Answers requests with what `EngineRunner.infer` gives, bit for bit."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle of this version; raises the runner's errors, which the server logs."""
        version = Path(args["model_repository"]) / args["model_version"]
        options = _options(json.loads(args["model_config"]).get("parameters", {}))
        self._runner = EngineRunner.load(version / WRAPPED_BUNDLE, **options)
        self._input = self._runner.manifest.input.name
        self._output = self._runner.manifest.output.name
        self._array, self._tensor = _exchange()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the images of all requests together; what fails is told to each of them."""
        tensors = [pb_utils.get_input_tensor_by_name(each, self._input) for each in requests]
        images = [self._array(each) for each in tensors]
        try:
            logits = self._runner.infer(np.concatenate(images))
        except EffnetEdgeError as error:
            return [_failed(error) for _ in requests]
        ends = np.cumsum([len(each) for each in images])[:-1]
        return [
            pb_utils.InferenceResponse([self._tensor(self._output, part)])
            for part in np.split(logits, ends)
        ]

    def finalize(self) -> None:
        """Release the engine."""
        self._runner.close()


def _options(parameters: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What `EngineRunner.load` is given, of the parameters in config.pbtxt."""
    given = {name: parameters.get(OPTION_PARAMETER + name) for name in _OPTIONS}
    return {
        name: _OPTIONS[name](value["string_value"])
        for name, value in given.items()
        if value is not None
    }


def _exchange() -> tuple[Any, Any]:
    """How a tensor becomes an array, and an array a tensor.

    A stub that was built for NumPy 1 reads and writes other values through NumPy 2's arrays, and
    tells no one (Triton 2.51); DLPack is right there. NumPy 1 cannot read the stub's DLPack.
    """
    if int(np.__version__.split(".")[0]) >= 2:
        return np.from_dlpack, _given
    return pb_utils.Tensor.as_numpy, pb_utils.Tensor


def _given(name: str, array: npt.NDArray[np.float32]) -> Any:
    """A tensor of an array's own memory, by DLPack.

    Whoever takes a capsule renames it, so that the array lets it be. The stub's name for it is not
    the one of the protocol, and NumPy would complain of every answer in the server's log.
    """
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _TAKEN)
    return tensor


def _failed(error: EffnetEdgeError) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
