"""From a network and pictures to a calibration table."""

from __future__ import annotations

import itertools
import platform
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.bias_correction import (
    ExactOutputs,
    OutputCollector,
    correct_biases,
    corrected_layers,
)
from effnet_calibration.equalization import (
    has_linear_stream,
    has_scalable_depthwise_input,
    stream_projections,
    stream_readers,
)
from effnet_calibration.image_sets import CalibrationPictures
from effnet_calibration.memory import batch_size, images_in_memory
from effnet_calibration.quantized import apply_quantization
from effnet_calibration.ranges import ACTIVATION_BOUNDS, SILU_MINIMUM
from effnet_calibration.selection import Reader, TensorChoice, choose
from effnet_calibration.sites import (
    Site,
    blocks,
    channels_last,
    check_network,
    input_channel_energy,
    is_expanded,
    layer,
    sites,
)
from effnet_calibration.statistics import StatisticsCollector, TensorStatistics
from effnet_calibration.table import (
    CalibrationTable,
    PixelNormalization,
    Quantization,
    TensorEntry,
    TensorRange,
    identify,
)
from effnet_calibration.threads import one_thread
from effnet_edge.model.network import SqueezeExcitation
from effnet_edge.progress import no_progress

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_calibration.schemes import QuantizationScheme, TensorQuantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress

CORRECTION = "bias correction"

TOOLS = ("effnet-edge", "torch", "numpy", "pillow")


@dataclass(frozen=True)
class Settings:
    """What to do beside choosing ranges; the defaults are what measured best.

    Attributes:
        equalize_depthwise, equalize_projection: per-channel factors, see `equalization`.
        equalize_stream: factors on every residual stream. Off, as expansions have little noise to
            lose; a stream that a depthwise convolution reads is equalized with
            `equalize_depthwise`.
        correct_biases: see `bias_correction`.
        correct_gain: divide the logits by the share of their spread that quantization left.
    """

    equalize_depthwise: bool = True
    equalize_projection: bool = True
    equalize_stream: bool = False
    correct_biases: bool = True
    correct_gain: bool = True


DEFAULT_SETTINGS = Settings()


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
    check_network(network)
    fast = channels_last(network)
    seen = CalibrationPictures(pictures, preprocessing, batch_size(network))
    statistics, exact = _collect(fast, seen, len(pictures), progress)
    quantizations = {}
    for scheme in schemes:
        with one_thread():
            draft = choose_grids(fast, statistics, scheme, settings, progress)
        draft = replace(draft, pixels=integer_pixels(scheme, preprocessing))
        quantizations[scheme.name] = correct(fast, draft, exact, settings, progress)
    return CalibrationTable(
        identify(network),
        seen.record(),
        _tool_versions(),
        {name: _range(each) for name, each in statistics.items()},
        quantizations,
    )


def integer_pixels(
    scheme: QuantizationScheme, preprocessing: Preprocessing
) -> PixelNormalization | None:
    """How the pixels are normalized that the scheme's stem reads as integers; None if in float."""
    if not scheme.quantizes_stem:
        return None
    return PixelNormalization(preprocessing.mean, preprocessing.std)


