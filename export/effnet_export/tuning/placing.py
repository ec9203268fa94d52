"""Writes the bundle that a tune was asked for from those of its candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.bundle import BundleWriter, Choice, Contender, Graph
from effnet_export.answering import write_answers
from effnet_export.gate import stage_parity
from effnet_export.sbom import write_sbom
from effnet_export.stand_ins import simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.parity import Classifier
    from effnet_export.tuning.limits import Limits
    from effnet_export.tuning.outcome import Tried

HELD_OUT = "held out"
"""The stage of a contender's loss."""


def put_in_place(bundle: Bundle, output: Path, key: SigningKey | None) -> Bundle:
    """Write a finished bundle under another name, whole or not at all.

    Raises:
        BundleError: it is no longer what it was when it was judged, or the disk refuses.
    """
    with BundleWriter(output) as writer:
        for name in bundle.manifest.files:
            (writer.staging / name).write_bytes(bundle.read(name))
        return writer.commit(bundle.manifest, bundle.labels, key)


def write_carried(
    carried: Sequence[Tried],
    bundles: Mapping[str, Bundle],
    limits: Limits,
    exact: Classifier,
    output: Path,
    key: SigningKey | None,
) -> Bundle:
    """Write a bundle with the graphs of several, or the one bundle where there is but one.

    Args:
        carried: the one that loses least first, which the bundle then tells as its own.
        exact: the network in PyTorch.
    """
    if len(carried) == 1:
        return put_in_place(bundles[carried[0].name], output, key)
    first = bundles[carried[0].name]
    with BundleWriter(output) as writer:
        contenders = tuple(
            _contender(each, bundles[each.name], limits, writer.staging) for each in carried
        )
        own = contenders[0].graph
        assert own is not None
        manifest = replace(
            first.manifest,
            model=own.model,
            calibration=own.calibration,
            choice=Choice(contenders),
        )
        graphs = {
            each.graph.model: (each.precision, simulation(bundles[each.name]))
            for each in contenders
            if each.graph is not None
        }
        manifest = write_answers(manifest, exact, graphs, writer.staging)
        if first.labels is not None:
            writer.write_labels(first.labels)
        write_sbom(manifest, writer.staging)
        return writer.commit(manifest, first.labels, key)


def _contender(tried: Tried, bundle: Bundle, limits: Limits, staging: Path) -> Contender:
    """Copy the files of its graph under names of their own."""
    manifest, name = bundle.manifest, tried.name
    model, calibration = f"model-{name}.onnx", manifest.calibration
    (staging / model).write_bytes(bundle.read(manifest.model))
    if calibration is not None:
        table = f"calibration-{name}.json"
        (staging / table).write_bytes(bundle.read(calibration.table))
        calibration = replace(calibration, table=table)
    assert tried.loss is not None
    loss = stage_parity(HELD_OUT, tried.loss, limits.loss.judge(tried.loss))
    graph = Graph(model, calibration, manifest.parity)
    return Contender(name, tried.made_of, manifest.precision, loss, graph)
