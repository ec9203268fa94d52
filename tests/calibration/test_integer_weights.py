"""Weights as integers: within half a step each, or, in kernels, with errors that cancel out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from effnet_calibration.integer_weights import NEIGHBOURS, PIXEL_NOISE, QuantizedWeight

LIMITS = [127, 64]


def kernels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nearest(weight: torch.Tensor, limit: int) -> torch.Tensor:
    scales = weight.flatten(1).abs().amax(1).view(-1, 1, 1, 1) / limit
    return (weight / scales).round() * scales


@pytest.mark.parametrize("limit", LIMITS)
def test_weights_are_rounded_per_output_channel(limit: int) -> None:
    weight = kernels(4, 3, 1, 1) * torch.tensor([1e-3, 1.0, 50.0, 0.0]).view(4, 1, 1, 1)
    quantized = QuantizedWeight.of(weight, limit)
    assert quantized.integers.dtype == torch.int8
    assert quantized.integers[:3].flatten(1).abs().amax(1).tolist() == [limit, limit, limit]
    error = (quantized.dequantized() - weight).abs().flatten(1).amax(1)
    assert bool((error <= quantized.scales * 0.5001).all())
    assert bool((quantized.dequantized()[3] == 0).all())


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 2, *[st.sampled_from([1, 2, 3, 5])] * 2),
    limit=st.sampled_from(LIMITS),
    seed=st.integers(0, 1000),
)
def test_every_integer_is_near_its_weight(
    shape: tuple[int, int, int, int], limit: int, seed: int
) -> None:
    weight = kernels(*shape, seed=seed)
    quantized = QuantizedWeight.of(weight, limit)
    steps = (quantized.dequantized() - weight) / quantized.scales.view(-1, 1, 1, 1)
    assert int(quantized.integers.abs().amax()) <= limit
    assert float(steps.abs().amax()) < 2
    assert torch.equal(quantized.integers, QuantizedWeight.of(weight, limit).integers)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("size", [3, 5])
def test_errors_cancel_out_on_smooth_maps(size: int, limit: int) -> None:
    noise = kernels(8, 32, 40, 40, seed=1)
    smooth = functional.avg_pool2d(noise, 7, stride=1)
    weight = kernels(32, 1, size, size)

    def error(rounded: torch.Tensor) -> float:
        return float(functional.conv2d(smooth, rounded - weight, groups=32).square().mean())

    assert error(QuantizedWeight.of(weight, limit).dequantized()) < 0.5 * error(
        nearest(weight, limit)
    )


def test_few_choices_would_have_been_better() -> None:
    """Against every way to round each weight of a small kernel up or down."""
    weight, limit = kernels(64, 1, 2, 3, seed=2), 64
    places = torch.tensor(list(itertools.product(range(2), range(3))), dtype=torch.float64)
    correlation = NEIGHBOURS ** torch.cdist(places, places) + PIXEL_NOISE * torch.eye(6)
    quantized = QuantizedWeight.of(weight, limit)
    scaled = (weight / quantized.scales.view(-1, 1, 1, 1)).flatten(1).double()

    def noise(integers: torch.Tensor) -> torch.Tensor:
        errors = integers - scaled
        return ((errors @ correlation) * errors).sum(1)

    ways = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    best = torch.stack([noise((scaled.floor() + way).clamp(-limit, limit)) for way in ways]).amin(0)
    ours = noise(quantized.integers.flatten(1).double()).mean()
    assert float(ours) < 1.5 * float(best.mean())
    assert float(ours) < 0.5 * float(noise(scaled.round()).mean())


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 3, 3)])
def test_a_dead_channel_stays_dead_and_its_scale_is_a_number(shape: tuple[int, ...]) -> None:
    weight = torch.rand(shape)
    weight[1] = 0
    rounded = QuantizedWeight.of(weight, 127)
    assert bool((rounded.scales > 0).all())
    assert bool(torch.isfinite(rounded.scales).all())
    assert not rounded.dequantized()[1].any()
