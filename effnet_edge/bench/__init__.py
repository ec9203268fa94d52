"""Latency and throughput of bundles, measured against each other in one run."""

from __future__ import annotations

from effnet_edge.bench.bundles import BundleTiming, bench_bundles
from effnet_edge.bench.ratios import SpeedRatio, speed_ratios
from effnet_edge.bench.timing import Timing, compare, in_turns

__all__ = [
    "BundleTiming",
    "SpeedRatio",
    "Timing",
    "bench_bundles",
    "compare",
    "in_turns",
    "speed_ratios",
]
