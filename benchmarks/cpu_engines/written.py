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

LEAST_KL = 1e-4
"""What is drawn of models that are exact to rounding, which a logarithm would put far away."""


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
        "*A point a model, by its number in the table; ours are red. What no other model beats in"
        " both is joined.*",
        "",
        "| " + " | ".join(["", "model", "top-1 %", "agrees %", "KL, nats", *heads]) + " |",
        "| ---: | --- |" + " ---: |" * (3 + len(times)),
    ]
    for number, (name, result) in enumerate(results.items(), 1):
        cells = [*_faithful(result), *(_speed(each, name) for each in times.values())]
        lines.append("| " + " | ".join([str(number), name, *cells]) + " |")
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
    points = {
        name: (1e3 * median(median(each) for each in times[name]), result.kl)
        for name, result in results.items()
    }
    draw(points, threads, file)


def draw(points: Mapping[str, tuple[float, float]], threads: int, file: Path) -> None:
    """Draw milliseconds and nats of each model, numbered as in the table, with a key below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    shown = {name: (x, max(y, LEAST_KL)) for name, (x, y) in points.items()}
    best = sorted(
        (x, y)
        for x, y in shown.values()
        if not any(u <= x and v <= y and (u, v) != (x, y) for u, v in shown.values())
    )
    figure, axes = pyplot.subplots(figsize=(9, 7.5), layout="constrained")
    axes.step(*zip(*best, strict=True), where="post", color="#9aa", linewidth=1, zorder=1)
    above = {name: turn % 2 == 0 for turn, name in enumerate(sorted(shown, key=shown.get))}
    for number, (name, (x, y)) in enumerate(shown.items(), 1):
        color = "#c33" if name.startswith("effnet-edge") else "#36c"
        axes.scatter(x, y, s=28, color=color, zorder=2, label=f"{number}  {name}")
        place = (0, 6 if above[name] else -13)
        axes.annotate(str(number), (x, y), place, textcoords="offset points", ha="center")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"ms a picture, threads: {threads} (median)",
        ylabel=f"KL from PyTorch, nats (as {LEAST_KL:g} where it is less)",
    )
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.margins(x=0.05, y=0.08)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, markerscale=0.7, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
