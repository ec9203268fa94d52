from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import normalized, random_network

from effnet_calibration.errors import CalibrationError
from effnet_calibration.path import NetworkPath
from effnet_calibration.ranges import (
    ChannelRanges,
    ClippingError,
    Entropy,
    MinMax,
    Percentile,
)
from effnet_calibration.statistics import ChannelStatistics, StatisticsCollector, bin_centres


def statistics_of(values: torch.Tensor) -> ChannelStatistics:
    statistics = ChannelStatistics.empty(values.shape[1])
    statistics.add(values)
    return statistics


def heavy_tailed(channels: int = 5, count: int = 4000, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.arange(channels).float() - 2)
    return torch.randn(count, channels, generator=generator) ** 3 * spread


def test_moments_and_extremes_are_exact() -> None:
    values = torch.randn(3, 4, 9, 7)
    statistics = statistics_of(values)
    flat = values.permute(1, 0, 2, 3).reshape(4, -1).double().numpy()
    np.testing.assert_array_equal(statistics.minimum, flat.min(1))
    np.testing.assert_array_equal(statistics.maximum, flat.max(1))
    np.testing.assert_allclose(statistics.deviation, flat.std(1), rtol=1e-5)
    np.testing.assert_allclose(statistics.mean_square, (flat**2).mean(1), rtol=1e-5)


def test_the_histogram_counts_each_value_within_6_percent_of_it() -> None:
    values = torch.tensor([[-3.0], [0.0], [0.0007], [1.0], [1.2], [700.0]])
    statistics = statistics_of(values)
    counted = [
        (sign * float(centre), int(count))
        for sign, side in ((-1, 0), (1, 1))
        for centre, count in zip(bin_centres(), statistics.histogram[side, 0], strict=True)
        if count
    ]
    assert [count for _, count in counted] == [1] * 5
    found = sorted(value for value, _ in counted)
    np.testing.assert_allclose(found, [-3.0, 0.0007, 1.0, 1.2, 700.0], rtol=0.0625)
    assert statistics.histogram_count == 6


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 1000))
def test_streaming_gives_what_one_pass_gives(parts: list[int], seed: int) -> None:
    values = torch.randn(sum(parts), 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    whole, streamed = statistics_of(values), ChannelStatistics.empty(3)
    for part in torch.split(values, parts):
        streamed.add(part)
    assert torch.equal(whole.histogram, streamed.histogram)
    assert torch.equal(whole.minimum, streamed.minimum)
    assert torch.equal(whole.maximum, streamed.maximum)
    assert (whole.count, whole.histogram_count) == (streamed.count, streamed.histogram_count)
    torch.testing.assert_close(whole.total_square, streamed.total_square, rtol=1e-6, atol=0)


def test_merging_gives_the_statistics_of_both() -> None:
    first, second = torch.randn(3, 2, 5, 5), torch.randn(4, 2, 5, 5) * 3
    merged = statistics_of(first).merged(statistics_of(second))
    whole = statistics_of(torch.cat([first, second]))
    assert torch.equal(merged.histogram, whole.histogram)
    assert torch.equal(merged.maximum, whole.maximum)
    assert merged.count == whole.count


def test_the_collector_sees_every_layer_and_memory_does_not_grow_with_images() -> None:
    network = random_network()
    with StatisticsCollector(network) as collector:
        collector.run(normalized(3))
        collector.run(normalized(4, seed=1))
        statistics = collector.statistics()
        collector.run(normalized(4, seed=2))
    assert list(statistics) == [layer.name for layer in NetworkPath.of(network).inputs]
    first, second = statistics["stages.6.0.depthwise.conv"].folds
    assert first.count + second.count == 11 * 2 * 2
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_folds_are_the_even_and_the_odd_pictures_whatever_the_batches() -> None:
    network, pictures = random_network(), normalized(6)
    maxima = []
    for size in (2, 3, 6):
        with StatisticsCollector(network) as collector:
            for batch in torch.split(pictures, size):
                collector.run(batch)
        folds = collector.statistics()["stages.0.0.depthwise.conv"].folds
        maxima.append([fold.maximum for fold in folds])
    for other in maxima[1:]:
        for mine, theirs in zip(maxima[0], other, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_a_network_that_overflows_is_refused() -> None:
    network = random_network()
    network.classifier.weight.data.fill_(3e38)
    with (
        StatisticsCollector(network) as collector,
        pytest.raises(CalibrationError, match="NaN or infinite"),
    ):
        collector.run(normalized(2))


@given(st.floats(1.0, 3.0))
def test_min_max_covers_everything_seen(headroom: float) -> None:
    values = heavy_tailed()
    ranges = MinMax(headroom).ranges(statistics_of(values))
    assert bool((values <= ranges.high.float() * 1.00001).all())
    assert bool((-values <= ranges.low.float() * 1.00001).all())


def test_deviations_widen_no_side_below_zero_that_has_no_values() -> None:
    statistics = statistics_of(torch.rand(1000, 2) + torch.tensor([0.5, -0.5]))
    low, least = MinMax(1.0, 12).ranges(statistics).low, 12 * statistics.deviation
    assert float(low[0]) == 0
    assert float(low[1]) == float(least[1]) > 0


def test_percentiles_are_those_of_numpy_to_within_a_bin() -> None:
    values = heavy_tailed(count=20000)
    ranges = Percentile(99).ranges(statistics_of(values))
    # 1 % beyond on each side.
    np.testing.assert_allclose(ranges.high, np.quantile(values.numpy(), 0.99, axis=0), rtol=0.13)
    np.testing.assert_allclose(-ranges.low, np.quantile(values.numpy(), 0.01, axis=0), rtol=0.13)


def test_entropy_cuts_off_a_far_outlier_and_min_max_does_not() -> None:
    values = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    values[0] = 1000
    statistics = statistics_of(values)
    assert float(Entropy().ranges(statistics).high) < 100
    assert float(MinMax().ranges(statistics).high) == 1000


@given(st.floats(0.01, 30), st.floats(0.01, 30))
def test_the_clipping_error_is_that_of_clipping(low: float, high: float) -> None:
    values = heavy_tailed()
    reach = ChannelRanges(
        torch.full((5,), low, dtype=torch.float64), torch.full((5,), high, dtype=torch.float64)
    )
    error = ClippingError(statistics_of(values)).mean_square(reach)
    true = (values.clamp(-low, high) - values).square().mean(0).double()
    power = values.square().mean(0).double()
    assert bool(((error - true).abs() <= 0.1 * true + 0.002 * power).all())


def test_all_zeros_have_an_empty_range() -> None:
    statistics = statistics_of(torch.zeros(10, 3))
    for rule in (MinMax(1.5, 12), Percentile(99.99), Entropy()):
        ranges = rule.ranges(statistics)
        assert float(ranges.low.abs().max()) == float(ranges.high.abs().max()) == 0
