"""A node's process: reads one order, does it, and gives back the result, also where it fails."""

from __future__ import annotations

import os
import select
import signal
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

from effnet_edge import __version__
from effnet_edge.errors import BackendError, EffnetEdgeError, first_line
from effnet_edge.fleet.checking import check, node_name
from effnet_edge.fleet.exporting import export
from effnet_edge.fleet.orders import CHECK, EXPORT
from effnet_edge.fleet.package import Package
from effnet_edge.machine import Machine, jetpack_version

if TYPE_CHECKING:
    from collections.abc import Callable

_TASKS: dict[str, Callable[[Package], Package]] = {CHECK: check, EXPORT: export}


def do(content: bytes) -> bytes:
    """The result of a packed order: an error in a line, where the job cannot be done.

    Raises:
        BackendError: it is no order.
    """
    order = Package.unpack(content, "standard input")
    told = {"key": order.document.get("key"), "node": node_name()}
    try:
        result = _do(order)
    except EffnetEdgeError as error:
        return Package({**told, "error": str(error)}).pack()
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: {first_line(error)}"
        return Package({**told, "error": reason}).pack()
    machine = {"name": node_name(), **asdict(Machine.here()), "jetpack": jetpack_version()}
    document = {**result.document, **told, "node": machine, "version": __version__}
    return Package(document, result.files).pack()


def _do(order: Package) -> Package:
    version = order.document.get("version")
    if version != __version__:
        raise BackendError(
            f"effnet-edge is {__version__} here and {version} where the plan is: install the same "
            "on both"
        )
    task = _TASKS.get(str(order.document.get("task")))
    if task is None:
        raise BackendError(f"there is no task {order.document.get('task')!r}")
    return task(order)


def end_with_reader(descriptor: int) -> None:
    """End this process, by SIGTERM, once nobody reads the pipe at `descriptor` any more.

    So a job does not go on, and heat the device, for who has left.
    """
    if not hasattr(select, "poll"):
        return
    # Nothing is asked for: the other end's closing is always told.
    poll = select.poll()
    # A number of its own, which stays this pipe's when the other is closed.
    poll.register(os.dup(descriptor), 0)

    def watch() -> None:
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
