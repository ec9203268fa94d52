"""Latency and throughput of bundles and served models, measured against each other in one run."""

from __future__ import annotations

from effnet_edge.bench.calls import Original
from effnet_edge.bench.models import ModelTiming, bench_models
from effnet_edge.bench.ratios import SpeedRatio, speed_ratios
from effnet_edge.bench.timing import Timing, compare, in_turns

__all__ = [
    "ModelTiming",
    "Original",
    "SpeedRatio",
    "Timing",
    "bench_models",
    "compare",
    "in_turns",
    "speed_ratios",
]
