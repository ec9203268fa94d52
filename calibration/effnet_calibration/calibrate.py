"""From a network and pictures to a calibration table."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from effnet_calibration import bias_correction
from effnet_calibration.image_sets import CalibrationPictures
from effnet_calibration.memory import batch_size, images_in_memory
from effnet_calibration.outputs import OutputCollector
from effnet_calibration.path import NetworkPath, channels_last, check_network
from effnet_calibration.quantization import Quantization, shortest
from effnet_calibration.quantized import apply_quantization, simulate
from effnet_calibration.statistics import StatisticsCollector, TensorStatistics
from effnet_calibration.steps import STEPS
from effnet_calibration.table import CalibrationTable, TensorRange, identify
from effnet_calibration.threads import same_threads
from effnet_calibration.work import DEFAULT_SETTINGS, Settings, Work
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.table import CalibrationSet
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress

TOOLS = ("effnet-edge", "torch", "numpy", "pillow")


def calibrate(
    network: EfficientNet,
    pictures: Pictures,
    preprocessing: Preprocessing,
    schemes: tuple[QuantizationScheme, ...],
    *,
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> CalibrationTable:
    """Calibrate a folded network on pictures, for one or several schemes.

    Args:
        network: what `fold_batch_norm` gives.
        pictures: real photos, 200 of them for instance.

    Raises:
        CalibrationError: no pictures, more than a tenth unreadable, all of a single colour, or a
            network that is not folded or has weights or outputs that are not finite.

    Warns:
        CalibrationWarning: fewer than 32 pictures.
    """
    with same_threads():
        observed = observe(network, pictures, preprocessing, progress)
        return tabulate(observed, schemes, settings, progress)


@dataclass(frozen=True)
class Observed:
    """A folded network, and what one pass over the pictures tells of it.

    Attributes:
        statistics: of every layer's input, by layer name; none of `read_pictures`.
        exact: outputs on as many of the pictures as memory holds.
        pictures: what the table says of them.
    """

    network: EfficientNet
    preprocessing: Preprocessing
    statistics: dict[str, TensorStatistics]
    exact: ExactOutputs
    pictures: CalibrationSet


def observe(
    network: EfficientNet,
    pictures: Pictures,
    preprocessing: Preprocessing,
    progress: Progress = no_progress,
) -> Observed:
    """Pass the pictures through a folded network; raises and warns as `calibrate` does."""
    check_network(network)
    fast, limit = channels_last(network), images_in_memory(network)
    seen = CalibrationPictures(pictures, preprocessing, batch_size(network))
    with StatisticsCollector(fast) as collector, OutputCollector(fast, limit) as outputs:
        for batch in seen.batches():
            outputs.offer(batch)
            collector.run(batch)
            progress("statistics", seen.seen, len(pictures))
    return Observed(fast, preprocessing, collector.statistics(), outputs.outputs(), seen.record())


def read_pictures(
    network: EfficientNet,
    pictures: Pictures,
    preprocessing: Preprocessing,
    progress: Progress = no_progress,
) -> Observed:
    """The pictures alone, as many as memory holds: enough where nothing is rounded.

    Raises and warns as `calibrate` does, but sees no outputs.
    """
    check_network(network)
    fast, held = channels_last(network), OutputCollector(network, images_in_memory(network))
    seen = CalibrationPictures(pictures, preprocessing, batch_size(network))
    for batch in seen.batches():
        held.offer(batch)
        progress("pictures", seen.seen, len(pictures))
    return Observed(fast, preprocessing, {}, held.outputs(), seen.record())


def tabulate(
    observed: Observed,
    schemes: tuple[QuantizationScheme, ...],
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> CalibrationTable:
    """The table of a network that was observed, for one or several schemes.

    It has no ranges where no scheme rounds anything.
    """
    rounds = any(scheme.rounds for scheme in schemes)
    seen = observed.statistics.items() if rounds else ()
    return CalibrationTable(
        identify(observed.network),
        observed.pictures,
        _tool_versions(),
        {name: _range(each) for name, each in seen},
        {scheme.name: quantize(observed, scheme, settings, progress) for scheme in schemes},
    )


def quantize(
    observed: Observed,
    scheme: QuantizationScheme,
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> Quantization:
    """Go through all steps for one scheme: without integers, those that have a use there."""
    network = observed.network
    work = Work(
        network=network,
        path=NetworkPath.of(network),
        scheme=scheme,
        preprocessing=observed.preprocessing,
        statistics=observed.statistics,
        exact=observed.exact,
        apply=partial(apply_quantization, network),
        settings=settings,
        progress=progress,
    )
    quantization = Quantization(scheme.name)
    for step in (each for each in STEPS if scheme.rounds or each.in_floats):
        quantization = step.decide(work, quantization)
    return quantization


def correct(
    network: EfficientNet,
    quantization: Quantization,
    exact: ExactOutputs,
    progress: Progress = no_progress,
) -> tuple[Quantization, Tensor]:
    """Correct biases and gain anew, as is needed after any change; see `bias_correction`."""
    return bias_correction.correct(
        network, quantization, exact, partial(simulate, network), progress=progress
    )


def _range(statistics: TensorStatistics) -> TensorRange:
    whole = statistics.whole
    return TensorRange(shortest(whole.minimum), shortest(whole.maximum))


def _tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        versions[tool] = metadata.version(tool)
    return versions
