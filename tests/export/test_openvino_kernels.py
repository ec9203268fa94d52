"""Kernels that are asked for in OpenVINO's files: which layers ask, and that they are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from effnet_edge.machine import instruction_sets
from effnet_export.openvino_kernels import (
    DEPTHWISE,
    DEPTHWISE_INT8,
    MOST_CHANNELS,
    POINTWISE,
    ask_for_kernels,
    faster_kernels,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Activation = Callable[[openvino.Node], openvino.Node]
    Answer = Callable[[openvino.Model, bool, str], tuple[list[str], np.ndarray]]

NAME = "asking"
OUTPUTS = 96

RUN = """
import os, sys, numpy, openvino
core = openvino.Core()
model = core.read_model(sys.argv[1])
shape = [each.get_length() for each in model.input(0).partial_shape]
options = {"INFERENCE_NUM_THREADS": 1}
if os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2":  # Which OpenVINO itself does not know of.
    options["INFERENCE_PRECISION_HINT"] = "f32"
compiled = core.compile_model(model, "CPU", options)
made = numpy.random.default_rng(1).uniform(-1, 1, shape).astype("float32")
numpy.save(sys.argv[2], compiled({0: made})[0])
for node in compiled.get_runtime_model().get_ordered_ops():
    told = node.get_rt_info()
    if "asking" in told["originalLayersNames"].astype(str):
        print(told["primitiveType"].astype(str))
"""


def constant(values: object) -> openvino.Node:
    return ops.constant(np.asarray(values, np.float32))


def expansion(
    channels: int = 24,
    size: int = 14,
    kernel: int = 1,
    activation: Activation = ops.hswish,
    *,
    rounded: bool = True,
) -> openvino.Model:
    """A convolution as the export writes it: 8-bit input and weights, a bias, an activation."""
    pictures = ops.parameter([1, channels, size, size], np.float32)
    read = in_steps(pictures) if rounded else pictures
    weights = integer_weights(OUTPUTS, channels, kernel, kernel)
    border = [kernel // 2] * 2
    convolved = ops.convolution(read, weights, [1, 1], border, border, [1, 1], name=NAME)
    return openvino.Model([activation(with_bias(convolved))], [pictures])


def depthwise(activation: Activation, *, rounded: bool = False) -> openvino.Model:
    """A depthwise convolution as the export writes it, in 16 bit or in 8, behind an expansion."""
    pictures = ops.parameter([1, 24, 14, 14], np.float32)
    expanding = integer_weights(OUTPUTS, 24, 1, 1)
    expanded = ops.convolution(in_steps(pictures), expanding, [1, 1], [0, 0], [0, 0], [1, 1])
    before = ops.hswish(with_bias(expanded))
    if rounded:
        read, weights = in_steps(before), integer_weights(OUTPUTS, 1, 1, 3, 3)
    else:
        made = np.random.default_rng(0).normal(size=(OUTPUTS, 1, 1, 3, 3))
        read, weights = before, constant(made)
    convolved = ops.group_convolution(read, weights, [1, 1], [1, 1], [1, 1], [1, 1], name=NAME)
    return openvino.Model([activation(with_bias(convolved))], [pictures])


def in_steps(values: openvino.Node) -> openvino.Node:
    ends = constant(-1.28), constant(1.27)
    return ops.fake_quantize(values, *ends, *ends, 256)


def integer_weights(*shape: int) -> openvino.Node:
    integers = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    scales = np.full((shape[0], *[1] * (len(shape) - 1)), 0.02)
    return ops.multiply(ops.convert(ops.constant(integers), "f32"), constant(scales))


def with_bias(values: openvino.Node) -> openvino.Node:
    return ops.add(values, constant(np.random.default_rng(1).normal(size=(1, OUTPUTS, 1, 1))))


def bent(values: openvino.Node) -> openvino.Node:
    slopes = np.random.default_rng(2).uniform(0, 2, (1, OUTPUTS, 1, 1))
    return ops.prelu(ops.hswish(values), constant(slopes))


ASKING = {
    "expansion": expansion(),
    "bent expansion": expansion(activation=bent),
    "bent depthwise": depthwise(bent),
    "bent depthwise, rounded": depthwise(bent, rounded=True),
}


@pytest.mark.parametrize(
    ("model", "slow"),
    [
        (expansion(), True),
        (expansion(activation=ops.swish), True),
        (expansion(channels=MOST_CHANNELS), True),
        (expansion(channels=MOST_CHANNELS + 1), False),
        (expansion(activation=ops.relu), False),
        (expansion(size=1), False),
        (expansion(kernel=3), False),
        (expansion(rounded=False), False),
    ],
    ids=["hard-swish", "SiLU", "most", "more", "ReLU", "gate", "3x3", "floats"],
)
def test_those_ask_whose_activation_takes_longer_than_amx_saves(
    model: openvino.Model, *, slow: bool
) -> None:
    assert faster_kernels(model) == ({NAME: POINTWISE} if slow else {})


@pytest.mark.parametrize(
    ("model", "kernel"),
    [
        (depthwise(bent), DEPTHWISE),
        (depthwise(bent, rounded=True), DEPTHWISE_INT8),
        (depthwise(ops.hswish), None),
        (depthwise(ops.swish, rounded=True), None),
    ],
    ids=["bent", "bent, rounded", "hard-swish", "SiLU, rounded"],
)
def test_depthwise_convolutions_ask_where_a_hard_swish_is_bent(
    model: openvino.Model, kernel: str | None
) -> None:
    assert faster_kernels(model).get(NAME) == kernel


@pytest.fixture
def answers(tmp_path: Path) -> Answer:
    """The kernels and the output of a process on a processor of that generation."""

    def answer(model: openvino.Model, asked: bool, generation: str) -> tuple[list[str], np.ndarray]:
        path, output = tmp_path / f"{asked}.xml", tmp_path / "output.npy"
        openvino.save_model(model, path)
        if asked:
            ask_for_kernels(path, faster_kernels(model))
        ran = subprocess.run(
            [sys.executable, "-c", RUN, path, output],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": generation},
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.lower().split(), np.load(output)

    return answer


@pytest.mark.parametrize("generation", ["DEFAULT", "AVX2"])
@pytest.mark.parametrize("layer", ASKING)
def test_the_answers_are_those_of_openvinos_own_choice(
    answers: Answer, layer: str, generation: str
) -> None:
    """Also where there is no such kernel."""
    own, expected = answers(ASKING[layer], False, generation)
    asked, found = answers(ASKING[layer], True, generation)
    assert len(own) == len(asked) == 1
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)  # BF16 has 8 bits.
    if generation == "AVX2":
        assert asked == (["jit_avx2_dw_f32"] if layer == "bent depthwise" else own)


@pytest.mark.skipif("avx512_vnni" not in instruction_sets(), reason="a processor without VNNI")
@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        ("expansion", POINTWISE),
        ("bent expansion", POINTWISE),
        ("bent depthwise", DEPTHWISE),
        ("bent depthwise, rounded", DEPTHWISE_INT8),
    ],
)
def test_with_avx512_the_kernel_is_the_one_that_was_asked_for(
    answers: Answer, layer: str, kernel: str
) -> None:
    (own,), _ = answers(ASKING[layer], False, "DEFAULT")
    (asked,), _ = answers(ASKING[layer], True, "DEFAULT")
    name, _, precision = asked.rpartition("_")
    assert f"cpu:{name}" == kernel
    assert precision in {"i8", "bf16", "f32"}
    assert own != asked
    if "amx_int8" in instruction_sets() and "expansion" in layer:
        assert "amx" in own
