"""What each graph of a bundle answers to pictures that anybody can make: proof of its engine.

The device that builds the engine has neither PyTorch nor the maker's pictures. So the answers of
the graphs, simulated where they were made, travel with the bundle, and the pictures are a formula.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.bundle import Measured, StageParity
from effnet_edge.bundle.schema import parse_json
from effnet_edge.errors import BundleError, GateError
from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, BatchSizeCheck, sizes_to_check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.parity.comparison import Classifier

ANSWERS_FILE = "answers.json"
STAGE = "build"
_REFERENCE = "the graph, simulated"
_PICTURES = 4
_WAVES = 6


def known_pictures(manifest: Manifest) -> NDArray[np.uint8]:
    """Four pictures of overlapping waves, uint8 (4, H, W, C), as large as a bundle's input.

    Another machine's sine may round a value to the next one.
    """
    side = manifest.input
    rows = np.linspace(0, 2 * np.pi, side.height, endpoint=False)[:, None, None]
    columns = np.linspace(0, 2 * np.pi, side.width, endpoint=False)[None, :, None]
    channels = np.arange(side.channels)[None, None, :]
    return np.stack([_waves(number, rows, columns, channels) for number in range(_PICTURES)])


def _waves(
    number: int,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    channels: NDArray[np.int_],
) -> NDArray[np.uint8]:
    """The sum of waves from coarse to fine, the coarse ones the strongest, as in photographs."""
    total = np.zeros(np.broadcast_shapes(rows.shape, columns.shape, channels.shape))
    for wave in range(_WAVES):
        down, across = 2**wave * (1 + number % 2), 2**wave * (1 + number // 2)
        phase = number + 2.4 * wave + 0.7 * channels
        total += np.sin(down * rows + phase) * np.sin(across * columns - phase) / (1 + wave)
    return np.rint(np.clip(127.5 + 90 * total, 0, 255)).astype(np.uint8)


def answers_text(answers: Mapping[str, NDArray[np.float32]]) -> str:
    """The text of `ANSWERS_FILE`: of each graph, by its name, the logits of `known_pictures`."""
    rows = {
        name: [[float(str(each)) for each in row] for row in of] for name, of in answers.items()
    }
    return json.dumps(rows) + "\n"


def read_answers(bundle: Bundle, name: str) -> NDArray[np.float32]:
    """What the graph of that name answers, float32 (4, classes).

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
        found = np.asarray(document[name], np.float32)
    except (KeyError, TypeError, ValueError, OverflowError):
        found = np.empty(0, np.float32)
    if found.shape != shape or not np.isfinite(found).all():
        raise BundleError(
            f"{path}: has no answers of {name} to {_PICTURES} pictures: make the bundle again with "
            "effnet-edge tune"
        )
    return found


def check_answers(
    engine: Classifier, manifest: Manifest, expected: NDArray[np.float32]
) -> StageParity:
    """Hold an engine to what its graph answers, at every batch size that it may be called with.

    Args:
        manifest: of the bundle as the engine runs it.

    Raises:
        GateError: it answers otherwise, or not at all.
    """
    least, kind = OWN_ANSWERS_DB[manifest.precision], manifest.output.kind
    pixels, sizes = known_pictures(manifest), sizes_to_check(manifest.batch)
    gate = Gate(min_sqnr_db=least)
    found = BatchSizeCheck(pixels, expected, kind).run(engine, sizes, least, gate)
    failures = [failure for each in found for failure in each.failures]
    if failures:
        raise GateError(f"the engine is not the graph that it was built from: {failures[0]}")
    precision = engine.execution_precision
    comparison = Comparison(_REFERENCE, engine.name, "", precision, kind)
    comparison.update(expected, engine.infer(pixels))
    reached = comparison.result().value("sqnr_db")
    assert reached is not None
    measures = {"sqnr_db": Measured(reached, at_least=least)}
    return StageParity(STAGE, _REFERENCE, engine.name, precision, _PICTURES, measures, sizes)
