"""What may help where a model does not hold its gate, or an engine cannot be built."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError
from effnet_edge.extras import needed_for
from effnet_export.gate import FITTED_ACTIVATIONS, HALF_PRECISION, INT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate
    from effnet_edge.targets import Target
    from effnet_export.targets import ExportTarget

# A budget that keeps well within the limits of INT8.
_BUDGETS: dict[OutputKind, str] = {
    "single-label": "--max-kl 0.02",
    "multi-label": "--max-kl 0.005",
    "regression": "--max-nrmse 0.1",
}


def in_floats(target: Target) -> str:
    """The option that rounds nothing to integers; of two, the one with fewer bits."""
    return "--fp16" if "fp16" in target.precisions else "--fp32"


def advice(gates: Mapping[OutputKind, Gate], output: OutputKind, target: Target) -> str:
    """What to try where a model does not hold these gates, in words that end the error.

    Nothing that the target refuses is among it. Empty where it has to hold them whatever it costs:
    then the export is at fault.
    """
    if gates is FITTED_ACTIVATIONS:
        return (
            "fitted hard-swishes may cost this network too much: try more pictures (--calibration) "
            "or leave --fast-activations out"
        )
    if gates is HALF_PRECISION:
        # As of values that lie far from 0 beside their spread. A fault shows in FP32, too.
        return "16 bit may be too coarse for this network: use --fp32"
    if gates is not INT8:
        return ""
    may_keep = output in _BUDGETS and not target.rounds_outputs
    budget = f", {_BUDGETS[output]}" if may_keep else ""
    return (
        f"INT8 may cost this network too much: try more pictures (--calibration){budget} or "
        f"{in_floats(target)}"
    )


def need_library(target: Target, job: str) -> None:
    """Raise BackendError where the target's library is not installed: before the work, not after.

    Args:
        job: what cannot be done without it.
    """
    with needed_for(job, target.extra or target.package):
        if importlib.util.find_spec(target.library) is None:
            raise ModuleNotFoundError(name=target.library)


def no_engine(target: ExportTarget) -> BackendError:
    """The error of who has to have an engine here."""
    gpu = "" if target.row.builds_ahead else " and an NVIDIA GPU"
    return BackendError(
        f"--require-engine: no {target.name} engine can be built here: it needs the library "
        f"({target.row.install_hint}){gpu}"
    )
