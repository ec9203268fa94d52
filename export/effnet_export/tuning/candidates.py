"""What a tune tries: one row a candidate, each of them a plain export request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from effnet_calibration.activation_fitting import SHARE
from effnet_export.budget import loss_without_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from effnet_edge.bundle import Manifest
    from effnet_edge.model.network import EfficientNet
    from effnet_export.request import ExportRequest
    from effnet_export.targets import ExportTarget

DEFAULT = "int8"
"""The candidate that is written where no limit is set: what `export --int8` makes."""


@dataclass(frozen=True)
class Candidate:
    """A row of the table.

    Attributes:
        name: in tables and pictures.
        made_of: in words.
        precision: that it is exported in.
        changes: further fields of the export request.
        loss_share: INT8 that loses this share of what the default one loses, 0..1: as few tensors
            more stay in 16 bit as hold that on the pictures of the calibration.
        fits: whether a target and a network have it at all.
    """

    name: str
    made_of: str
    precision: str
    changes: Mapping[str, object] = field(default_factory=dict)
    loss_share: float | None = None
    fits: Callable[[ExportTarget, EfficientNet], bool] = lambda _target, _network: True


def _replaces_silu(precision: str, target: ExportTarget, network: EfficientNet) -> bool:
    if precision == "int8" and target.row.rounds_outputs:
        return False  # any share is the same there, and the default's
    return precision in target.row.faster_hard_swish and network.activation == "silu"


def _may_replace_silu(target: ExportTarget, network: EfficientNet) -> bool:
    return bool(target.settings.fitted_share) and network.activation == "silu"


def _keeps_last_blocks(target: ExportTarget, network: EfficientNet) -> bool:
    return target.settings.keep_last_blocks and network.activation == "silu"


def _reads_depthwise_in_8_bit(target: ExportTarget, _: EfficientNet) -> bool:
    return not target.row.rounds_outputs and target.scheme.quantizes_depthwise


def _keeps_tensors(target: ExportTarget, network: EfficientNet) -> bool:
    return not target.row.rounds_outputs and loss_without_labels(network.output_kind) is not None


def _fast(precision: str, share: float) -> Candidate:
    percent = f"{100 * share:.0f}"
    return Candidate(
        f"{precision}-fast-{percent}",
        f"{precision.upper()}, plain hard-swishes for {percent} % of the values",
        precision,
        {"fast_activations": True, "fast_share": share},
        fits=partial(_replaces_silu, precision),
    )


CANDIDATES = (
    Candidate("fp32", "weights and arithmetic in FP32", "fp32"),
    Candidate("fp16", "weights in FP16, the device's fastest arithmetic", "fp16"),
    Candidate(DEFAULT, "INT8 as export makes it", "int8"),
    Candidate(
        "int8-exact",
        "INT8 with every SiLU",
        "int8",
        {"fast_activations": False},
        fits=_may_replace_silu,
    ),
    Candidate(
        "int8-all-8-bit",
        "INT8 with nothing kept in 16 bit",
        "int8",
        {"all_in_8_bit": True},
        fits=_keeps_last_blocks,
    ),
    Candidate(
        "int8-dense",
        "INT8, depthwise convolutions in 16 bit",
        "int8",
        {"keep_depthwise": True},
        fits=_reads_depthwise_in_8_bit,
    ),
    Candidate(
        "int8-budget-50",
        "INT8, a budget of half the default's loss",
        "int8",
        {},
        0.5,
        _keeps_tensors,
    ),
    Candidate("int8-budget-25", "INT8, a budget of a quarter", "int8", {}, 0.25, _keeps_tensors),
    _fast("int8", 0.8),
    _fast("int8", SHARE),
    Candidate(
        "int8-fast-8-bit",
        f"INT8, plain hard-swishes for {100 * SHARE:.0f} % of the values, the last blocks in 8 bit",
        "int8",
        {"fast_activations": True, "last_blocks_in_8_bit": True},
        fits=_keeps_last_blocks,
    ),
    _fast("fp16", 0.65),
    _fast("fp16", SHARE),
)


def candidates_for(target: ExportTarget, network: EfficientNet) -> list[Candidate]:
    """Those that a target and a network have."""
    return [
        each
        for each in CANDIDATES
        if each.precision in target.row.precisions and each.fits(target, network)
    ]


def export_request(candidate: Candidate, base: ExportRequest, folder: Path) -> ExportRequest:
    """The export that makes a candidate.

    Args:
        base: what all of them have in common, in INT8.
        folder: for the bundle, which is called as the candidate.

    Raises:
        UsageError: the request contradicts itself.
    """
    changes = {
        "precision": candidate.precision,
        "output": folder / candidate.name,
        "loss_share": candidate.loss_share,
        **candidate.changes,
    }
    if candidate.precision != "int8" and "fast_activations" not in changes:
        changes["calibration"] = None
    return replace(base, **changes)  # type: ignore[arg-type]


def told(manifest: Manifest) -> str:
    """What a finished bundle is made of, in words."""
    parts, calibration = [manifest.precision.upper()], manifest.calibration
    if calibration is not None and calibration.kept:
        parts.append(f"{len(calibration.kept)} in 16 bit")
    if calibration is not None and calibration.fast_activations:
        parts.append(f"{len(calibration.fast_activations)} hard-swishes")
    return ", ".join(parts)
