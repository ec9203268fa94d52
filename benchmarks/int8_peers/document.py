"""The document that the commands write."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.machine import instruction_sets, processor_name
from int8_peers import latencies
from int8_peers.benchmark import THREADS
from int8_peers.rows import best_of_each, judged
from int8_peers.store import version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from int8_peers.benchmark import Candidate, Judge
    from int8_peers.latencies import Turn
    from int8_peers.rows import Judged
    from int8_peers.store import Store
    from int8_peers.subject import Pictures, Subject

SCRIPT = "benchmarks/int8_against_peers.py"
_HEADINGS = (
    "top-1 %",
    "drop, points (95 % interval)",
    "agrees with FP32 %",
    "KL, nats",
    "SQNR, dB",
    "MB",
    "quantizing, s (CPU s)",
    "convolutions and matrix products ran in",
)
_TOOLS = ("openvino", "nncf", "onnxruntime", "onnx", "onnxsim", "torch", "numpy")

_HEAD = """\
# INT8 against peers

Made by [`benchmarks/int8_against_peers.py`](../benchmarks/int8_against_peers.py); its head says how
to run it. Not edited by hand.

Every row is the same network, calibrated on the same pictures and judged on the same other ones,
after the same preprocessing. Of the settings that were tried for a row, it shows the one with the
lowest KL *on the pictures that it is judged on*, which favours the peers: each row of ours has one
setting only. All settings are in the last table.
"""

_READING = """\
- Drop, agreement, KL and SQNR are against PyTorch in FP32; the drop's interval is for paired
  proportions (`effnet_edge.parity`). KL and SQNR tell models apart that top-1 of so few pictures
  cannot.
- "rest FP32" and "rest BF16": the same model file, with OpenVINO told to compute what is not INT8
  in FP32 or BF16 (`INFERENCE_PRECISION_HINT`); BF16 is its own choice on a CPU that has it.
- What ran in which precision is counted in OpenVINO's execution graph and in onnxruntime's
  optimized graph. A peer that leaves layers in float has an easier task than one that does not.
- NNCF with accuracy control was guarded on the calibration pictures, never on those it is judged
  on.
- ModelOpt's models and our symmetric one are made for TensorRT; run in onnxruntime they show their
  accuracy, not their speed. ModelOpt's AWQ methods are for INT4 weights: asked for with
  `quantize_mode="int8"`, ModelOpt 0.47.0 silently calibrates with max, bit for bit the same model.
- Ours is timed as the whole command: start, calibration, export and all parity gates. The CPU
  seconds tell more than the others where the machine was not idle.
