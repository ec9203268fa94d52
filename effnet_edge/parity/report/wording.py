"""The findings as sentences that answer: is it the same model, how sure is that, what is gained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from effnet_edge import nonfinite
from effnet_edge.parity.measures.table import BY_KEY
from effnet_edge.parity.report.loss import bounded_measure, loss_kind, loss_of

if TYPE_CHECKING:
    from effnet_edge.parity.report.document import Document

State = Literal["failed", "passed", "unsure", "unlimited"]

STATES: dict[State, str] = {
    "failed": "FAILED",
    "passed": "passed",
    "unsure": "passed here, too few pictures to be sure",
    "unlimited": "no limit set",
}
"""What a person is told of each."""

_ABOUT_EQUAL = 0.05
_FRACTIONS = ((1 / 2, "half"), (1 / 3, "a third"), (1 / 4, "a quarter"), (1 / 5, "a fifth"))
_SAME_SIZE = 0.02


def state_of(candidate: Document) -> State:
    """What came of the limits: passing is not yet knowing, where the interval goes beyond."""
    if candidate["passed"] is None:
        return "unlimited"
    if not candidate["passed"]:
        return "failed"
    return "unsure" if too_few_pictures(candidate) else "passed"


def too_few_pictures(candidate: Document) -> str | None:
    """Say that the limit on the drop cannot be told to hold, or to be broken; None if it can.

    There is no doubt about one that only rounds otherwise in the last bits, or that gives NaN.
    """
    limit = candidate["drop_limit"]
    beyond_doubt = candidate["same_but_for_rounding"] or candidate["candidate_nonfinite"]
    if limit is None or limit["known"] or beyond_doubt:
        return None
    top1 = candidate["accuracy"]["top1"]
    low, high = top1["drop_interval_95_points"]
    pictures = top1["images"]
    if top1["drop_points"] > limit["points"]:
        return (
            f"{pictures:,} pictures are too few to be sure that it fails: the drop may be as "
            f"little as {_points(low)}, where {limit['points']:g} may be lost."
        )
    needed = "" if limit["images"] is None else f"; about {limit['images']:,} would tell"
    return (
        f"{pictures:,} pictures are too few to know whether it holds: the drop may be up to "
        f"{_points(high)}, where {limit['points']:g} may be lost{needed}."
    )


def headline(document: Document) -> str:
    """The outcome of all candidates in a few words."""
    states = [state_of(each) for each in document["candidates"]]
    failed, all_of_them = states.count("failed"), len(states)
    if failed:
        return "FAILED" if all_of_them == 1 else f"FAILED: {failed} of {all_of_them} models"
    if "unlimited" in states:
        return "Measured, no limit set"
    if "unsure" in states:
        return "Passed on these pictures, but they are too few to be sure"
    return "Passed"


def no_limit(document: Document) -> str:
    """Say that there is none, and which option sets one on what is told."""
    limit = bounded_measure(document).limit
    assert limit is not None
    return f"none set; --{limit.option} {limit.metavar} sets one"


def told_pictures(document: Document) -> str:
    """How many pictures, and whence; each number once, as many sets tell their own."""
    images, skipped, source = document["images"], len(document["skipped"]), document["image_source"]
    unread = f"; {skipped:,} could not be read" if skipped else ""
    if source.startswith(f"{images + skipped} "):
        return f"{source}{unread}"
    return f"{images:,} pictures: {source}{unread}"


def answer(document: Document, candidate: Document) -> str:
    """One candidate in a sentence: what is lost, how sure that is, speed and size."""
    parts = [
        _lost(document, candidate),
        speed_of(document, candidate),
        size_of(document, candidate),
    ]
    return f"{candidate['candidate']}: {'; '.join(filter(None, parts))}."


def _lost(document: Document, candidate: Document) -> str:
    pictures = f"{document['images']:,} pictures"
    broken = candidate["candidate_nonfinite"]
    if broken:
        return f"gave NaN or infinite numbers for {broken:,} of {pictures}: it cannot be used"
    if candidate["same_but_for_rounding"]:
        worst = 100 * (nonfinite.decode(candidate["relative_error"]) or 0.0)
        told = "less than 0.001 %" if worst < 0.001 else f"at most {worst:.1g} %"
        same = f"the same as {document['reference']} but for rounding"
        return f"{same} on {pictures} (off by {told} of the numbers' range)"
    loss, kind = loss_of(document, candidate), loss_kind(document)
    if loss.interval is not None:
        return _drop(loss.value, loss.interval, pictures)
    if document["output"] in ("features", "regression"):
        return _apart(document, candidate, loss.value, pictures)
    what = "answer" if kind.title == "other answers" else "set of labels"
    if loss.value == 0:
        return f"the same {what} on all {pictures}"
    return f"another {what} on {_rounded(loss.value)} % of {pictures}"


def _apart(document: Document, candidate: Document, percent: float, pictures: str) -> str:
    """What is said of outputs that are no classes."""
    if document["output"] == "features":
        told = BY_KEY["sqnr_db"].tell(candidate["sqnr_db"])
        return f"the features differ by {_rounded(percent)} % on {pictures} (SQNR {told})"
    told = (
        "no error that can be told" if math.isnan(percent) else f"an error of {_rounded(percent)} %"
    )
    return f"{told} of the values' spread on {pictures}"


def _drop(points: float, interval: tuple[float, float], pictures: str) -> str:
    low, high = interval
    if points == 0 or (points < 0 < high):
        seen = "no drop seen" if points == 0 else f"{_points(-points)} more right"
        return f"{seen} on {pictures}; a drop of up to {_points(high)} cannot be excluded"
    if points < 0:
        return f"{_points(-points)} more right on {pictures}"
    lost = f"{_points(points)} lost on {pictures}"
    if low > 0:
        return f"{lost}; on others probably between {low:.1f} and {_points(high)}"
    return f"{lost}, which may be chance; on others probably at most {_points(high)}"


def is_baseline(document: Document, candidate: Document) -> bool:
    """Whether sizes and speeds are told against this very candidate; two may share a name."""
    baseline = document["baseline"]
    return baseline is not None and (
        (baseline["name"], baseline["cost"]) == (candidate["candidate"], candidate["cost"])
    )


def speed_of(document: Document, candidate: Document) -> str:
    """How many times as fast as the baseline; empty where that was not timed, or is itself it."""
    times, baseline = candidate["cost"]["times_as_fast"], document["baseline"]
    if times is None or is_baseline(document, candidate):
        return ""
    low, high = candidate["cost"]["middle_half"] or (times, times)
    if abs(times - 1) <= _ABOUT_EQUAL or low <= 1 <= high:
        return f"about as fast as {baseline['name']}"
    if times < 1:
        return f"takes {_rounded(1 / times)} times as long as {baseline['name']}"
    return f"{_rounded(times)} times as fast as {baseline['name']}"


def size_of(document: Document, candidate: Document) -> str:
    """Its size as a part of the baseline's; empty where one is not known, or it is itself it."""
    baseline = document["baseline"]
    if baseline is None or is_baseline(document, candidate):
        return ""
    own, other = candidate["cost"]["model_bytes"], baseline["cost"]["model_bytes"]
    if not own or not other:
        return ""
    return f"{_fraction(own / other)} of {baseline['name']}"


