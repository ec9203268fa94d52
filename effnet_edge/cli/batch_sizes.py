"""The part of `effnet-edge parity` that runs every candidate at all batch sizes that matter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from effnet_edge.cli.common import progress_bar, say

if TYPE_CHECKING:
    from effnet_edge.nonfinite import JsonNumber
    from effnet_edge.parity.batch_sizes import AtBatchSize, AtOnce
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.measures.gates import Gate
    from effnet_edge.parity.report.document import Document
    from effnet_edge.pictures.few import FewPictures
    from effnet_export.opening import Models

# In the names of ONNX's and OpenVINO's operators of integers.
_ROUNDING = ("Quantize", "QLinear", "Integer")


def check_batch_sizes(
    models: Models, candidate_index: int, few: FewPictures, batch_size: int, limits: Gate
) -> tuple[list[AtBatchSize], AtOnce | None]:
    """One result a size, also for the `batch_size` of the whole comparison, and one of clients.

    The limits hold at each of them. Nothing for a PyTorch network, which is the same at all of
    them; only a server has clients.
    """
    from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, BatchSizeCheck
    from effnet_edge.parity.comparison import logits_of
    from effnet_edge.parity.models.served import ServedClassifier

    candidate, batch = models.candidates[candidate_index], models.batch_of(candidate_index)
    if batch is None:
        return [], None
    if not len(few):
        say(f"{candidate.name}: not checked at other batch sizes, as no picture can be read now")
        return [], None
    served = models.served_bundle_of(candidate_index)
    bundle = models.bundle_of(candidate_index) or served
    precision = bundle.manifest.precision if bundle else _precision_of_file(candidate)
    own_answers_db = OWN_ANSWERS_DB[precision]
    check = BatchSizeCheck(
        few.pixels,
        logits_of(models.reference, few.pixels),
        models.output_kind,
        as_probabilities=models.as_probabilities,
    )
    # What the bundle behind a server promises is asked of the server, too.
    promised = served.manifest.batch.sizes_to_check if served else ()
    sizes = sorted({*batch.sizes_to_check, *promised, batch_size})
    with progress_bar(f"batch sizes of {candidate.name}") as progress:
        at_sizes = check.run(candidate, sizes, own_answers_db, progress=progress, limits=limits)
    if not isinstance(candidate, ServedClassifier):
        return at_sizes, None
    return at_sizes, check.at_once(candidate, own_answers_db)


def _precision_of_file(candidate: Classifier) -> str:
    """FP32 where the file shows that nothing is rounded further; else the widest limit holds."""
    if candidate.execution_precision != "FP32" or not hasattr(candidate, "kernels"):
        return "int8"
    opened = cast("Traceable", candidate)
    operations = [kernel.operation for kernel in opened.kernels()]
    rounds = any(word in each for each in operations for word in _ROUNDING)
    return "int8" if rounds or opened.grids() or opened.stored_precision != "FP32" else "fp32"


def told_batch_sizes(candidate: Document) -> list[str]:
    """Tell at which sizes the answers were the same, in a line; none where no size was run."""
    from effnet_edge import nonfinite

    sizes = candidate["batch_sizes"]
    if not sizes or any(each["failures"] for each in sizes):
        return _told_clients(candidate)
    listed = ", ".join(str(each["size"]) for each in sizes)
    worst = min(sizes, key=lambda each: nonfinite.decode(each["worst_sqnr_db"]) or math.nan)
    told = nonfinite.tell(worst["worst_sqnr_db"], ".1f", " dB")
    told += _held(worst["worst_sqnr_db"], worst["least_sqnr_db"])
    return [
        f"{candidate['candidate']} gives the same answers at batch {listed} "
        f"(farthest apart at {worst['size']}: SQNR {told})",
        *_told_clients(candidate),
    ]


def _told_clients(candidate: Document) -> list[str]:
    from effnet_edge import nonfinite

    at_once = candidate["at_once"]
    if at_once is None or at_once["failures"]:
        return []
    told = nonfinite.tell(at_once["worst_sqnr_db"], ".1f", " dB")
    held = _held(at_once["worst_sqnr_db"], at_once["least_sqnr_db"])
    return [
        f"{candidate['candidate']} gives {at_once['clients']} clients at once the answers that one "
        f"gets alone: SQNR {told}{held}"
    ]


def _held(worst_sqnr_db: JsonNumber, least_sqnr_db: JsonNumber) -> str:
    """The limit behind a value that keeps to it."""
    from effnet_edge import nonfinite

    worst, least = nonfinite.decode(worst_sqnr_db), nonfinite.decode(least_sqnr_db)
    if worst is None or least is None:
        return ""
    if worst >= least:
        return f" ≥ {least:g} dB"
    return f" below {least:g} dB no further than by chance"
