"""The page and the picture that `cpu_peers.py` writes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from effnet_edge.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from int8_peers.subject import Pictures

    from effnet_edge.parity import ParityResult

Times = dict[str, list[list[float]]]
"""Seconds of each call, by name and round."""


def document(
    results: Mapping[str, ParityResult],
    times: Mapping[int, Times],
    failures: Mapping[str, str],
    pictures: Pictures,
    picture: str,
) -> str:
    """Markdown: how faithful each model is, and how long it takes with so many threads."""
    machine = Machine.here()
    heads = [
        f"{count} thread{'s' if count > 1 else ''}: least, median ms, ratio" for count in times
    ]
    lines = [
        "# Engines on this processor",
        "",
        "Made by [`benchmarks/cpu_peers.py`](../benchmarks/cpu_peers.py); its head says how to run"
        " it, and what is not counted. Not edited by hand.",
        "",
        f"- Machine: {machine.processor}, {machine.platform}.",
        f"- Judged on {len(pictures.pixels)} pictures, SHA-256 {pictures.sha256[:12]}….",
        "- Ratio: a model's median to the first one's in the same round; the median of the rounds.",
        "",
        f"![KL against time](images/{picture})",
        "",
        "| " + " | ".join(["", "top-1 %", "agrees %", "KL, nats", *heads]) + " |",
        "| --- |" + " ---: |" * (3 + len(times)),
    ]
    for name, result in results.items():
        cells = [name, *_faithful(result), *(_speed(each, name) for each in times.values())]
        lines.append("| " + " | ".join(cells) + " |")
    if failures:
        lines += ["", "Not in the table:", ""]
        lines += [f"- {name}: {text}" for name, text in failures.items()]
    return "\n".join(lines) + "\n"


def _faithful(result: ParityResult) -> list[str]:
    assert result.accuracy is not None
    agreement = 100 * result.values["top1_agreement"]
    return [f"{result.accuracy.top1.candidate:.1f}", f"{agreement:.1f}", f"{result.kl:.4f}"]


def _speed(times: Times, name: str) -> str:
    first = next(iter(times.values()))
    least = min(min(each) for each in times[name])
    middle = median(median(each) for each in times[name])
    ratio = median(
        median(own) / median(other) for own, other in zip(times[name], first, strict=True)
    )
    return f"{1e3 * least:.2f}, {1e3 * middle:.2f}, {ratio:.2f}"


def frontier(results: Mapping[str, ParityResult], times: Times, threads: int, file: Path) -> None:
    """Draw KL against the median time, both logarithmic; what nothing beats in both is joined."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    points = {
        name: (1e3 * median(median(each) for each in times[name]), max(result.kl, 1e-6))
        for name, result in results.items()
    }
    best = sorted(
        (x, y)
        for x, y in points.values()
        if not any(u <= x and v <= y and (u, v) != (x, y) for u, v in points.values())
    )
    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    axes.step(*zip(*best, strict=True), where="post", color="#9aa", linewidth=1, zorder=1)
    for name, (x, y) in points.items():
        axes.scatter(
            x, y, s=28, color="#c33" if name.startswith("effnet-edge") else "#36c", zorder=2
        )
        axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"ms a picture, threads: {threads} (median)",
        ylabel="KL from PyTorch, nats",
    )
    axes.margins(x=0.3)  # the names stand to the right of their points
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
