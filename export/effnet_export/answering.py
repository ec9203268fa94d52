"""Writes what an engine is held to on the machine that runs it: the network's known answers.

It may be as far from the network there as it is here, or its graph, simulated, but for chance:
where values lie on the edge between two integers, other sums round them otherwise, and both are
then as far from each other as each is from the network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import GateError
from effnet_edge.runtime.known_answers import ANSWERS_FILE, answers_text, known_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effnet_edge.bundle import Manifest
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier

    Floats = NDArray[np.float64]

_USUAL_DB = {"fp32": 60.0, "fp16": 15.0, "int8": 15.0}
"""What an engine may be off in any case, below what differs between the pictures: processors have
other kernels, and run FP16 in BF16: docs/figures.md, "Known answers"."""
_MARGIN_DB = 6.0
"""By so much an engine's noise may be above that of its graph."""
_VALUES_MARGIN_DB = 13.0
"""The same of values: the noise of one output is of four numbers in either, and 4.34 · √(2 · 2/4)
is a standard deviation of their ratio, in decibels; three of them."""


def write_answers(
    manifest: Manifest,
    network: Classifier,
    graphs: Mapping[str, tuple[str, Classifier]],
    folder: Path,
) -> Manifest:
    """Put the file of answers into a bundle's folder, and its name into the manifest.

    Args:
        network: in PyTorch.
        graphs: by the file of each graph, its precision and what runs or simulates it.

    Raises:
        GateError: an answer of one is not finite.
    """
    pictures = known_pictures(manifest)
    exact = network.infer(pictures)
    allowed = {}
    for file, (precision, graph) in graphs.items():
        simulated = graph.infer(pictures)
        if not np.isfinite(simulated).all():
            raise GateError(
                f"{file}: answers pictures of noise with numbers that are not finite in "
                f"{precision}: export it with --fp32"
            )
        allowed[file] = allowed_error(exact, simulated, precision, manifest.output.kind)
    (folder / ANSWERS_FILE).write_text(answers_text(exact, allowed), encoding="utf-8")
    return replace(manifest, answers=ANSWERS_FILE)


def allowed_error(
    exact: NDArray[np.float32], simulated: NDArray[np.float32], precision: str, kind: OutputKind
) -> Floats:
    """How far off an engine may be, root mean square: (1,) of classes, (outputs,) of values.

    Of what differs between pictures that is `_USUAL_DB` below, or `_MARGIN_DB` above the noise of
    the graph, where that is more.
    """
    reference = exact.astype(np.float64)
    noise, spread = np.square(simulated - reference), np.square(reference - reference.mean(0))
    usual = 10 ** (-_USUAL_DB[precision] / 20)
    if kind != "regression":
        of_graph = 10 ** (_MARGIN_DB / 20) * np.sqrt(noise.mean(keepdims=True)[0])
        return np.asarray(np.maximum(of_graph, usual * np.sqrt(spread.mean())))
    of_graph, spreads = np.sqrt(noise.mean(0)), np.sqrt(spread.mean(0))
    varies = spreads > 0
    share = np.max(of_graph[varies] / spreads[varies], initial=0.0)
    margin = 10 ** (_VALUES_MARGIN_DB / 20)
    return np.asarray(np.where(varies, max(usual, margin * share) * spreads, margin * of_graph))
