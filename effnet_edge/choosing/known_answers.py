"""What the network and each graph of a bundle answer to pictures that anybody can make.

The device that builds an engine has neither PyTorch nor the maker's pictures. So these answers
travel with the bundle, and the pictures are a formula. An engine is judged by its distance from the
network, which may be as large as its graph's own, simulated, but for chance: where values lie on
the edge between two integers, other sums round them otherwise, and engine and simulation are then
as far from each other as each is from the network.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.bundle import Measured, StageParity
from effnet_edge.bundle.schema import parse_json
from effnet_edge.errors import BundleError, GateError
from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, BatchSizeCheck, sizes_to_check
from effnet_edge.parity.measures.values import spread_db

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.parity import ParityResult
    from effnet_edge.parity.comparison import Classifier

ANSWERS_FILE = "answers.json"
STAGE = "build"
_REFERENCE = "torch"
_PICTURES = 4
_MARGIN_DB = 6.0
"""By so much an engine's noise may be above that of its graph."""
_VALUES_MARGIN_DB = 13.0
"""The same of values: the worst output's noise is of four numbers in either, and 4.34 · √(2 · 2/4)
is a standard deviation of their ratio, in decibels; three of them."""
_OWN_MARGIN_DB = 9.0
"""The same of its answers at one batch size from those at another: both have noise."""
_MEAN, _DEVIATION, _OWN_SHARE = 118.0, 50.0, 0.3
_SMALL = 1e-9


def known_pictures(manifest: Manifest) -> NDArray[np.uint8]:
    """Four pictures of noise with the spectrum of photographs, uint8 (4, H, W, C).

    They are as large as a bundle's input. INT8 loses as much on them as on photographs; on waves or
    white noise, which its ranges are not made for, it loses many times that. Amplitudes fall as the
    frequency grows (Field 1987, "Relations between the statistics of natural images and the
    response properties of cortical cells"), and channels have most in common. Another machine's
    Fourier transform may round a value to the next one.
    """
    side = manifest.input
    # The one generator of numpy whose numbers are promised to stay what they are.
    random = np.random.RandomState(0)
    pictures = []
    for _ in range(_PICTURES):
        shared = _field(random, side.height, side.width)
        channels = [
            shared + _OWN_SHARE * _field(random, side.height, side.width)
            for _ in range(side.channels)
        ]
        pictures.append(np.stack([each / max(each.std(), _SMALL) for each in channels], axis=-1))
    values = _MEAN + _DEVIATION * np.stack(pictures)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _field(random: np.random.RandomState, height: int, width: int) -> NDArray[np.float64]:
    """Noise whose amplitude is one over the frequency: mean 0, deviation 1."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.normal(size=(height, width))) / frequency
    values = np.fft.ifft2(spectrum).real
    return np.asarray(values / max(values.std(), _SMALL))


def answers_text(exact: NDArray[np.float32], graphs: Mapping[str, NDArray[np.float32]]) -> str:
    """The text of `ANSWERS_FILE`: logits of `known_pictures`, float32 (4, classes) each.

    Args:
        exact: the network's own.
        graphs: of each graph, by its name.
    """
    told = {"exact": _rows(exact), "graphs": {name: _rows(each) for name, each in graphs.items()}}
    return json.dumps(told) + "\n"


def _rows(logits: NDArray[np.float32]) -> list[list[float]]:
    """With no more digits than float32 has."""
    return [[float(str(each)) for each in row] for row in logits]


@dataclass(frozen=True)
class Expected:
    """What is known of one graph: the network's answers and its own, float32 (4, classes)."""

    exact: NDArray[np.float32]
    simulated: NDArray[np.float32]


def read_answers(bundle: Bundle, name: str) -> Expected:
    """Those of the graph of that name.

    Raises:
        BundleError: the file has no such answers.
    """
    choice = bundle.manifest.choice
    assert choice is not None
    assert choice.answers is not None
    path = bundle.path / choice.answers
    document = parse_json(bundle.read(choice.answers), path)
    shape = (_PICTURES, bundle.manifest.output.classes)
    try:
        found = [
            np.asarray(each, np.float32) for each in (document["exact"], document["graphs"][name])
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        found = []
    if not found or any(each.shape != shape or not np.isfinite(each).all() for each in found):
        raise BundleError(
            f"{path}: has no answers of {name} to {_PICTURES} pictures: make the bundle again with "
            "effnet-edge tune"
        )
    return Expected(*found)


def check_answers(engine: Classifier, manifest: Manifest, expected: Expected) -> StageParity:
    """Hold an engine to what is known, at every batch size that it may be called with.

    Its SQNR against the network must be what engines of its precision reach among their own batch
    sizes, or `_MARGIN_DB` below that of its graph, where the graph itself reaches less. Of a
    regression it is the error as a share of the spread that must be so, in decibels, as an SQNR
    hides any error beside a large offset.

    Args:
        manifest: of the bundle as the engine runs it.

    Raises:
        GateError: it answers otherwise, or not at all.
    """
    usual, kind = OWN_ANSWERS_DB[manifest.precision], manifest.output.kind
    pixels, sizes = known_pictures(manifest), sizes_to_check(manifest.batch)
    simulated = _compared(expected.exact, expected.simulated, manifest)
    share = simulated.value("nrmse")
    if share is None or math.isnan(share):
        graph = simulated.value("sqnr_db")
        assert graph is not None
        least = min(usual, graph - _MARGIN_DB)
        gate, key, limits = Gate(min_sqnr_db=least), "sqnr_db", {"at_least": least}
    else:
        graph = spread_db(share)
        most = 10 ** (-min(usual, graph - _VALUES_MARGIN_DB) / 20)
        gate, key, limits = Gate(max_nrmse=most), "nrmse", {"at_most": most}
    found = BatchSizeCheck(pixels, expected.exact, kind).run(
        engine, sizes, min(usual, graph - _OWN_MARGIN_DB), gate
    )
    failures = [failure for each in found for failure in each.failures]
    result = _compared(expected.exact, engine.infer(pixels), manifest)
    failures += gate.check(result)
    if failures:
        raise GateError(f"the engine is not the graph that it was built from: {failures[0]}")
    reached = result.value(key)
    assert reached is not None
    measures = {key: Measured(reached, **limits)}
    precision = engine.execution_precision
    return StageParity(STAGE, _REFERENCE, engine.name, precision, _PICTURES, measures, sizes)


def _compared(
    exact: NDArray[np.float32], logits: NDArray[np.float32], manifest: Manifest
) -> ParityResult:
    comparison = Comparison("", "", "", "", manifest.output.kind)
    comparison.update(exact, logits)
    return comparison.result()