@dataclass(frozen=True)
class UnlikeOthers:
    """Layers of a model that are not as the others: which, in words, and what that means."""

    told: str
    meaning: str
    layers: list[str]


def unlike_others(candidate: Document) -> list[UnlikeOthers]:
    """Of a bundle that was calibrated; nothing of other models."""
    quantized = candidate["quantized"] or {}
    kinds = (
        ("kept", "in 16 bit", "Left in 16-bit floating point, as INT8 would cost most there."),
        (
            "fast_activations",
            "with a fitted hard-swish",
            "Their SiLU was replaced by what is computed faster and is only nearly the same "
            "(--exact-activations keeps it).",
        ),
    )
    return [
        UnlikeOthers(f"{len(names)} layer{'' if len(names) == 1 else 's'} {what}", meaning, names)
        for key, what, meaning in kinds
        if (names := quantized.get(key))
    ]


def megabytes(size: int | None) -> str:
    """In 10⁶ bytes."""
    return "not known" if size is None else f"{size / 1e6:.3g} MB"


def _fraction(share: float) -> str:
    if abs(share - 1) <= _SAME_SIZE:
        return "the size"
    for value, word in _FRACTIONS:
        if math.isclose(share, value, rel_tol=0.06):
            return f"{word} {'' if word == 'half' else 'of '}the size"
    return f"{100 * share:.0f} % of the size" if share < 1 else f"{_rounded(share)} times the size"


def _rounded(value: float) -> str:
    """With two digits, of large numbers all before the point."""
    return nonfinite.tell(value, ".2g")


def _points(value: float) -> str:
    return f"{value:.1f} point{'' if round(value, 1) == 1 else 's'}".replace("-", "−")


MEANINGS = {
    "relative_error": "the largest error of any number, as a share of the range of all",
    "top1_agreement": "pictures with the same best class",
    "top5_agreement": "how many of the best five classes are the same",
    "label_set_agreement": "pictures with exactly the same labels",
    "label_agreement": "decisions, one a label and picture, that are the same",
    "sqnr_db": "how much stronger the answer is than its error; 20 dB: 10 %, 40 dB: 1 %",
    "cosine": "1: the numbers point the same way",
    "kl": "how far the probabilities are apart; 0 is equal, 0.02 is little",
    "top1_drop": "how many fewer of a hundred pictures are right",
    "top5_drop": "the same, with the right class among the best five",
    "spread_error": "the same of all classes together; 1 is always the mean answer",
    "nrmse": "the error next to how much the values vary; 0 is equal, 1 is always the mean",
    "correlation": "1: the values rise and fall together",
    "mae_increase": "how much farther from the true values on average",
    "max_abs_error": "the largest difference of any number",
    "mean_abs_error": "the mean difference of all numbers",
}
"""What a measure says, by its key, in words for everyone."""