"""

_LATENCY = """\
Batch 1, {threads} threads, latency hint; all models of a table in one process and in turns ({runs}
rounds): of ours in OpenVINO `EngineRunner.infer`, of the others bare inference requests. OpenVINO's
models take uint8 pixels and normalize them; for NNCF's that is OpenVINO's own preprocessing. In
onnxruntime ours take pixels, and the peers normalized tensors, without the time it takes to make
them.
"""


def document(
    subject: Subject,
    evaluation: Pictures,
    judge: Judge,
    store: Store,
    candidates: Sequence[Candidate],
    modelopt: str,
) -> str:
    """Everything that is known, in Markdown."""
    everything = judged(store, candidates, judge)
    rows = best_of_each(everything)
    tried = Counter(each.candidate.label for each in everything)
    sections = [
        [_HEAD],
        surroundings(subject, evaluation, modelopt),
        ["## Accuracy", "", *accuracy_table(rows, with_settings=False), "", _READING],
        ["Settings of these rows:", "", *best_settings(rows, tried)],
        *(
            _latency_section(latencies.recall(store, rows, engine), engine)
            for engine in latencies.ENGINES
        ),
        _failures(store, candidates, everything),
        ["## Every setting", "", *accuracy_table(everything, with_settings=True)],
    ]
    return "\n".join("\n".join(lines) + "\n" for lines in sections if lines)


def _latency_section(turn: Turn | None, engine: str) -> list[str]:
    name = {"openvino": "OpenVINO", "onnxruntime": "onnxruntime"}[engine]
    if turn is None:
        return [f"## Latency in {name}", "", "Not timed since the models were made."]
    table = latency_table(turn)
    return [f"## Latency in {name}", "", _LATENCY.format(runs=turn.runs, threads=THREADS), *table]


def _failures(
    store: Store, candidates: Sequence[Candidate], everything: Sequence[Judged]
) -> list[str]:
    done = {(each.candidate.method.group, each.candidate.method.text) for each in everything}
    failed = {
        f"- {each.method.group} ({each.method.text or 'defaults'}): `{failure}`": None
        for each in candidates
        if (each.method.group, each.method.text) not in done
        and (failure := store.failure(each.method))
    }
    return ["## What failed", "", *failed] if failed else []


def accuracy_table(rows: Sequence[Judged], *, with_settings: bool) -> list[str]:
    """Markdown, a line an item."""
    names = ("", "settings") if with_settings else ("",)
    lines = [_row((*names, *_HEADINGS)), _row(["---"] * len(names) + ["---:"] * len(_HEADINGS))]
    for each in rows:
        settings = (each.candidate.method.text or "defaults",) if with_settings else ()
        lines.append(_row((each.candidate.label, *settings, *_cells(each))))
    return lines


def latency_table(turn: Turn) -> list[str]:
    """Markdown, a line an item."""
    headings = ("", "median, ms", "p90, ms", "minimum, ms", "ratio to NNCF's fastest")
    lines = [_row(headings), _row(["---"] + ["---:"] * (len(headings) - 1))]
    for each in turn.rows:
        times = (f"{each.times[key]:.2f}" for key in ("median_ms", "p90_ms", "minimum_ms"))
        lines.append(
            _row((each.label, *times, f"{each.times['median_ms'] / turn.fastest_nncf:.2f}"))
        )
    return lines


def best_settings(rows: Sequence[Judged], tried: dict[str, int]) -> list[str]:
    """What each row's model was made with, and out of how many settings it is the best."""
    return [
        f"- {each.candidate.label}: {each.candidate.method.text or 'defaults'}"
        + (
            f" (the best of {tried[each.candidate.label]})"
            if tried[each.candidate.label] > 1
            else ""
        )
        for each in rows
    ]


def surroundings(subject: Subject, evaluation: Pictures, modelopt: str) -> list[str]:
    """Versions, machine and pictures."""
    versions = ", ".join(f"{tool} {version(tool)}" for tool in _TOOLS)
    calibration = subject.calibration
    return [
        f"- Machine: {_processor()}, {platform.platform()}, Python {platform.python_version()}.",
        f"- Versions: effnet-edge {version('effnet-edge')}, {versions}, "
        f"nvidia-modelopt {modelopt}.",
        f"- Network: EfficientNet-B0, {subject.source.weights.name} weights, SHA-256 "
        f"{subject.source.weights.sha256[:12]}….",
        f"- Pictures: {len(calibration.pixels)} for calibration (SHA-256 of the pixels "
        f"{calibration.sha256[:12]}…), {len(evaluation.pixels)} others to judge on "
        f"({evaluation.sha256[:12]}…).",
        f"- Commands: `python {SCRIPT} accuracy {calibration.path} {evaluation.path}`, then "
        "`latency` with the same arguments.",
    ]


def _cells(each: Judged) -> list[str]:
    figures, cost = each.figures, each.made.cost
    low, high = figures["interval"]
    return [
        f"{figures['top1']:.1f}",
        f"{figures['drop']:.1f} ({low:.1f} to {high:.1f})",
        f"{figures['agreement']:.1f}",
        f"{figures['kl']:.4f}",
        nonfinite.tell(figures["sqnr_db"], ".1f"),
        f"{each.made.bytes / 1e6:.1f}",
        f"{cost.seconds:.0f} ({cost.cpu_seconds:.0f})",
        ", ".join(f"{name} × {count}" for name, count in sorted(figures["executed"].items())),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    wanted = ("avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    found = [each for each in wanted if each in instruction_sets()]
    return f"{processor_name()} ({', '.join(found)})"
