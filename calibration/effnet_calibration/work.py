"""What a step of the quantization is, and what it may decide by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.quantized_network import QuantizedNetwork
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.statistics import TensorStatistics
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing


DepthwiseKept = Literal["none", "small", "all"]


@dataclass(frozen=True)
class Settings:
    """What to do beside choosing ranges; the defaults are what measured best.

    Attributes:
        equalize_depthwise, equalize_projection: per-channel factors, see `equalization`.
        equalize_stream: factors on every residual stream. Off, as expansions have little noise to
            lose; a stream that a depthwise convolution reads is equalized with
            `equalize_depthwise`.
        correct_biases: see `bias_correction`.
        fitted_share: of all values that pass a SiLU on the main path, 0..1, how many shall pass a
            hard-swish instead, see `activation_fitting`. 0, as it is no part of the rounding: it
            trades some of the answer for time. Where the engine rounds every output, any other
            share lets `output_grids` do what saves time there.
        bend_activations: give the hard-swishes of the later maps a slope below 0, see
            `activation_fitting`. Off, as not every engine has it for little.
        zero_in_middle: put the zero of what convolutions over all channels read on the main path in
            the middle of its grid, as in a symmetric scheme. Off, as it is for engines that are
            faster without zero points.
        keep_last_blocks: see `last_blocks`. Off, as it is for targets that gain by it.
        keep_depthwise: which depthwise convolutions stay in 16 bit, see `kept_depthwise`. None, as
            it may cost time.
        refit_weights: where hard-swishes or rounded outputs leave something to take back, see
            `refitting`.
        correct_gain: divide the logits by the share of their spread that quantization left.
    """

    equalize_depthwise: bool = True
    equalize_projection: bool = True
    equalize_stream: bool = False
    correct_biases: bool = True
    refit_weights: bool = True
    correct_gain: bool = True
    fitted_share: float = 0.0
    bend_activations: bool = False
    zero_in_middle: bool = False
    keep_last_blocks: bool = False
    keep_depthwise: DepthwiseKept = "none"


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True)
class Work:
    """One network to be quantized for one scheme.

    Attributes:
        network: folded; a step leaves it as it is.
        statistics: of every layer's input, by layer name.
        exact: the network's own outputs.
        apply: quantizes a copy of the network.
    """

    network: EfficientNet
    path: NetworkPath
    scheme: QuantizationScheme
    preprocessing: Preprocessing
    statistics: Mapping[str, TensorStatistics]
    exact: ExactOutputs
    apply: Callable[[Quantization], QuantizedNetwork]
    settings: Settings = DEFAULT_SETTINGS
    progress: Progress = no_progress

    def simulate(self, quantization: Quantization) -> EfficientNet:
        """A copy of the network that computes what it would with a quantization."""
        return self.apply(quantization).simulated()


@dataclass(frozen=True)
class Step:
    """One step of the quantization.

    Attributes:
        decide: adds what the step decides to what the steps before it did.
        changes: by name, the changes of the network that it decides on, in the order in which they
            are made. Each is given the network to change in place, its path, the layer, and the
            numbers that were decided for it.
        in_floats: whether it is of use where nothing is rounded, too.
    """

    decide: Callable[[Work, Quantization], Quantization]
    changes: Mapping[str, Callable[[EfficientNet, NetworkPath, Layer, Numbers], None]] = field(
        default_factory=dict
    )
    in_floats: bool = False
