"""A tune for TensorRT-RTX with real exports: its compiler takes every graph that is carried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conditioned_networks import save_conditioned
from test_real_tune import SIDE, TINY, photos

from effnet_edge.bundle import Bundle
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.runtime.known_answers import known_pictures, read_answers
from effnet_edge.runtime.tensorrt.build import compile_engine
from effnet_export.loading import load
from effnet_export.request import ExportRequest
from effnet_export.stand_ins import simulation
from effnet_export.tuning import candidates, run
from effnet_export.tuning.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

TRIED = ("fp16", "int8")


@pytest.mark.slow
def test_each_graph_is_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(VARIANTS, TINY.name, TINY)
    rows = tuple(each for each in candidates.CANDIDATES if each.name in TRIED)
    monkeypatch.setattr(candidates, "CANDIDATES", rows)
    checkpoint = save_conditioned(TINY.name, SIDE, tmp_path / "tiny.safetensors")
    base = ExportRequest(
        NetworkRequest(TINY.name, weights=str(checkpoint), num_classes=10, resolution=SIDE),
        "tensorrt-rtx",
        "int8",
        calibration=photos(tmp_path / "photos"),
        output=tmp_path / "tuned",
    )

    carried = run.tune_for_device(base, Limits())

    assert [each.name for each in carried.carried] == list(TRIED)
    bundle = Bundle.load(tmp_path / "tuned")
    choice = bundle.manifest.choice
    assert choice is not None
    original = TorchClassifier(load(base).source.network, bundle.manifest.preprocessing)
    pixels = known_pictures(bundle.manifest)
    noise = {}
    for contender in choice.contenders:
        alone = bundle.with_one_graph(contender)
        record, plan = compile_engine(alone, tmp_path / "cache")
        assert record.compute_capability == ("8.6", "8.9", "12.0")
        assert plan
        expected = read_answers(alone)
        assert expected is not None
        np.testing.assert_array_equal(expected.exact, original.infer(pixels))
        noise[contender.name] = np.square(expected.errors(simulation(alone).infer(pixels))).item()
    # Untrained, the network answers nearly nothing: how much INT8 loses of that tells nothing.
    assert noise["fp16"] < 1e-2 * np.square(expected.exact).mean() < noise["int8"]
