"""The one `openvino.Core` of the process.

OpenVINO's CPU plugin gives the thread that makes it a signal stack, and unmaps that stack when it
is destroyed, with its core. Where another plugin was made meanwhile, or where the core is let go in
another thread, the system goes on using the unmapped stack, and the next signal, such as Ctrl-C,
is a segmentation fault. So there is one core, and it is never destroyed; its compiled
models are released one by one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from effnet_edge.runtime.lifetime import keep_for_ever

if TYPE_CHECKING:
    import openvino

_cores: dict[int, openvino.Core] = {}


def openvino_core() -> openvino.Core:
    """The core of this process; a forked child has its own, because threads are not forked."""
    import openvino

    process = os.getpid()
    if process not in _cores:
        core = openvino.Core()
        if _cores.setdefault(process, core) is core:
            keep_for_ever(core)
    return _cores[process]
