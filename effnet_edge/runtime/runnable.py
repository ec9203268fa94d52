"""The bundle as this machine runs it: with an engine compiled here, where there is such a thing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord


def runnable(
    bundle: Bundle, device: str | None, *, rebuild: bool
) -> tuple[Bundle, EngineRecord | None]:
    """The bundle as its engine runs it, and that engine, if it is one compiled from the model.

    Raises:
        UsageError: no such device.
        BackendError: there is no engine for this machine, and it is not to be built.

    """
    if not TARGETS[bundle.manifest.target].built_on_device:
        return bundle, None
    from effnet_edge.runtime.tensorrt.selection import with_engine

    bundle, engine = with_engine(bundle, device, rebuild=rebuild)
    narrowed = replace(bundle.manifest, batch=engine.batch)
    return replace(bundle, manifest=narrowed), engine
