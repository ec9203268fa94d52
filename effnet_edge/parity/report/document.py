"""Everything that a comparison found, as JSON values; HTML and JUnit XML are views of it.

Numbers are as `effnet_edge.nonfinite` says: null is only what was not measured.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.bundle import utc_now
from effnet_edge.extras import installed_versions
from effnet_edge.machine import Machine
from effnet_edge.parity.measures.accuracy import images_to_stay_within
from effnet_edge.parity.measures.gates import EXACT_GATES
from effnet_edge.parity.measures.statistics import (
    bootstrap_drop_interval,
    images_to_tell,
    mcnemar_exact,
)
from effnet_edge.parity.measures.table import measures_of
from effnet_edge.parity.report.costs import Cost
from effnet_edge.parity.report.destination import GENERATOR
from effnet_edge.parity.report.values import values_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.bundle import Calibration
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.batch_sizes import AtBatchSize, AtOnce
    from effnet_edge.parity.inside.bisection import Findings
    from effnet_edge.parity.inside.layers import LayerError
    from effnet_edge.parity.measures.accuracy import Drop
    from effnet_edge.parity.measures.gates import Verdict
    from effnet_edge.parity.measures.result import ParityResult
    from effnet_edge.parity.report.costs import Baseline
    from effnet_edge.parity.study import Study

SCHEMA_VERSION = 3
TOLD_DROP_POINTS = 0.5
_PACKAGES = ("effnet-edge", "numpy", "pillow", "onnx", "onnxruntime", "openvino", "torch")

Document = dict[str, Any]


@dataclass(frozen=True)
class Examined:
    """A candidate with all that was looked at; `layers` and `findings` where asked for.

    `at_once` is of a model behind a server, `calibration` of a bundle in INT8.
    """

    study: Study
    verdict: Verdict
    layers: list[LayerError] | None = None
    findings: Findings | None = None
    batch_sizes: Sequence[AtBatchSize] = ()
    cost: Cost = field(default_factory=Cost)
    at_once: AtOnce | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Circumstances:
    """What the numbers belong to: the command, its gate in words, the class names by index.

    `baseline` is what sizes and speeds are told against; None where neither is known. `files` tells
    how each model file was read.
    """

    command: str
    gate: str
    labels: Sequence[str] = field(default=())
    baseline: Baseline | None = None
    files: Sequence[Document] = field(default=())


def build_document(examined: Sequence[Examined], circumstances: Circumstances) -> Document:
    """Put everything into JSON values; at least one candidate.

    "passed", of all and of each, is null where no limit was set and nothing failed.
    """
    first = examined[0].study.result
    document: Document = {
        "generator": GENERATOR,
        "schema": SCHEMA_VERSION,
        "created": utc_now(),
        "command": circumstances.command,
        "environment": environment(),
        "images": first.images,
        "image_source": first.image_source,
        "skipped": list(first.skipped),
        "reference": first.reference,
        "reference_precision": first.reference_precision,
        "output": first.output,
        "as_probabilities": first.as_probabilities,
        "files": list(circumstances.files),
        "gate": circumstances.gate,
        "baseline": None if circumstances.baseline is None else asdict(circumstances.baseline),
        "passed": _all_passed([each.verdict.passed for each in examined]),
        "candidates": [_candidate(each, circumstances.labels) for each in examined],
    }
    return dict(nonfinite.encode(document))


def _all_passed(each: Sequence[bool | None]) -> bool | None:
    return False if False in each else True if True in each else None


def environment() -> dict[str, str]:
    """The machine, and the versions of what had a hand in the numbers."""
    machine = Machine.here()
    versions = {"platform": machine.platform, "processor": machine.processor}
    versions["python"] = machine.python
    return {**versions, **installed_versions(_PACKAGES)}


def _candidate(examined: Examined, labels: Sequence[str]) -> Document:
    study = examined.study
    accuracy, answers, changes = study.result.accuracy, study.answers, study.label_changes
    flips = []
    for flip in study.flips:
        names = {
            f"{side}_label": _name(labels, index)
            for side, index in (
                ("reference", flip.reference),
                ("candidate", flip.candidate),
                ("true", flip.label),
            )
        }
        flips.append({**flip.to_dict(), **names})
    rows = answers.by_class() if answers else changes.by_label() if changes else []
    by_class = [{**row, "label": _name(labels, row["class"])} for row in rows]
    return {
        **study.result.to_dict(),
        **examined.verdict.to_dict(),
        "batch_sizes": [each.to_dict() for each in examined.batch_sizes],
        "at_once": examined.at_once.to_dict() if examined.at_once else None,
        "same_but_for_rounding": _only_rounded(study.result),
        "cost": asdict(examined.cost),
        "quantized": _quantized(examined.calibration),
        "statistics": None if accuracy is None else _statistics(accuracy.top1),
        "drop_limit": None if accuracy is None else _drop_limit(accuracy.top1, examined.verdict),
        "calibration_error": answers.calibration_errors() if answers else None,
        "by_confidence": answers.by_confidence() if answers else [],
        "by_class": by_class,
        "flipped": len(answers.flipped()) if answers else changes.changed if changes else None,
        "flips": flips,
        **values_document(study.values, study.differences, labels),
        "layers": None
        if examined.layers is None
        else [layer.to_dict() for layer in examined.layers],
        "faults": None
        if examined.findings is None
        else [fault.to_dict() for fault in examined.findings.faults],
        "nodes_judged": None if examined.findings is None else examined.findings.nodes,
    }


def _quantized(calibration: Calibration | None) -> Document | None:
    """The layers that INT8 left in 16 bit, and those whose activation was replaced."""
    if calibration is None:
        return None
    return {
        "kept": list(calibration.kept),
        "fast_activations": list(calibration.fast_activations),
    }


def _only_rounded(result: ParityResult) -> bool:
    """Whether it is as close as a step that only rewrites the graph has to be."""
    return not EXACT_GATES[result.output].check(result)


def _statistics(drop: Drop) -> Document:
    low, high = bootstrap_drop_interval(drop.lost, drop.gained, drop.images)
    changed = (drop.lost + drop.gained) / drop.images
    return {
        "mcnemar_p": mcnemar_exact(drop.lost, drop.gained),
        "bootstrap_interval_95_points": [100 * low, 100 * high],
        "told_drop_points": TOLD_DROP_POINTS,
        "images_to_tell_it": images_to_tell(TOLD_DROP_POINTS / 100, changed),
        "images_to_tell_it_is_least": changed <= TOLD_DROP_POINTS / 100,
    }


def _drop_limit(drop: Drop, verdict: Verdict) -> Document | None:
    """The limit on the drop, whether the whole interval is on one side of it, and what it takes.

    "images" is how many pictures it takes until the interval lies within the limit, null where no
    number would do. None without such a limit.
    """
    for check in verdict.checks:
        if check.measure.key == "top1_drop":
            low, high = drop.interval
            return {
                "points": check.limit,
                "known": high <= check.limit or low > check.limit,
                "images": images_to_stay_within(
                    drop.lost, drop.gained, drop.images, check.limit / 100
                ),
            }
    return None


def _name(labels: Sequence[str], index: object) -> str | None:
    if not isinstance(index, int):
        return None
    return labels[index] if index < len(labels) else f"class {index}"


def worst_layers(candidate: Document, count: int) -> list[Document]:
    """The `count` layers that add most error by themselves; one that adds NaN comes first."""
    added = [
        (-math.inf if math.isnan(decibels) else decibels, layer)
        for layer in candidate["layers"] or []
        if (decibels := nonfinite.decode(layer["added_sqnr_db"])) is not None
        and decibels != math.inf
    ]
    return [layer for _, layer in sorted(added, key=lambda pair: pair[0])[:count]]


def changes(old: Document, new: Document) -> list[str]:
    """What differs between two reports, a line each; candidates are matched by name."""
    before, after = _by_name(old), _by_name(new)
    lines = [f"{key[0]}: was not in the old report" for key in after if key not in before]
    lines += [f"{key[0]}: is no longer compared" for key in before if key not in after]
    if old["image_source"] != new["image_source"] or old["images"] != new["images"]:
        lines.append(
            f"the pictures are others: {old['images']} ({old['image_source']}), "
            f"now {new['images']} ({new['image_source']})"
        )
    lines += _other_question(old, new)
    was, now = (each.get("as_probabilities", False) for each in (old, new))
    if was != now:
        lines.append(f"errors and SQNR are of {'probabilities' if now else 'logits'} now")
    for key in (key for key in after if key in before):
        lines += [
            f"{key[0]}: {line}"
            for line in _candidate_changes(before[key], after[key], new["output"])
        ]
    lines += [
        f"environment: {key} {old['environment'].get(key, 'absent')} → {value}"
        for key, value in new["environment"].items()
        if old["environment"].get(key) != value
    ]
    return lines


def _other_question(old: Document, new: Document) -> list[str]:
    """What makes other numbers and verdicts of the same candidates."""
    pairs = [
        ("the reference is another", *(_reference(each) for each in (old, new))),
        ("the outputs are taken for others", old["output"], new["output"]),
        ("the limits are others", old["gate"], new["gate"]),
    ]
    return [f"{what}: {was}, now {now}" for what, was, now in pairs if was != now]


def _reference(document: Document) -> str:
    return f"{document['reference']} ({document['reference_precision']})"


def _by_name(document: Document) -> dict[tuple[str, int], Document]:
    """The candidates by name, and by how many before it have that name, too."""
    names = [each["candidate"] for each in document["candidates"]]
    keys = ((name, names[:at].count(name)) for at, name in enumerate(names))
    return dict(zip(keys, document["candidates"], strict=True))


_VERDICTS = {True: "passes", False: "fails", None: "has no limit set"}


def _candidate_changes(old: Document, new: Document, output: OutputKind) -> list[str]:
    lines = []
    if old["passed"] != new["passed"]:
        lines.append(f"{_VERDICTS[new['passed']]} now")
    if old["candidate_precision"] != new["candidate_precision"]:
        lines.append(f"ran in {old['candidate_precision']}, now in {new['candidate_precision']}")
    for measure in measures_of(output):
        was, now = (measure.tell(each.get(measure.key)) for each in (old, new))
        if measure.overview and was != now:
            lines.append(f"{measure.title(output)} {was} → {now}")
    return lines
