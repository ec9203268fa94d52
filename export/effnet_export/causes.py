"""Why a network answers otherwise than its original: each usual misunderstanding is tried out.

A guess is the same network with one convention changed. What makes the answers equal is the cause.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch

from effnet_edge.model.architecture import Activation, Pooling
from effnet_edge.model.network import BATCH_NORM_EPS, PYTORCH_EPS, EfficientNet
from effnet_edge.model.preprocessing import CENTRED, IMAGENET_MEAN, IMAGENET_STD
from effnet_edge.model.variants import Padding
from effnet_edge.parity.measures.metrics import softmax
from effnet_edge.pictures.image import Preprocessing, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Likeness = Callable[[NDArray[np.float32], NDArray[np.floating]], float]
    Inputs = NDArray[np.uint8] | NDArray[np.float32]

_PADDING_OPTION = "--padding {} says so"
_CONFIG = '"model_args": {{"{}": {}}} in a timm config.json beside the checkpoint says so'
_STATISTICS = (
    (IMAGENET_MEAN, IMAGENET_STD),
    (CENTRED, CENTRED),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((127 / 255,) * 3, (128 / 255,) * 3),
    ((128 / 255,) * 3, (128 / 255,) * 3),
)


def answers(
    network: EfficientNet, preprocessing: Preprocessing, inputs: Inputs
) -> NDArray[np.float32]:
    """Logits, float32 (N, classes), for uint8 pixels (N, H, W, C) or normalized (N, C, H, W)."""
    given = inputs
    if inputs.dtype == np.uint8:
        given = normalize(cast("NDArray[np.uint8]", inputs), preprocessing)
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(given)).numpy()
    return logits


def likely_cause(
    network: EfficientNet,
    preprocessing: Preprocessing,
    inputs: Inputs,
    expected: NDArray[np.float32],
    likeness: Likeness,
    least_db: float,
) -> str:
    """In words, with what helps; or that no single convention explains it.

    Args:
        inputs: a few, as in `answers`.
        expected: the original's logits for them.
        likeness: of the original's answers and others, in decibels.
        least_db: from which on the answers count as equal.
    """

    def agree(found: NDArray[np.floating]) -> bool:
        return likeness(expected, found) >= least_db

    if agree(softmax(answers(network, preprocessing, inputs))):
        return "the original gives probabilities: give its logits, before the Softmax"
    for cause, guess in _networks(network):
        if agree(answers(guess, preprocessing, inputs)):
            return f"the likely cause is {cause}"
    if inputs.dtype == np.uint8:
        for cause, pixels in _pixels(preprocessing):
            if agree(answers(network, pixels, inputs)):
                return f"the likely cause is {cause}"
    return (
        "no other padding, epsilon, pooling, activation or normalization makes them equal: it is "
        "another network, or has other weights"
    )


def _networks(network: EfficientNet) -> Iterator[tuple[str, EfficientNet]]:
    eps = network.batch_norm_eps
    paddings = [each for each in get_args(Padding) if each != network.padding]
    epsilons = [each for each in (BATCH_NORM_EPS, PYTORCH_EPS) if each != eps]
    for padding in paddings:
        told = f"the padding: it pads {padding}, as {_PADDING_OPTION.format(padding)}"
        yield told, _changed(network, padding=padding)
    for epsilon in epsilons:
        told = f"batch norm's epsilon, which is {epsilon:g}: {_CONFIG.format('bn_eps', epsilon)}"
        yield told, _changed(network, eps=epsilon)
    for padding in paddings:
        for epsilon in epsilons:
            option = _PADDING_OPTION.format(padding)
            told = f"the padding and batch norm's epsilon: {padding} and {epsilon:g}, as {option}"
            yield told, _changed(network, padding=padding, eps=epsilon)
    for pooling in get_args(Pooling):
        if pooling != network.pooling:
            config = _CONFIG.format("global_pool", f'"{pooling}"')
            yield f"the pooling, which is {pooling}: {config}", _changed(network, pooling=pooling)
    for activation in get_args(Activation):
        if activation != network.activation:
            config = _CONFIG.format("act_layer", f'"{activation}"')
            told = f"the activation, which is {activation}: {config}"
            yield told, _changed(network, activation=activation)


def _changed(
    network: EfficientNet,
    padding: Padding | None = None,
    eps: float | None = None,
    pooling: Pooling | None = None,
    activation: Activation | None = None,
) -> EfficientNet:
    changed = copy.deepcopy(network)
    changed.set_conventions(
        padding or network.padding,
        eps or network.batch_norm_eps,
        pooling or network.pooling,
        activation or network.activation,
    )
    return changed.eval()


def _pixels(preprocessing: Preprocessing) -> Iterator[tuple[str, Preprocessing]]:
    if preprocessing.channels != 3:
        return
    for mean, std in _STATISTICS:
        if (mean, std) != (preprocessing.mean, preprocessing.std):
            told = f"--mean {_listed(mean)} --std {_listed(std)} says so"
            yield f"the mean and deviation: {told}", replace(preprocessing, mean=mean, std=std)


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
