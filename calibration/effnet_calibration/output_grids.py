"""The grid of every operator's output, for engines that round them all, such as LiteRT.

Other engines compute an activation, a gate or an addition in floating point and round what a
convolution reads; `grids` is about those. The squeeze-excitation is left in floating point but for
the means that it starts from and the gate that it ends with: it is small, and a rounded sigmoid has
1/256 for the smallest gate and nothing below.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from effnet_calibration.equalized_activation import (
    EQUALIZED,
    GATES,
    SATURATION,
    equalize_activation,
    equalize_gate,
    make_up_for_saturation,
    on_steps,
)
from effnet_calibration.fitted_activation import LOWEST_HARD_SWISH
from effnet_calibration.grids import choose_stream, entry_of
from effnet_calibration.memory import output_size
from effnet_calibration.output_statistics import observe_outputs
from effnet_calibration.path import HEAD, input_channel_energy
from effnet_calibration.quantization import INTEGER_WEIGHTS, STREAM, TensorEntry, shortest
from effnet_calibration.ranges import SILU_MINIMUM
from effnet_calibration.rounded_hard_swish import (
    HARD_SWISHES,
    fit_rounded,
    replace_by_hard_swish,
)
from effnet_calibration.selection import Reader, choose
from effnet_calibration.threads import one_thread
from effnet_calibration.work import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_calibration.output_statistics import Extremes, Seen
    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.rounded_hard_swish import FittedSite
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.selection import TensorChoice
    from effnet_calibration.work import Work

HEADROOM = 1.1
"""Of extremes: the next pictures reach somewhat farther."""
PLAIN_DB = 30.0
"""A tensor before a SiLU that holds this by itself gets no factors, which saves the product with
s: on B0, 43 % of their time for a tenth of the KL divergence. The widest maps do not hold it."""
FAST_PLAIN_DB = 26.0
"""The same where time is asked for: what is behind takes some of it back, see `refitting`. On B0
three maps of 33, a sixth of all values, then have factors (docs/figures.md, "LiteRT")."""
HARD_SWISH_SHARE, HARD_SWISH_DB = 0.1, 22.5
"""A SiLU that needs factors becomes a hard-swish, two operators instead of three, where it passes
such a share of all values, as time goes by them, and where that comes so close, if time is asked
for. On B0 that is the widest map alone: more than a third of all that needs factors."""
GATE_SPREAD = 3.0
"""The largest factor times gate, in medians: a gate is rounded with one scale for all channels."""


def _decide(work: Work, quantization: Quantization) -> Quantization:
    if not work.scheme.rounds_outputs:
        return quantization
    with one_thread():
        seen = observe_outputs(work)
        return _Decision(work, seen).made(quantization)


def _leave_weights(*_: object) -> None:
    """Change nothing in the network: these weights are rounded when all else has changed them."""


STEP = Step(
    _decide,
    {
        EQUALIZED: equalize_activation,
        HARD_SWISHES: replace_by_hard_swish,
        INTEGER_WEIGHTS: _leave_weights,
        GATES: equalize_gate,
        SATURATION: make_up_for_saturation,
    },
)


def can_be_scaled(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Whether nothing but weights reads a layer's activation: no shortcut, and no output."""
    joins = layer.opens or layer.closes or layer.adds_to is not None
    return not joins and any(each.source == layer.name for each in layers if not each.in_gate)


