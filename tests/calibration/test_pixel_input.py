"""A stem reads pixels as integers only where its zero points are pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import PREPROCESSING, Smooth, random_network

from effnet_calibration.calibrate import calibrate
from effnet_calibration.pixel_stem import holds_pixels
from effnet_calibration.quantization import PixelNormalization
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import (
    ASYMMETRIC_INT8_OUTPUTS,
    ASYMMETRIC_UINT8,
    SCHEMES,
)
from effnet_calibration.work import Settings
from effnet_edge.bundle import BatchRange
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.parity import compare
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_export.onnx_graph import export_onnx
from effnet_export.qdq import quantize_graph
from effnet_export.simplify import simplify

means = st.lists(st.floats(-2, 3), min_size=1, max_size=4)


@given(mean=means)
@pytest.mark.parametrize("name", SCHEMES)
def test_the_zero_points_of_what_is_held_are_bytes(name: str, mean: list[float]) -> None:
    scheme = SCHEMES[name]
    held = holds_pixels(PixelNormalization(tuple(mean), (0.5,) * len(mean)), scheme)
    each = [np.mean(mean)] if scheme.rounds_outputs else mean
    bytes_alone = all(0 <= round(255 * value) <= 255 for value in each)
    assert held == (bytes_alone and not scheme.symmetric)


BELOW, ABOVE, WITHIN = (-0.2, -0.1, 0.1), (1.3, 1.1, 0.9), (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("scheme", "mean"),
    [
        (ASYMMETRIC_UINT8, BELOW),
        pytest.param(ASYMMETRIC_UINT8, ABOVE, marks=pytest.mark.sample),
        pytest.param(ASYMMETRIC_UINT8, WITHIN, marks=pytest.mark.sample),
        pytest.param(ASYMMETRIC_INT8_OUTPUTS, BELOW, marks=pytest.mark.sample),
        pytest.param(ASYMMETRIC_INT8_OUTPUTS, ABOVE, marks=pytest.mark.sample),
    ],
)
def test_a_mean_that_no_pixel_has_leaves_the_stem_in_floating_point(scheme, mean) -> None:
    preprocessing = replace(PREPROCESSING, mean=mean, std=(0.5, 0.5, 0.5))
    folded = fold_batch_norm(random_network())
    settings = Settings(correct_biases=False, refit_weights=False, correct_gain=False)
    table = calibrate(folded, Smooth(40), preprocessing, (scheme,), settings=settings)
    quantized = apply(folded, table, scheme)
    reads_pixels = quantized.pixel_stem is not None
    assert reads_pixels == (mean == WITHIN)

    exported = export_onnx(
        quantized.network, preprocessing, input_kind="uint8-nhwc", batch=BatchRange(1, 1, 1)
    )
    graph = quantize_graph(simplify(exported), quantized)
    simulated = TorchClassifier(quantized.simulated(), preprocessing, "simulation")
    result = compare(
        simulated, OnnxClassifier(graph, preprocessing, "Q/DQ"), Smooth(8, seed=3), preprocessing
    )
    # Before, a zero point beyond a byte was another one: the answers had nothing in common.
    assert result.sqnr_db > 20
