"""The change of weights, beside numpy's least squares and torch's own convolutions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from effnet_calibration import least_squares
from effnet_calibration.least_squares import Change, LeastSquares
from effnet_edge.model.network import PaddedConv2d
from effnet_edge.size import Size

SIDE = 12
PICTURES = 40

# channels read, channels given, kernel, stride, groups, padding
GEOMETRIES = {
    "pointwise": (6, 4, 1, 1, 1, "same"),
    "depthwise": (6, 6, 3, 1, 6, "same"),
    "uneven padding": (6, 6, 5, 2, 6, "same"),
    "symmetric padding": (6, 6, 5, 2, 6, "symmetric"),
    "fused": (3, 5, 3, 2, 1, "same"),
}


def convolution(name: str) -> PaddedConv2d:
    read, given, kernel, stride, groups, padding = GEOMETRIES[name]
    torch.manual_seed(1)
    module = PaddedConv2d(
        read,
        given,
        kernel,
        stride,
        input_size=Size(SIDE, SIDE),
        padding=padding,
        groups=groups,
    )
    module.bias = torch.nn.Parameter(torch.randn(given))
    return module.requires_grad_(False)


def pictures(module: PaddedConv2d, seed: int = 0) -> torch.Tensor:
    """Channels of different spread and mean, alike in neighbouring pixels."""
    chance = torch.Generator().manual_seed(seed)
    channels = module.in_channels
    values = torch.randn(PICTURES, channels, SIDE, SIDE, generator=chance)
    values = values + 2 * values.mean((2, 3), keepdim=True)
    spread = torch.exp2(torch.linspace(-3, 3, channels)).view(1, -1, 1, 1)
    return values * spread + spread / 2


def changed(module: PaddedConv2d, change: Change) -> PaddedConv2d:
    moved = copy.deepcopy(module)
    moved.weight.data += change.weights
    moved.bias.data += change.biases
    return moved


def planted(module: PaddedConv2d) -> PaddedConv2d:
    """The same with other weights and biases."""
    torch.manual_seed(2)
    return changed(
        module,
        Change(0.3 * torch.randn_like(module.weight), 0.3 * torch.randn(module.out_channels)),
    )


def seen(module: PaddedConv2d, inputs: torch.Tensor, targets: torch.Tensor) -> LeastSquares:
    pixels = targets[0, 0].numel()
    squares = LeastSquares(module, len(inputs), pixels)
    chance = torch.Generator().manual_seed(3)
    for batch, wanted in zip(inputs.split(7), targets.split(7), strict=True):
        at = squares.places(chance)
        squares.offer(batch, at, wanted.flatten(2)[:, :, at])
    return squares


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_weights_that_the_targets_were_made_by_are_found(name: str) -> None:
    module = convolution(name)
    inputs, other = pictures(module), pictures(module, seed=9)
    true = planted(module)

    change = seen(module, inputs, true(inputs)).change()

    assert change is not None
    wanted = true(other)
    before, after = (
        float((each(other) - wanted).square().mean()) for each in (module, changed(module, change))
    )
    # The weakest ridge holds back 0.3 %.
    assert after < 1e-3 * before


@pytest.mark.parametrize("name", ["pointwise", "depthwise"])
@pytest.mark.parametrize("ridge", [1.0, 0.03])
def test_a_ridge_holds_back_as_much_as_with_numpy(
    name: str, ridge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lstsq` of the samples and of a row for each weight, √(ridge · energy) at its place."""
    monkeypatch.setattr(least_squares, "RIDGES", (ridge,))
    module = convolution(name)
    inputs = pictures(module)
    targets = planted(module)(inputs)

    change = seen(module, inputs, targets).change()

    assert change is not None
    lacking = (targets - module(inputs)).double()
    unfolded = torch.nn.functional.unfold(
        inputs, module.kernel_size, padding=module.kernel_size[0] // 2
    )
    patches = unfolded.view(PICTURES, module.in_channels, -1, SIDE * SIDE).double()
    for output in range(module.out_channels):
        own = patches[:, output : output + 1] if module.groups > 1 else patches
        read = own.flatten(1, 2).permute(0, 2, 1).flatten(0, 1).numpy()
        read = np.concatenate([read, np.ones((len(read), 1))], 1)
        held = np.diag(np.sqrt(ridge * np.square(read).sum(0)))
        held[-1] = 0
        found = np.linalg.lstsq(
            np.concatenate([read, held]),
            np.concatenate([lacking[:, output].flatten().numpy(), np.zeros(len(held))]),
            rcond=None,
        )[0]
        ours = torch.cat([change.weights[output].flatten(), change.biases[output : output + 1]])
        np.testing.assert_allclose(ours.numpy(), found, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_has_nothing_to_do_with_the_inputs_changes_no_weight(name: str) -> None:
    module = convolution(name)
    inputs = pictures(module)
    exact = module(inputs)
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(4))
    noise -= noise.mean((0, 2, 3), keepdim=True)
    assert seen(module, inputs, exact + noise).change() is None


def test_more_weights_than_the_pictures_tell_about_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    module = convolution("pointwise")
    inputs = pictures(module)
    targets = planted(module)(inputs)
    assert seen(module, inputs, targets).change() is not None
    monkeypatch.setattr(least_squares, "LEAST_SAMPLES", 1 + PICTURES * SIDE * SIDE // 6)
    assert seen(module, inputs, targets).change() is None


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("enough", [0, 10**9])
def test_with_other_weights_the_biases_give_the_mean_back(
    name: str, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the pictures tell enough about the weights or not."""
    monkeypatch.setattr(least_squares, "LEAST_SAMPLES", enough)
    module = convolution(name)
    inputs = pictures(module)
    targets = planted(module)(inputs)
    squares = seen(module, inputs, targets)
    rounded = (module.weight * 8).round() / 8

    lacking = squares.mean_lacking(rounded)

    with_them = changed(module, Change(rounded - module.weight, lacking))
    np.testing.assert_allclose(
        with_them(inputs).mean((0, 2, 3)), targets.mean((0, 2, 3)), rtol=1e-3, atol=2e-3
    )


def test_a_single_picture_tells_nothing_of_others() -> None:
    module = convolution("depthwise")
    inputs = pictures(module)[:1]
    assert seen(module, inputs, planted(module)(inputs)).change() is None
