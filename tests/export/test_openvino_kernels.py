"""Kernels that are asked for in OpenVINO's files: which layers ask, and that they are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from effnet_export.openvino_kernels import KERNEL, MOST_CHANNELS, ask_for_kernel, slow_on_amx

if TYPE_CHECKING:
    from collections.abc import Callable

    Activation = Callable[[openvino.Node], openvino.Node]
    Answer = Callable[[bool, str], tuple[list[str], np.ndarray]]

NAME = "expand"
OUTPUTS = 96

RUN = """
import sys, numpy, openvino
core = openvino.Core()
model = core.read_model(sys.argv[1])
shape = [each.get_length() for each in model.input(0).partial_shape]
compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
made = numpy.random.default_rng(1).uniform(-1, 1, shape).astype("float32")
numpy.save(sys.argv[2], compiled({0: made})[0])
for node in compiled.get_runtime_model().get_ordered_ops():
    told = node.get_rt_info()
    if "expand" in told["originalLayersNames"].astype(str):
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
    made = np.random.default_rng(0)
    pictures = ops.parameter([1, channels, size, size], np.float32)
    read = pictures
    if rounded:
        ends = constant(-1.28), constant(1.27)
        read = ops.fake_quantize(pictures, *ends, *ends, 256)
    weights = ops.constant(
        made.integers(-127, 128, (OUTPUTS, channels, kernel, kernel)).astype(np.int8)
    )
    scaled = ops.multiply(ops.convert(weights, "f32"), constant(np.full((OUTPUTS, 1, 1, 1), 0.02)))
    border = kernel // 2
    convolved = ops.convolution(
        read, scaled, [1, 1], [border, border], [border, border], [1, 1], name=NAME
    )
    biased = ops.add(convolved, constant(made.normal(size=(1, OUTPUTS, 1, 1))))
    return openvino.Model([activation(biased)], [pictures])


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
    assert slow_on_amx(model) == ([NAME] if slow else [])


@pytest.fixture
def answers(tmp_path: Path) -> Answer:
    """The kernels and the output of a process on a processor of that generation."""

    def answer(asked: bool, generation: str) -> tuple[list[str], np.ndarray]:
        model, path = expansion(), tmp_path / f"{asked}.xml"
        openvino.save_model(model, path)
        if asked:
            ask_for_kernel(path, slow_on_amx(model))
        output = tmp_path / "output.npy"
        ran = subprocess.run(
            [sys.executable, "-c", RUN, path, output],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": generation},
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.split(), np.load(output)

    return answer


@pytest.mark.parametrize("generation", ["DEFAULT", "AVX2"])
def test_the_answers_are_those_of_openvinos_own_choice(answers: Answer, generation: str) -> None:
    """Also where there is no such kernel: OpenVINO then chooses as if none had been asked for."""
    own, expected = answers(False, generation)
    asked, found = answers(True, generation)
    assert own
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)  # BF16 has 8 bits.
    if generation == "AVX2":
        assert asked == own


@pytest.mark.skipif(
    "amx_int8" not in Path("/proc/cpuinfo").read_text(), reason="a processor without AMX"
)
def test_on_amx_the_kernel_is_the_one_that_was_asked_for(answers: Answer) -> None:
    (own,), _ = answers(False, "DEFAULT")
    (asked,), _ = answers(True, "DEFAULT")
    assert "amx" in own
    assert asked.lower() == f"{KERNEL.removeprefix('cpu:')}_i8"
