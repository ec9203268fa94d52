"""The network against the original: the only proof that a checkpoint was understood.

All gates of an export compare with the network that was built from the checkpoint. Where that one
pads or pools otherwise than the network that was trained, they pass all the same. Here it is held
against answers that this project had no hand in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effnet_edge.errors import GateError, UsageError
from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.comparison import logits_of
from effnet_edge.parity.measures.metrics import sqnr_db
from effnet_edge.parity.measures.probabilities import of_probabilities
from effnet_edge.parity.measures.values import nrmse, spread_db
from effnet_edge.parity.models.probing import settle_ending
from effnet_edge.parity.models.reading import AS_TOLD
from effnet_edge.pictures.reading import read_batches
from effnet_export.causes import answers, likely_cause
from effnet_export.gate import BATCH_SIZE, stage_parity
from effnet_export.model_files import FILE_ENDINGS, Openings, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.bundle import StageParity
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.model.source import Source
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.protocol import Pictures
    from effnet_export.causes import Likeness
    from effnet_export.code_bases import Answer, CodeBase, Wanted

ORIGINAL = "original"
_LEAST_DB = 60.0
_EQUAL = Gate(min_sqnr_db=_LEAST_DB)
# Where values have an offset, as years have, decibels are those of the offset.
_EQUAL_VALUES = _EQUAL.but(max_nrmse=10 ** (-_LEAST_DB / 20))
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
        for_size: what else it may be: the same network, which a package builds for the size of the
            pictures where it is told to.
    """

    name: str
    batches: Sequence[tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32]]]
    source: str
    as_probabilities: bool = False
    for_size: Callable[[], tuple[str, Answer]] | None = None


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
        UsageError, BackendError: the original cannot be had, or has too few answers, as their
            texts say.
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
    if kind == "regression" and result.images < 2:
        raise UsageError(f"--against {origin}: values are compared on 2 pictures or more")
    verdict = (_EQUAL_VALUES if kind == "regression" else _EQUAL).judge(result)
    if verdict.failures:
        inputs, logits = original.batches[0]
        likeness = _likeness(kind, as_probabilities=as_probabilities)
        facts = source.checkpoint
        cause = _padded_for_size(original, source, likeness) or likely_cause(
            network,
            source.preprocessing,
            inputs,
            logits,
            likeness,
            _LEAST_DB,
            follows_timm=facts is not None and facts.scheme.config == "timm",
        )
        raise GateError(
            f"the network is not what the original is ({original.name}): "
            f"{'; '.join(verdict.failures)}; {cause}"
        )
    return stage_parity(ORIGINAL, result, verdict)


def _padded_for_size(original: Answered, source: Source, likeness: Likeness) -> str | None:
    """The cause, where the original pads for another size unless it is built for this one."""
    if original.for_size is None:
        return None
    pixels = original.batches[0][0]
    _, answer = original.for_size()
    expected = answer(cast("NDArray[np.uint8]", pixels))
    found = answers(source.network, source.preprocessing, pixels)
    if likeness(expected, found) < _LEAST_DB:
        return None
    size = source.preprocessing.resolution
    return (
        f"built with image_size=[{size.height}, {size.width}] the original answers the same: "
        f"without, it does not pad for {size}, but as for {source.network.variant.resolution} "
        "px. If yours is built with it, give that one's answers as .npz; if not, give a "
        "--resolution that is padded alike"
    )


def _likeness(kind: OutputKind, *, as_probabilities: bool) -> Likeness:
    """How like two answers are, in decibels: of values, those of their spread."""
    if as_probabilities:
        return of_probabilities(sqnr_db, kind)
    if kind == "regression":
        return lambda expected, found: spread_db(nrmse(expected, found))
    return sqnr_db


def _answered(origin: str, request: NetworkRequest, source: Source, pictures: Pictures) -> Answered:
    path, preprocessing = Path(origin), source.preprocessing
    if path.suffix.lower() == _LOGITS:
        from effnet_export.logits_file import read_logits

        inputs, logits = read_logits(path, preprocessing)
        starts = range(0, len(inputs), BATCH_SIZE)
        parts = [slice(start, start + BATCH_SIZE) for start in starts]
        answered = [(inputs[part], logits[part]) for part in parts]
        return Answered(f"the logits in {path.name}", answered, path.name)
    batches = [pixels for pixels, _ in read_batches(pictures, preprocessing, BATCH_SIZE, [])]
    if kind := kind_of(path):
        model = kind.open(path, preprocessing, Openings(request), AS_TOLD, None)
        settle_ending(model, preprocessing, source.network.output_kind)
        answered = [(each, logits_of(model, each)) for each in batches]
        ends = model.way_out.ending is not None
        return Answered(model.name, answered, pictures.source, as_probabilities=ends)
    from effnet_export.code_bases import open_code_base

    base, wanted = _wanted(origin, request, source)
    name, answer = open_code_base(base, wanted)
    sized = base.for_size()
    return Answered(
        name,
        [(pixels, answer(pixels)) for pixels in batches],
        pictures.source,
        for_size=None if sized is None else partial(open_code_base, sized, wanted),
    )


def _wanted(origin: str, request: NetworkRequest, source: Source) -> tuple[CodeBase, Wanted]:
    from effnet_export.code_bases import Wanted

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
    return base, Wanted(
        model,
        facts,
        source.preprocessing,
        keeps_pixels=request.mean is not None or request.std is not None,
        features=request.output_kind == "features",
    )


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
