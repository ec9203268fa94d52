from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bench import bench_models
from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_bundles_are_timed_side_by_side(tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", "openvino", tiny_model())
    second = write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    results = bench_models([first, second, first], batch=3, runs=5, threads=1, warmup=1)
    assert [result.path for result in results] == [str(first), str(second), str(first)]
    for result in results:
        assert (result.device, result.execution_precision, result.batch) == ("CPU", "FP32", 3)
        assert result.timing.runs == 5
        assert result.images_per_second == pytest.approx(3 * result.timing.throughput)
    assert results[0].timing.ratio == 1


def test_what_cannot_be_timed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch 0"):
        bench_models([tmp_path], batch=0)
    with pytest.raises(UsageError, match="no such bundle"):
        bench_models([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="nothing to compare"):
        bench_models([])
