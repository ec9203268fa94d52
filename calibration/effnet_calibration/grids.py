"""The grid of every layer's input and the factors of its channels, from statistics alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.equalization import (
    centre_projection,
    equalize_depthwise,
    equalize_projection,
    equalize_stream,
)
from effnet_calibration.fitted_activation import HardSwishFit, slopes_of_channels
from effnet_calibration.path import input_channel_energy
from effnet_calibration.quantization import (
    ACTIVATIONS,
    CENTRES,
    DEPTHWISE,
    PROJECTION,
    SLOPES,
    STREAM,
    TensorEntry,
    shortest,
)
from effnet_calibration.ranges import ACTIVATION_BOUNDS, SILU_MINIMUM
from effnet_calibration.selection import Reader, TensorChoice, choose
from effnet_calibration.threads import one_thread
from effnet_calibration.work import Step

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.schemes import TensorQuantization
    from effnet_calibration.work import Work

RANGES = "ranges"


def choose_grids(work: Work, quantization: Quantization) -> Quantization:
    """Decide on grids, factors and centres; `output_grids` does where outputs are rounded."""
    if work.scheme.rounds_outputs:
        return quantization
    if not work.scheme.quantizes_depthwise:
        work = replace(work, settings=replace(work.settings, equalize_depthwise=False))
    with one_thread():
        choices, streams = _choices(work, quantization)
    return _decided(work, choices, streams, quantization)


STEP = Step(
    choose_grids,
    {
        STREAM: equalize_stream,
        DEPTHWISE: equalize_depthwise,
        PROJECTION: equalize_projection,
        CENTRES: centre_projection,
    },
)


def _choices(
    work: Work, quantization: Quantization
) -> tuple[dict[str, TensorChoice], dict[str, Numbers]]:
    """What was chosen for every layer, and the factors of each stream by its first projection."""
    choices = {}
    layers = work.path.inputs
    streams = _equalized_streams(work)
    for done, layer in enumerate(layers):
        work.progress(RANGES, done, len(layers))
        if layer.reads not in streams:
            choices[layer.name] = _choose(work, layer, quantization)
    factors: dict[str, Numbers] = {}
    for stage in streams:
        choice = choose_stream(work, stage)
        factors[work.path.stream_projections(stage)[0].name] = shortest(choice.factors)
        choices |= {layer.name: choice for layer in work.path.stream_readers(stage)}
    work.progress(RANGES, len(layers), len(layers))
    return choices, factors


def _choose(work: Work, layer: Layer, quantization: Quantization) -> TensorChoice:
    statistics = work.statistics[layer.name]
    reads = layer.module(work.network)
    energy = input_channel_energy(reads)
    lowest, highest = _bounds(work, layer, quantization)
    if layer.kind == "depthwise":
        projection = work.path.reader(layer).module(work.network)
        reader = Reader(energy * input_channel_energy(projection), lowest=lowest, highest=highest)
        return choose(statistics, work.scheme, reader, equalize=work.settings.equalize_depthwise)
    if layer.kind == "project" and layer.source is not None:
        reader = Reader(energy, reads.weight.detach().flatten(1), zero_is_free=True)
        if work.path[layer.source].gate is None:
            reader = replace(reader, lowest=lowest, highest=highest)
        return choose(statistics, work.scheme, reader, equalize=work.settings.equalize_projection)
    in_middle = work.settings.zero_in_middle and layer.kind in {"expand", "head"}
    reader = Reader(
        energy, lowest=SILU_MINIMUM if layer.in_gate else None, zero_in_middle=in_middle
    )
    return choose(statistics, work.scheme, reader, equalize=False)


def _bounds(
    work: Work, layer: Layer, quantization: Quantization
) -> tuple[float | Tensor, float | None]:
    """Between which every value lies that the activation before a layer gives."""
    changes = quantization.layer(layer.source or "").changes
    if ACTIVATIONS in changes:
        slopes = slopes_of_channels(changes[SLOPES]) if SLOPES in changes else 1.0
        return HardSwishFit.of(changes[ACTIVATIONS]).lowest(slopes), None
    return ACTIVATION_BOUNDS[work.network.activation]


def choose_stream(work: Work, stage: int) -> TensorChoice:
    """One choice for all readers of a stream: their inputs' channels mean the same."""
    readers = work.path.stream_readers(stage)
    first, *others = (work.statistics[layer.name] for layer in readers)
    together = first
    for statistics in others:
        together = together.merged(statistics)
    modules = [layer.module(work.network) for layer in readers]
    energy = torch.stack([input_channel_energy(each) for each in modules]).sum(0)
    # Of a channel's weights at several pixels the largest counts.
    weights = [each.weight.detach() for each in modules if each.weight.shape[1] > 1]
    mixing = [each.abs().flatten(2).amax(2) if each.dim() > 2 else each for each in weights]
    reader = Reader(energy, torch.cat(mixing) if mixing else None)
    return choose(together, work.scheme, reader, equalize=True)


def _equalized_streams(work: Work) -> list[int]:
    """The stages whose stream gets factors."""
    found = []
    for stage in work.path.streams:
        depthwise = any(layer.kind == "depthwise" for layer in work.path.stream_readers(stage))
        wanted = work.settings.equalize_stream or (depthwise and work.settings.equalize_depthwise)
        if wanted and work.path.has_linear_stream(stage):
            found.append(stage)
    return found


def _decided(
    work: Work,
    choices: dict[str, TensorChoice],
    streams: dict[str, Numbers],
    quantization: Quantization,
) -> Quantization:
    depthwise: dict[str, Numbers] = {}
    projection: dict[str, Numbers] = {}
    centres: dict[str, Numbers] = {}
    grids = {
        layer.name: entry_of(choices[layer.name].grid, choices[layer.name])
        for layer in work.path.inputs
    }
    if work.settings.equalize_depthwise:
        for layer in work.path.of_kind("depthwise"):
            if layer.source is not None and layer.name not in quantization.kept:
                depthwise[layer.name] = shortest(choices[layer.name].factors)
    centred = work.scheme.symmetric or work.settings.zero_in_middle
    for layer in work.path.of_kind("project"):
        if layer.name in quantization.kept:
            continue
        choice = _on_scale(choices[layer.name], work.scheme.projection_scale)
        if centred or work.settings.equalize_projection:
            projection[layer.name] = shortest(choice.factors)
        if centred:
            middle, grid = work.scheme.middle, choice.grid
            centres[layer.name] = float(np.float32((middle - grid.zero_point) * grid.scale))
            grids[layer.name] = entry_of(replace(grid, zero_point=middle), choice)
    for change, numbers in (
        (STREAM, streams),
        (DEPTHWISE, depthwise),
        (PROJECTION, projection),
        (CENTRES, centres),
    ):
        quantization = quantization.changing(change, numbers)
    return quantization.gridded(grids)


def _on_scale(choice: TensorChoice, scale: float | None) -> TensorChoice:
    """The same grid of the same channels, its scale moved into their factors."""
    if scale is None:
        return choice
    factors = choice.factors * (scale / choice.grid.scale)
    return replace(choice, factors=factors, grid=replace(choice.grid, scale=scale))


def entry_of(grid: TensorQuantization, choice: TensorChoice) -> TensorEntry:
    """What a table says of a choice whose grid may have been moved."""
    return TensorEntry(grid.scale, grid.zero_point, choice.rule, round(choice.snr_db, 2))