def choose_grids(
    network: EfficientNet,
    statistics: dict[str, TensorStatistics],
    scheme: QuantizationScheme,
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> Quantization:
    """Grids and factors of every tensor, from statistics alone."""
    choices = {}
    all_sites = sites(network)
    if not scheme.quantizes_depthwise:
        settings = replace(settings, equalize_depthwise=False)
    streams = _equalized_streams(network, settings)
    for done, site in enumerate(all_sites):
        progress("ranges", done, len(all_sites))
        if site.name not in streams:
            choices[site.name] = _choose(network, site, statistics[site.name], scheme, settings)
    stream_factors = {}
    for stage in sorted(set(streams.values())):
        readers = [name for name, its_stage in streams.items() if its_stage == stage]
        choice = _choose_stream(network, readers, statistics, scheme)
        stream_factors[str(stage)] = _floats(choice.factors)
        choices |= dict.fromkeys(readers, choice)
    progress("ranges", len(all_sites), len(all_sites))
    return _quantization(network, scheme, settings, choices, stream_factors)


def correct(
    network: EfficientNet,
    draft: Quantization,
    exact: ExactOutputs,
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> Quantization:
    """Replace a quantization's biases and gain by those that its grids and kept layers need.

    Biases that were corrected for other grids, or with other layers kept, do harm: correct again
    after every change.

    Args:
        network: folded.
        exact: the network's own, of as many pictures as `images_in_memory` says.
    """
    bare = replace(draft, biases={}, logit_gain=1.0)
    if not settings.correct_biases:
        return bare
    total, done = len(corrected_layers(network)), itertools.count()
    simulated = apply_quantization(network, bare).simulated()
    correction = correct_biases(
        _scaled_as(bare, network, exact),
        simulated,
        lambda _: progress(CORRECTION, next(done), total),
    )
    progress(CORRECTION, total, total)
    return replace(
        bare,
        biases={name: _floats(added) for name, added in correction.biases.items()},
        logit_gain=correction.logit_gain if settings.correct_gain else 1.0,
    )


def _scaled_as(
    quantization: Quantization, network: EfficientNet, exact: ExactOutputs
) -> ExactOutputs:
    """The outputs of the equalized network: its streams are scaled, and nothing else."""
    means = dict(exact.means)
    for stage, factors in quantization.stream.items():
        for name in stream_projections(network, int(stage)):
            means[name] = means[name] * torch.tensor(factors, dtype=torch.float64)
    return replace(exact, means=means)


def _collect(
    network: EfficientNet, pictures: CalibrationPictures, total: int, progress: Progress
) -> tuple[dict[str, TensorStatistics], ExactOutputs]:
    limit = images_in_memory(network)
    with StatisticsCollector(network) as collector, OutputCollector(network, limit) as outputs:
        for batch in pictures.batches():
            outputs.offer(batch)
            collector.run(batch)
            progress("statistics", pictures.seen, total)
    return collector.statistics(), outputs.outputs()


def _choose(
    network: EfficientNet,
    site: Site,
    statistics: TensorStatistics,
    scheme: QuantizationScheme,
    settings: Settings,
) -> TensorChoice:
    reads = layer(network, site.name)
    energy = input_channel_energy(reads)
    lowest, highest = ACTIVATION_BOUNDS[network.variant.family.activation]
    if site.kind == "depthwise":
        block_name = site.name.removesuffix(".depthwise.conv")
        projection = layer(network, f"{block_name}.project.conv")
        reader = Reader(energy * input_channel_energy(projection), lowest=lowest, highest=highest)
        return choose(statistics, scheme, reader, equalize=settings.equalize_depthwise)
    if site.kind == "project":
        block = network.get_submodule(site.name.removesuffix(".project.conv"))
        gated = isinstance(block.se, SqueezeExcitation)
        reader = Reader(energy, reads.weight.detach().flatten(1), zero_is_free=True)
        if not gated:
            reader = replace(reader, lowest=lowest, highest=highest)
        return choose(statistics, scheme, reader, equalize=settings.equalize_projection)
    reads_silu = site.kind in {"squeeze", "excite"}
    reader = Reader(energy, lowest=SILU_MINIMUM if reads_silu else None)
    return choose(statistics, scheme, reader, equalize=False)


def _choose_stream(
    network: EfficientNet,
    readers: list[str],
    statistics: dict[str, TensorStatistics],
    scheme: QuantizationScheme,
) -> TensorChoice:
    """One choice for all readers of a stream: their inputs' channels mean the same."""
    first, *others = readers
    together = statistics[first]
    for name in others:
        together = together.merged(statistics[name])
    layers = [layer(network, name) for name in readers]
    energy = torch.stack([input_channel_energy(each) for each in layers]).sum(0)
    mixing = [each.weight.detach().flatten(1) for each in layers if each.weight.shape[1] > 1]
    reader = Reader(energy, torch.cat(mixing) if mixing else None)
    return choose(together, scheme, reader, equalize=True)


def _equalized_streams(network: EfficientNet, settings: Settings) -> dict[str, int]:
    """The readers of every stream that gets factors, and its stage."""
    found: dict[str, int] = {}
    for stage in range(len(network.stages)):
        readers = stream_readers(network, stage)
        depthwise = any(name.endswith(".depthwise.conv") for name in readers)
        wanted = settings.equalize_stream or (depthwise and settings.equalize_depthwise)
        if wanted and has_linear_stream(network, stage):
            found |= dict.fromkeys(readers, stage)
    return found


def _quantization(
    network: EfficientNet,
    scheme: QuantizationScheme,
    settings: Settings,
    choices: dict[str, TensorChoice],
    stream: dict[str, tuple[float, ...]],
) -> Quantization:
    depthwise, projection, centres = {}, {}, {}
    tensors = {name: _entry(choice.grid, choice) for name, choice in choices.items()}
    for name, block in blocks(network):
        if settings.equalize_depthwise and has_scalable_depthwise_input(name, block):
            depthwise[name] = _floats(choices[f"{name}.depthwise.conv"].factors)
        if not is_expanded(block):
            continue
        choice = _on_scale(choices[f"{name}.project.conv"], scheme.projection_scale)
        projection[name] = _floats(choice.factors)
        if scheme.symmetric:
            centre = -choice.grid.zero_point * choice.grid.scale
            centres[name] = float(np.float32(centre))
            centred = replace(choice.grid, zero_point=0)
            tensors[f"{name}.project.conv"] = _entry(centred, choice)
    if not settings.equalize_projection and not scheme.symmetric:
        projection = {}
    order = [site.name for site in sites(network)]
    return Quantization(
        scheme.name,
        {name: tensors[name] for name in order},
        depthwise,
        projection,
        stream,
        centres,
    )


def _on_scale(choice: TensorChoice, scale: float | None) -> TensorChoice:
    """The same grid of the same channels, its scale moved into their factors."""
    if scale is None:
        return choice
    factors = choice.factors * (scale / choice.grid.scale)
    return replace(choice, factors=factors, grid=replace(choice.grid, scale=scale))


def _entry(grid: TensorQuantization, choice: TensorChoice) -> TensorEntry:
    return TensorEntry(grid.scale, grid.zero_point, choice.rule, round(choice.snr_db, 2))


def _range(statistics: TensorStatistics) -> TensorRange:
    whole = statistics.whole
    return TensorRange(_floats(whole.minimum), _floats(whole.maximum))


def _floats(values: Tensor) -> tuple[float, ...]:
    """The shortest decimals that are these numbers in float32: half the table's size."""
    return tuple(float(str(value)) for value in values.float().numpy())


def _tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        versions[tool] = metadata.version(tool)
    return versions
