"""The options of every command that starts from a network, and of those that calibrate it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from effnet_edge.cli.engine_options import BatchType, ChannelValues, Resolution
from effnet_edge.cli.numbers import Count
from effnet_edge.model.architecture import Activation, Pooling
from effnet_edge.model.variants import Padding
from effnet_edge.pictures.fitting import FITS
from effnet_edge.targets import DEFAULT_TARGET, TARGETS

if TYPE_CHECKING:
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.fitting import Fit
    from effnet_edge.size import Size

Command = TypeVar("Command", bound=Callable[..., object])

NetworkOf = Callable[[str], "NetworkRequest"]
"""The request for a network of that variant, as the options tell it."""

_TARGET = click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default=DEFAULT_TARGET,
    show_default=True,
    metavar="TARGET",
    help=f"The engine that will run the model: {', '.join(TARGETS)}.",
)
_WEIGHTS = click.option(
    "--weights",
    metavar="NAME|FILE|hf://…",
    help="'imagenet' (the default) or another name that effnet-edge list shows, a checkpoint file, "
    "hf://OWNER/REPO[@REVISION][/FILE] on the Hugging Face hub, or 'random'.",
)
_NUM_CLASSES = click.option(
    "--num-classes",
    type=Count(1),
    help="Classes, labels or values of the network. [default: as many as in the checkpoint]",
)
_RESOLUTION = click.option(
    "--resolution",
    type=Resolution(),
    metavar="N|HEIGHTxWIDTH",
    help="Height and width of the input in pixels, such as 192x320, or one number for a square. "
    "[default: that of the weights, or the variant's]",
)
_FIT = click.option(
    "--fit",
    type=click.Choice(FITS),
    help="How a picture of another shape is brought to the input's: 'crop' its centre, "
    "'stretch' it whole, or 'pad' it with borders. [default: as the weights tell, else 'crop']",
)
_PADDING = click.option(
    "--padding",
    type=click.Choice(get_args(Padding)),
    help="'same' for weights trained in TensorFlow or ported from it, 'symmetric' for PyTorch's, "
    "'same-timm' for timm's of es, em and el that pad SAME. "
    "[default: what the naming in the checkpoint tells, else 'same']",
)
_BATCH_NORM_EPS = click.option(
    "--batch-norm-eps",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="NUMBER",
    help="The ε of every batch norm: 1e-3 in TensorFlow, 1e-5 in PyTorch. [default: what the "
    "checkpoint tells, else 1e-3]",
)
_POOLING = click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    help="Of the head's output: its mean, its maximum, or the mean of both. [default: what the "
    "checkpoint tells, else 'avg']",
)
_ACTIVATION = click.option(
    "--activation",
    type=click.Choice(get_args(Activation)),
    help="Of every layer that has one. [default: what the checkpoint tells, else the variant's]",
)
_MULTI_LABEL = click.option(
    "--multi-label",
    is_flag=True,
    help="The classes do not exclude each other: a probability for each (sigmoid).",
)
_REGRESSION = click.option(
    "--regression",
    is_flag=True,
    help="The outputs are no classes but values, which are given as they are.",
)
_FEATURES = click.option(
    "--features",
    is_flag=True,
    help="Leave the classifier out: the model gives the head's pooled features.",
)
_MEAN = click.option(
    "--mean",
    type=ChannelValues(),
    help="Of each input channel, in units of pixel / 255. [default: the variant's; in grey their "
    "average]",
)
_STD = click.option(
    "--std",
    type=ChannelValues(),
    help="Standard deviation of each input channel, in units of pixel / 255.",
)
_PRECISIONS = {
    "fp32": "Weights and arithmetic in FP32.",
    "fp16": "Weights in FP16, arithmetic as the device does it fastest (the default, except for "
    "onnxruntime).",
    "int8": "Weights and activations of every convolution and the classifier in 8 bit.",
}
_CALIBRATION = click.option(
    "--calibration",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|TAR|CSV|TABLE.json",
    help="For INT8, --fast-activations and TensorRT's FP16: your own pictures; for the first two "
    "also a table to reuse. [default: embedded photos]",
)
_CALIBRATION_SIZE = click.option(
    "--calibration-size",
    type=Count(1),
    default=200,
    show_default=True,
    help="At most so many pictures.",
)


_LABELS = click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Names of the classes or values, one a line or a JSON list. [default: ImageNet's for 1000 "
    "classes]",
)
_BATCH = click.option(
    "--batch",
    type=BatchType(),
    default="1",
    show_default=True,
    help="Images a call: a fixed number, or a range such as 1:8:32.",
)


def target_option(command: Command) -> Command:
    """Add --target."""
    return _TARGET(command)


def labels_option(command: Command) -> Command:
    """Add --labels."""
    return _LABELS(command)


def batch_option(command: Command) -> Command:
    """Add --batch."""
    return _BATCH(command)


def network_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --weights and what tells the network that the weights are for.

    The command gets them as `network`, a `NetworkOf`.
    """

    @wraps(command)
    def with_network(
        *arguments: object,
        weights: str | None,
        num_classes: int | None,
        multi_label: bool,
        regression: bool,
        features: bool,
        resolution: Size | None,
        fit: Fit | None,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        padding: Padding | None,
        batch_norm_eps: float | None,
        pooling: Pooling | None,
        activation: Activation | None,
        **others: object,
    ) -> object:
        from effnet_edge.model.places import check_weights
        from effnet_edge.model.request import NetworkRequest
        from effnet_edge.model.variants import VARIANTS

        kind = _output_kind(multi_label=multi_label, regression=regression, features=features)

        def network(variant: str) -> NetworkRequest:
            if weights is not None and variant in VARIANTS:
                # Now: PyTorch, which reads them, takes seconds to be imported.
                check_weights(variant, weights)
            return NetworkRequest(
                variant,
                weights,
                num_classes,
                kind,
                resolution,
                padding,
                mean,
                std,
                fit,
                batch_norm_eps,
                pooling,
                activation,
            )

        return command(*arguments, network=network, **others)

    kinds = (_MULTI_LABEL, _REGRESSION, _FEATURES)
    pixels = (_RESOLUTION, _FIT, _MEAN, _STD)
    conventions = (_PADDING, _BATCH_NORM_EPS, _POOLING, _ACTIVATION)
    for option in reversed((_WEIGHTS, _NUM_CLASSES, *kinds, *pixels, *conventions)):
        with_network = option(with_network)
    return with_network


def precision_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --fp32, --fp16 and --int8; the command gets `precision`, None where none is given."""

    @wraps(command)
    def with_precision(*arguments: object, **others: object) -> object:
        flags = {name: others.pop(name) for name in _PRECISIONS}
        precision = next((name for name, given in flags.items() if given), None)
        return command(*arguments, precision=precision, **others)

    for name, told in reversed(_PRECISIONS.items()):
        with_precision = click.option(f"--{name}", is_flag=True, help=told)(with_precision)
    return with_precision


def calibration_options(command: Command) -> Command:
    """Add --calibration and --calibration-size."""
    return _CALIBRATION(_CALIBRATION_SIZE(command))


def _output_kind(*, multi_label: bool, regression: bool, features: bool) -> OutputKind:
    """What the options say; see `effnet_export.option_rules` for several of them."""
    if features:
        return "features"
    if regression:
        return "regression"
    return "multi-label" if multi_label else "single-label"
