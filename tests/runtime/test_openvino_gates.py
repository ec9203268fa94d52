"""What gates give is rounded by a conversion: to the same integers, and only where that is so."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset13 as ops

from effnet_edge.machine import instruction_sets
from effnet_edge.runtime import openvino as backend
from effnet_edge.runtime.backend import EngineSpec
from effnet_edge.runtime.openvino_gates import with_converted_gates

CHANNELS, SIDE = 32, 6
ON_X86 = pytest.mark.skipif(not backend.is_x86(), reason="not an x86 processor")

RUN = """
import sys, numpy, openvino
model, given, output = sys.argv[1:]
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
read = numpy.load(given)
numpy.save(output, compiled([read["map"], read["gate"]])[0])
"""


def constant(values: object) -> openvino.Node:
    return ops.constant(np.asarray(values, np.float32))


@dataclass(frozen=True)
class Gated:
    """A map times a gate, rounded, and read by a convolution that passes it on.

    Attributes:
        step, low: of the grid.
        shift: what is added to the product: of each channel, or None.
        factor: that the gate is multiplied by first, or None.
        kernel, border: of the convolution.
        others: what else is read: "product", "rounded".
        alone: whether nothing else is rounded in the model.
    """

    step: float = 0.25
    low: float = -32.0
    shift: tuple[float, ...] | None = tuple(np.linspace(-1, 1, CHANNELS))
    factor: float | None = None
    images: int = 2
    levels: int = 256
    per_channel: bool = False
    moved: float = 0.0
    kernel: int = 1
    border: int = 0
    bias: bool = True
    integer_weights: bool = True
    scaled_inputs: bool = False
    gate: str = "computed"
    others: str = ""
    alone: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.images, CHANNELS, SIDE, SIDE)

    def model(self) -> openvino.Model:
        images = ops.parameter(self.sizes, np.float32, name="map")
        gate = ops.parameter(self._gate_sizes, np.float32, name="gate")
        multiplied = constant(np.ones((1, CHANNELS, 1, 1))) if self.gate == "constant" else gate
        if self.factor is not None:
            multiplied = ops.multiply(gate, constant(self.factor), name="factored")
        product = ops.multiply(images, multiplied, name="product")
        shifted = product
        if self.shift is not None:
            shifted = ops.add(product, constant(np.reshape(self.shift, (1, -1, 1, 1))))
        rounded = self._rounded(shifted)
        border = [self.border] * 2
        read = ops.convolution(
            rounded, self._weights(), [1, 1], border, border, [1, 1], name="read"
        )
        results = [ops.add(read, constant(np.zeros((1, CHANNELS, 1, 1)))) if self.bias else read]
        results += [each for each in (product, rounded) if each.get_friendly_name() == self.others]
        if not self.alone:
            results.append(ops.fake_quantize(images, *map(constant, (-1, 1, -1, 1)), 256))
        return openvino.Model(results, [images, gate])

    @property
    def _gate_sizes(self) -> tuple[int, ...]:
        return self.sizes if self.gate == "map" else (self.images, CHANNELS, 1, 1)

    def _rounded(self, values: openvino.Node) -> openvino.Node:
        sizes = (1, CHANNELS, 1, 1) if self.per_channel else ()
        high = self.low + self.step * 255
        ends = [constant(np.full(sizes, each)) for each in (self.low, high)]
        given = [constant(np.full(sizes, each + self.moved)) for each in (self.low, high)]
        return ops.fake_quantize(values, *ends, *given, self.levels, name="rounded")

    def _weights(self) -> openvino.Node:
        weights = np.zeros((CHANNELS, CHANNELS, self.kernel, self.kernel), np.float32)
        weights[range(CHANNELS), range(CHANNELS), self.kernel // 2, self.kernel // 2] = 100
        sizes = (1, CHANNELS, 1, 1) if self.scaled_inputs else (CHANNELS, 1, 1, 1)
        scales = constant(np.full(sizes, 0.01))
        if not self.integer_weights:
            return constant(weights)
        return ops.multiply(ops.convert(ops.constant(weights.astype(np.int8)), "f32"), scales)

    def values(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """A map that reaches beyond the grid, and gates."""
        random = np.random.default_rng(seed)
        middle, reach = self.low + self.step * 127.5, self.step * 127.5
        spread = middle + reach * random.normal(0, 0.6, self.sizes)
        gates = random.uniform(0.2, 1.5, (self.images, CHANNELS, 1, 1))
        return spread.astype(np.float32), gates.astype(np.float32)

    def in_steps(self, values: np.ndarray, gates: np.ndarray) -> np.ndarray:
        """How many steps above the lowest, not rounded yet, float64."""
        shift = 0 if self.shift is None else np.reshape(self.shift, (1, -1, 1, 1))
        product = values.astype(np.float64) * gates * (self.factor or 1) + shift
        return np.clip((product - self.low) / self.step, 0, 255)


def answer(model: openvino.Model, *feeds: np.ndarray, precision: str | None = "fp32") -> np.ndarray:
    spec = EngineSpec(Path("model.xml"), "int8", threads=1, precision=precision)
    return backend.compile_model(model, spec)(list(feeds))[0]


@ON_X86
@settings(max_examples=25, deadline=None)
@given(
    step=st.floats(1e-3, 0.99) | st.floats(1.01, 10),
    zero=st.floats(0, 255),
    shifted=st.booleans(),
    factor=st.none() | st.floats(0.5, 2),
    seed=st.integers(0, 9),
    images=st.integers(1, 3),
)
def test_the_integers_are_those_that_the_grid_says(
    *, step: float, zero: float, shifted: bool, factor: float | None, seed: int, images: int
) -> None:
    gated = Gated(step=step, low=-zero * step, factor=factor, images=images)
    if not shifted:
        gated = replace(gated, shift=None)
    model = gated.model()
    assert with_converted_gates(model) is not model

    values, gates = gated.values(seed)
    found = (answer(model, values, gates) - gated.low) / step
    exact = gated.in_steps(values, gates)
    clear = np.abs(exact % 1 - 0.5) > 0.01
    np.testing.assert_allclose(found[clear], np.round(exact)[clear], atol=0.02)
    np.testing.assert_allclose(found, exact, atol=0.53)


@ON_X86
@pytest.mark.skipif("avx512_bf16" not in instruction_sets(), reason="a processor without BF16")
def test_in_16_bit_nothing_is_moved_by_what_is_cut_off() -> None:
    """Half a step is lost in BF16 above 128, where a conversion then cuts a whole one off."""
    gated = Gated(low=0.0, images=4, shift=None)
    values, gates = gated.values(0)
    given = answer(gated.model(), values, gates, precision="bf16") / gated.step
    exact = gated.in_steps(values, gates)
    high = (exact > 130) & (exact < 250)
    assert high.sum() > 500
    # Values and results have 8 bits there, so that single ones are off by one and more.
    assert abs(float((given - exact)[high].mean())) < 0.1


@ON_X86
@pytest.mark.parametrize("generation", ["AVX2", "SSE41"])
def test_older_processors_round_as_well(generation: str, tmp_path: Path) -> None:
    gated = Gated()
    values, gates = gated.values(1)
    openvino.save_model(with_converted_gates(gated.model()), tmp_path / "model.xml", False)
    np.savez(tmp_path / "given.npz", map=values, gate=gates)
    subprocess.run(
        [sys.executable, "-c", RUN, *(tmp_path / n for n in ("model.xml", "given.npz", "out.npy"))],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": generation},
        check=True,
    )
    found = (np.load(tmp_path / "out.npy") - gated.low) / gated.step
    exact = gated.in_steps(values, gates)
    clear = np.abs(exact % 1 - 0.5) > 0.01
    np.testing.assert_allclose(found[clear], np.round(exact)[clear], atol=0.02)


@ON_X86
def test_the_convolution_reads_bytes_and_nothing_else_is_executed_for_it() -> None:
    spec = EngineSpec(Path("model.xml"), "int8", threads=1)
    executed = [
        node.get_rt_info()
        for node in backend.compile_model(Gated().model(), spec)
        .get_runtime_model()
        .get_ordered_ops()
    ]
    kernels = {
        info["originalLayersNames"].astype(str): info["primitiveType"].astype(str).lower()
        for info in executed
        if info["layerType"].astype(str) in ("Subgraph", "Convolution", "Convert", "FakeQuantize")
    }
    (rounding,) = [nodes for nodes in kernels if "rounded" in nodes.split(",")]
    assert "product" in rounding.split(",")
    (reading,) = [nodes for nodes in kernels if "read" in nodes.split(",")]
    assert kernels[reading].endswith("i8")


@pytest.mark.parametrize(
    "gated",
    [
        Gated(levels=128),
        Gated(per_channel=True),
        Gated(moved=0.25),
        Gated(step=1.0),
        Gated(kernel=3, border=1),
        Gated(kernel=3),
        Gated(border=1),
        Gated(bias=False),
        Gated(integer_weights=False),
        Gated(scaled_inputs=True),
        Gated(gate="constant"),
        Gated(gate="map"),
        Gated(others="product"),
        Gated(others="rounded"),
        Gated(alone=True),
    ],
    ids=[
        *("128 levels", "a range a channel", "moved range", "step 1", "3x3, border", "3x3"),
        *("1x1, border", "no bias", "float weights", "scaled inputs", "constant gate", "two maps"),
        *("product read", "rounded read", "nothing else rounded"),
    ],
)
def test_others_are_left_as_they_are(gated: Gated) -> None:
    model = gated.model()
    assert with_converted_gates(model) is model


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = Gated().model()
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    converted = with_converted_gates(model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before
    left, made = ({node.get_type_name() for node in each.get_ops()} for each in (model, converted))
    assert made - left == {"Clamp"}


@pytest.mark.parametrize("x86", [False, True])
def test_it_is_done_on_x86_alone(monkeypatch: pytest.MonkeyPatch, *, x86: bool) -> None:
    """OpenVINO's own FakeQuantize rounds halfway to the even integer, here it goes up."""
    monkeypatch.setattr(backend, "is_x86", lambda: x86)
    gated = Gated(low=0.0, shift=None)
    halfway = np.full(gated.sizes, gated.step * 2.5, np.float32)
    gates = np.ones((gated.images, CHANNELS, 1, 1), np.float32)
    found = answer(gated.model(), halfway, gates) / gated.step
    np.testing.assert_allclose(found, 3 if x86 else 2, atol=0.02)