class _Decision:
    """What is decided about each tensor, first to last."""

    def __init__(self, work: Work, seen: Seen) -> None:
        self._work = work
        self._seen = seen
        self._scheme = work.scheme
        self._layers = list(work.path.main)
        self._streams: dict[int, Tensor] = {}
        self._outputs: dict[str, TensorEntry] = {}
        self._equalized: dict[str, Numbers] = {}
        self._hard_swishes: dict[str, Numbers] = {}
        self._gates: dict[str, Numbers] = {}
        self._scales: dict[str, Tensor] = {}

    def made(self, quantization: Quantization) -> Quantization:
        """Decide on all."""
        work, path = self._work, self._work.path
        numbers: dict[str, Numbers] = {}
        for stage in path.streams:
            if path.has_linear_stream(stage):
                found = shortest(choose_stream(work, stage).factors)
                numbers[path.stream_projections(stage)[0].name] = found
                self._streams[stage] = torch.tensor(found, dtype=torch.float64)
        for layer in self._layers:
            self._decide(layer)
        for change, decided in (
            (STREAM, numbers),
            (EQUALIZED, self._equalized),
            (HARD_SWISHES, self._hard_swishes),
            (INTEGER_WEIGHTS, self._integer_weights()),
            (GATES, self._gates),
            (SATURATION, self._saturation()),
        ):
            quantization = quantization.changing(change, decided)
        return quantization.rounding(self._outputs)

    def _integer_weights(self) -> dict[str, Numbers]:
        """Of the last layers, which take and give floating point, where time is asked for.

        Not of the squeeze-excitation: its kernels' sums round otherwise on other processors, and
        each answer then differs as far as one rounding from another (docs/figures.md, "aarch64").
        """
        if not self._work.settings.fitted_share:
            return {}
        path = self._work.path
        last = [path.last_projection(), *path.of_kind("classifier")]
        return {each.name: float(self._scheme.weight_limit) for each in last}

    def _saturation(self) -> dict[str, Numbers]:
        """What the sigmoids lose, of every activation that weights alone read."""
        scaled = [
            each
            for each in self._layers
            if can_be_scaled(each, self._layers) and each.name not in self._hard_swishes
        ]
        lost = self._seen.lost
        return {
            each.name: shortest(lost[each.name].factors) for each in scaled if each.name in lost
        }

    def _decide(self, layer: Layer) -> None:
        if layer.activation is not None:
            self._activation(layer)
        elif layer.adds_to is not None:
            self._spans(layer.name, self._streams.get(layer.adds_to))
        if layer.closes:
            self._spans(layer.block, self._streams.get(cast("int", layer.adds_to)))
        if layer.gate is not None:
            self._gate(layer)
        if layer.pool is not None and any(each.source == HEAD for each in self._layers):
            self._spans(layer.pool, 1 / self._scales[layer.name])

    def _activation(self, layer: Layer) -> None:
        scaled = can_be_scaled(layer, self._layers)
        silu = self._work.network.activation == "silu"
        reader = Reader(self._energy(layer))
        if not silu:
            highest = 6.0 if self._work.network.activation == "relu6" else None
            reader = Reader(reader.energy, lowest=0.0, highest=highest)
        choice = choose(self._seen.rounded[layer.name], self._scheme, reader, equalize=scaled)
        if scaled and silu:
            plain = choose(self._seen.rounded[layer.name], self._scheme, reader, equalize=False)
            fast = bool(self._work.settings.fitted_share)
            if plain.snr_db >= (FAST_PLAIN_DB if fast else PLAIN_DB):
                scaled, choice = False, plain
            elif fast and self._passes_many(layer):
                seen = self._seen.rounded[layer.name].whole
                fitted = fit_rounded(seen, self._scheme, reader.energy)
                if fitted.snr_db >= HARD_SWISH_DB:
                    self._hard_swish(layer, fitted)
                    return
        scale = 1 / choice.factors.double()
        scale = on_steps(scale) if silu else scale
        numbers = shortest(scale) if scaled else (1.0,) * len(scale)
        self._equalized[layer.name] = numbers
        self._scales[layer.name] = torch.tensor(numbers, dtype=torch.float64)
        entry = entry_of(choice.grid, choice)
        if not silu:
            self._outputs[cast("str", layer.activation)] = entry
            return
        self._outputs[layer.name] = entry
        self._after_silu(cast("str", layer.activation), self._scales[layer.name], choice)

    def _passes_many(self, layer: Layer) -> bool:
        network = self._work.network
        active = [each for each in self._layers if each.activation is not None]
        total = sum(output_size(network, each) for each in active)
        return output_size(network, layer) >= HARD_SWISH_SHARE * total

    def _hard_swish(self, layer: Layer, fitted: FittedSite) -> None:
        self._hard_swishes[layer.name] = shortest(fitted.fit.numbers)
        self._scales[layer.name] = fitted.fit.behind
        grid, snr_db = fitted.grid, round(fitted.snr_db, 2)
        scale = _shortest(grid.scale)
        entry = TensorEntry(scale, grid.zero_point, "hard-swish", snr_db)
        self._outputs[layer.name] = entry
        highest = 6 * (grid.maximum - grid.zero_point) * grid.scale
        signal = highest**2 / 12
        after = _spanning(self._scheme, 6 * LOWEST_HARD_SWISH, highest, signal)
        self._outputs[cast("str", layer.activation)] = after

    def _after_silu(self, name: str, scale: Tensor, choice: TensorChoice) -> None:
        """SiLU never passes what goes in, and its least value is known."""
        seen = self._seen.extremes[name]
        low = (HEADROOM * seen.low).clamp_min(SILU_MINIMUM) / scale
        high = (choice.grid.maximum - choice.grid.zero_point) * choice.grid.scale
        signal = float((seen.mean_square / scale.square()).mean())
        self._outputs[name] = _spanning(self._scheme, float(low.min()), high, signal)

    def _gate(self, layer: Layer) -> None:
        """What the gate multiplies by, so that its product fills the grid of the projection."""
        work, gate = self._work, cast("str", layer.gate)
        projection = work.path.reader(layer)
        module = projection.module(work.network)
        reader = Reader(input_channel_energy(module), module.weight.detach().flatten(1))
        choice = choose(work.statistics[projection.name], self._scheme, reader, equalize=True)
        scale, opened = self._scales[layer.name], self._seen.extremes[f"{gate}.gate"].high
        opened = opened.clamp_min(1e-6)
        filling = choice.factors.double() * scale * opened
        filling = filling.clamp(max=GATE_SPREAD * float(filling.median()))
        numbers = shortest(filling / opened)
        self._gates[projection.name] = numbers
        self._outputs[gate] = entry_of(choice.grid, choice)
        widest = float((torch.tensor(numbers, dtype=torch.float64) * opened).max())
        self._outputs[f"{gate}.scaled"] = _spanning(
            self._scheme, 0.0, widest * HEADROOM, float(filling.square().mean())
        )
        self._spans(f"{gate}.pool", 1 / scale)

    def _spans(self, name: str, factors: Tensor | None) -> None:
        """A grid from end to end of what was seen, its channels multiplied by factors."""
        seen = self._seen.extremes[name]
        factors = torch.ones_like(seen.low) if factors is None else factors
        low, high = (HEADROOM * float(end) for end in _ends(seen, factors))
        signal = float((seen.mean_square * factors.square()).mean())
        self._outputs[name] = _spanning(self._scheme, low, high, signal)

    def _energy(self, layer: Layer) -> Tensor:
        """How much of an error in a channel arrives behind the layers that read it, (C,)."""
        work = self._work
        if not any(each.source == layer.name for each in self._layers):
            return torch.ones(len(layer.module(work.network).weight))
        reader = work.path.reader(layer)
        energy = input_channel_energy(reader.module(work.network))
        if reader.kind == "depthwise":
            following = work.path.reader(reader).module(work.network)
            return energy * input_channel_energy(following)
        if layer.gate is not None:
            energy = energy * self._seen.extremes[f"{layer.gate}.gate"].mean_square.float()
        return energy


def _ends(seen: Extremes, factors: Tensor) -> tuple[Tensor, Tensor]:
    return (seen.low * factors).min(), (seen.high * factors).max()


def _spanning(scheme: QuantizationScheme, low: float, high: float, signal: float) -> TensorEntry:
    """A grid whose ends are just beyond those, real 0 on it."""
    width = max(high - low, 1e-6)
    scale = width / (scheme.levels - 1)
    zero_point = scheme.minimum + math.ceil(-low / scale)
    noise = scale * scale / 12
    snr_db = 10 * math.log10(max(signal, 1e-300) / noise)
    return TensorEntry(_shortest(scale), zero_point, f"min-max × {HEADROOM:g}", round(snr_db, 2))


def _shortest(value: float) -> float:
    return shortest(torch.tensor([value]))[0]
