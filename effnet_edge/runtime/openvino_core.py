"""OpenVINO without its telemetry, and the one `openvino.Core` of the process.

`import openvino` reports itself to its makers over the network where `openvino_telemetry` is
installed, and forks the process to do so. Whoever runs an engine asked for neither.

OpenVINO's CPU plugin gives the thread that makes it a signal stack, and unmaps that stack when it
is destroyed, with its core. Where another plugin was made meanwhile, or where the core is let go in
another thread, the system goes on using the unmapped stack, and the next signal, such as Ctrl-C,
is a segmentation fault. So there is one core, and it is never destroyed; its compiled
models are released one by one.

OpenVINO looks NumPy up at the first array that it is given, behind a guard of C++. It is waited for
with Python's lock held, while the thread inside waits for that lock: of two first inferences at
once neither ever ends. So OpenVINO is given an array here, before there are others.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.processes import ProcessLock
from effnet_edge.runtime.lifetime import keep_for_ever

if TYPE_CHECKING:
    import openvino

_TELEMETRY = "openvino_telemetry"

_cores: dict[int, openvino.Core] = {}
_first_array = ProcessLock()
_knows_numpy = False


def import_openvino() -> Any:
    """Import OpenVINO, a module; its telemetry stays out unless the program imported it before.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    kept_out = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if kept_out:
        # None is how the import system marks what cannot be imported; OpenVINO goes on without it.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if kept_out:
            sys.modules.pop(_TELEMETRY, None)
    _let_know_numpy(openvino)
    return openvino


def _let_know_numpy(openvino: Any) -> None:
    global _knows_numpy  # noqa: PLW0603 - as what it tells of is the process's
    if _knows_numpy:
        return
    with _first_array:
        openvino.Tensor(np.zeros(1, np.uint8))
        _knows_numpy = True


def openvino_core() -> openvino.Core:
    """The core of this process; a forked child has its own, because threads are not forked."""
    openvino = import_openvino()
    process = os.getpid()
    if process not in _cores:
        core = openvino.Core()
        if _cores.setdefault(process, core) is core:
            keep_for_ever(core)
    return _cores[process]
