"""Latency and throughput of bundles, measured against each other in one run."""

from __future__ import annotations

from effnet_edge.bench.bundles import BundleTiming, bench_bundles
from effnet_edge.bench.timing import Timing, compare

__all__ = ["BundleTiming", "Timing", "bench_bundles", "compare"]
