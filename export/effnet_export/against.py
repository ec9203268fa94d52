"""The network against the original: the only proof that a checkpoint was understood.

All gates of an export compare with the network that was built from the checkpoint. Where that one
pads or pools otherwise than the network that was trained, they pass all the same. Here it is held
against answers that this project had no hand in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import GateError, UsageError
from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.comparison import logits_of
from effnet_edge.parity.measures.metrics import sqnr_db
from effnet_edge.parity.measures.probabilities import of_probabilities
from effnet_edge.parity.models.probing import settle_ending
from effnet_edge.parity.models.reading import AS_TOLD
from effnet_export.causes import answers, likely_cause
from effnet_export.gate import BATCH_SIZE, stage_parity
from effnet_export.model_files import FILE_ENDINGS, Openings, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.bundle import StageParity
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.model.source import Source
    from effnet_edge.pictures.protocol import Pictures
    from effnet_export.code_bases import Answer, CodeBase

ORIGINAL = "original"
GATE = Gate(min_sqnr_db=60.0)
_LOGITS = ".npz"


@dataclass(frozen=True)
class Answered:
    """What an original answers.

    Attributes:
        name: what a person calls it.
        batches: what it was given, uint8 pixels (N, H, W, C) or, normalized, float32
            (N, C, H, W), and its logits (N, classes).
        source: of the pictures, in words.
        as_probabilities: whether a softmax or a sigmoid stands behind its logits, which are then
            known up to a number that changes no probability.
    """

    name: str
    batches: Sequence[tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32]]]
    source: str
    as_probabilities: bool = False


def check_origin(origin: str) -> None:
    """See that it is written as an origin is, before anything else is done.

    Raises:
        UsageError: it names no package that is known, and no file that is there.
    """
    path = Path(origin)
    if path.suffix.lower() in (*FILE_ENDINGS, _LOGITS):
        if not path.is_file():
            raise UsageError(f"--against {origin}: no such file")
        return
    _code_base(origin)


def compare_with_original(
    origin: str, request: NetworkRequest, source: Source, pictures: Pictures
) -> StageParity:
    """Hold the network against the original on the same pictures.

    Args:
        origin: `PACKAGE[:MODEL]`, or a file: `.onnx`, `.xml`, or `.npz` with logits.

    Raises:
        GateError: they answer otherwise; the text names the likely cause.
        UsageError, BackendError: the original cannot be had, as their texts say.
    """
    original = _answered(origin, request, source, pictures)
    network, kind = source.network, source.network.output_kind
    as_probabilities = original.as_probabilities
    comparison = Comparison(
        original.name, "torch", "FP32", "FP32", kind, as_probabilities=as_probabilities
    )
    for inputs, logits in original.batches:
        comparison.update(logits, answers(network, source.preprocessing, inputs))
    result = comparison.result(original.source)
    verdict = GATE.judge(result)
    if verdict.failures:
        inputs, logits = original.batches[0]
        assert GATE.min_sqnr_db is not None
        likeness = of_probabilities(sqnr_db, kind) if as_probabilities else sqnr_db
        cause = likely_cause(
            network, source.preprocessing, inputs, logits, likeness, GATE.min_sqnr_db
        )
        raise GateError(
            f"the network is not what the original is ({original.name}): "
            f"{'; '.join(verdict.failures)}; {cause}"
        )
    return stage_parity(ORIGINAL, result, verdict)


def _answered(origin: str, request: NetworkRequest, source: Source, pictures: Pictures) -> Answered:
    path, preprocessing = Path(origin), source.preprocessing
    if path.suffix.lower() == _LOGITS:
        from effnet_export.logits_file import read_logits

        inputs, logits = read_logits(path, preprocessing)
        starts = range(0, len(inputs), BATCH_SIZE)
        parts = [slice(start, start + BATCH_SIZE) for start in starts]
        answered = [(inputs[part], logits[part]) for part in parts]
        return Answered(f"the logits in {path.name}", answered, path.name)
    batches = [pixels for pixels, _ in pictures.batches(preprocessing, BATCH_SIZE, [])]
    if kind := kind_of(path):
        model = kind.open(path, preprocessing, Openings(request), AS_TOLD, None)
        settle_ending(model, preprocessing, source.network.output_kind)
        answered = [(each, logits_of(model, each)) for each in batches]
        ends = model.way_out.ending is not None
        return Answered(model.name, answered, pictures.source, as_probabilities=ends)
    name, answer = _opened(origin, request, source)
    return Answered(name, [(pixels, answer(pixels)) for pixels in batches], pictures.source)


def _opened(origin: str, request: NetworkRequest, source: Source) -> tuple[str, Answer]:
    from effnet_export.code_bases import Wanted, open_code_base

    base, model = _code_base(origin)
    facts, variant = source.checkpoint, source.network.variant
    if facts is None:
        raise UsageError(f"--against {origin}: random weights have no original")
    model = model or base.model(variant, facts)
    if model is None:
        raise UsageError(
            f"--against {origin}: nothing says which of its networks the checkpoint is of: write "
            f"{origin}:MODEL, as {origin}:{base.example(variant)}"
        )
    wanted = Wanted(
        model,
        facts,
        source.preprocessing,
        keeps_pixels=request.mean is not None or request.std is not None,
        features=request.output_kind == "features",
    )
    return open_code_base(base, wanted)


def _code_base(origin: str) -> tuple[CodeBase, str | None]:
    from effnet_export.code_bases import CODE_BASES

    name, _, model = origin.partition(":")
    if name not in CODE_BASES:
        raise UsageError(
            f"--against {origin}: give a package ({', '.join(CODE_BASES)}), with the name of its "
            "model where that is needed (timm:tf_efficientnet_b0), or a file: the original as "
            f".onnx or .xml, or its answers as {_LOGITS}"
        )
    return CODE_BASES[name], model or None
