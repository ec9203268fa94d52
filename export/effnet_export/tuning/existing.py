"""A bundle that is there already: it tells what is tuned, and is a candidate itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from effnet_export.option_rules import Asked, check_options
from effnet_export.origin import network_request_of
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_export.deployed import InputKind

AS_IT_IS = "bundle"
"""The name of the candidate that it is."""


def check_asked(manifest: Manifest, given: Mapping[str, object]) -> None:
    """Hold options to what the bundle is, as those beside a variant are held to one another.

    Args:
        given: the options, by their long name, with their values.

    Raises:
        UsageError: one does not go with the bundle's target or kind of output.
    """
    told = {"--target": manifest.target, f"--{manifest.output.kind}": True}
    check_options(Asked("tune", {**given, **told}))


def request_like(
    bundle: Bundle,
    weights: str | None,
    calibration: Path,
    calibration_size: int,
    output: Path,
) -> ExportRequest:
    """The export that all candidates have in common, in INT8: for what the bundle was exported.

    Args:
        weights: its checkpoint file, if that is not where the manifest says.
    """
    manifest = bundle.manifest
    network, taken = network_request_of(manifest), manifest.input
    if manifest.output.kind == "features":
        network = replace(network, num_classes=None)
    return ExportRequest(
        network=replace(network, weights=weights or network.weights),
        target=manifest.target,
        precision="int8",
        input_kind=cast("InputKind", f"{taken.dtype}-{taken.layout.lower()}"),
        batch=manifest.batch,
        calibration=calibration,
        calibration_size=calibration_size,
        output=output,
    )
