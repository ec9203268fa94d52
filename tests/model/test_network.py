"""The network against efficientnet-pytorch and geffnet, which nobody here wrote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import geffnet
import pytest
import torch
from geffnet.conv2d_layers import Conv2dSame
from hypothesis import given
from hypothesis import strategies as st
from later import quick
from reference_models import efficientnet_pytorch_model, geffnet_model, picture, randomized
from safetensors.torch import save
from torch import nn

from effnet_edge.model.checkpoints.files import parse_checkpoint
from effnet_edge.model.checkpoints.found import FoundCheckpoint
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import DropConnect, EfficientNet
from effnet_edge.model.paddings import same_padding
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import fill_as_told

if TYPE_CHECKING:
    from effnet_edge.model.variants import Padding

TOLERANCE = 1e-4
PAPER_VARIANTS = [f"b{index}" for index in range(8)]
LITE_AND_EDGETPU = [*(f"lite{index}" for index in range(5)), "es", "em", "el"]


def take_over(ours: EfficientNet, theirs: nn.Module, padding: Padding | None = None) -> None:
    checkpoint = parse_checkpoint("theirs.safetensors", save(theirs.state_dict()))
    fill_as_told(ours, FoundCheckpoint("theirs", "test", checkpoint), padding)


def assert_same_logits(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        expected, found = theirs(x), ours(x)
    scale = (expected.max() - expected.min()).item()
    assert scale > 0.1, "logits that are all alike would prove nothing"
    assert (expected - found).abs().max().item() <= TOLERANCE * max(1.0, scale)


@pytest.mark.parametrize("name", quick(["b0", "b1"], PAPER_VARIANTS))
def test_logits_are_those_of_efficientnet_pytorch(name: str) -> None:
    x = picture(VARIANTS[name].resolution)
    theirs = randomized(efficientnet_pytorch_model(name), x)
    ours = EfficientNet(VARIANTS[name]).eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


@pytest.mark.parametrize("name", quick(["b0", "b2"], [*PAPER_VARIANTS, "b8"]))
def test_logits_are_those_of_geffnet(name: str) -> None:
    assert_as_geffnet(name, 150)


# 150 px make both even and odd feature maps, and so both kinds of SAME padding at stride 2.
@pytest.mark.parametrize("name", quick(["lite0", "lite1", "es"], LITE_AND_EDGETPU))
def test_logits_of_lite_and_edgetpu_are_those_of_geffnet(name: str) -> None:
    assert_as_geffnet(name, 150)


@pytest.mark.slow
def test_logits_of_l2_are_those_of_geffnet() -> None:
    assert_as_geffnet("l2", 96)


@pytest.mark.parametrize("name", ["es", "em", "el", "b8", "lite3"])
def test_multiply_adds_are_those_of_geffnets_layers(name: str) -> None:
    side = 64
    theirs, counts = geffnet.create_model(f"efficientnet_{name}").eval(), []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        positions = output[0, 0].numel() if output.dim() == 4 else 1
        counts.append(module.weight.numel() * positions)

    for module in theirs.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        theirs(picture(side))

    ours = VARIANTS[name].multiply_adds(side)
    # geffnet computes EdgeTPU's fused convolutions at full resolution and skips pixels afterwards.
    assert (ours < sum(counts)) if name.startswith("e") else (ours == sum(counts))
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    assert VARIANTS[name].parameter_count() == parameters


@pytest.mark.parametrize("name", ["lite1", "em", "v2-s", "v2-b3"])
def test_a_network_has_the_tables_parameters_and_multiply_adds(name: str) -> None:
    network, counts = EfficientNet(VARIANTS[name], resolution=75).eval(), []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        counts.append(module.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1))

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(picture(75))

    assert sum(counts) == VARIANTS[name].multiply_adds(75)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == VARIANTS[name].parameter_count()


def assert_as_geffnet(name: str, resolution: int) -> None:
    x = picture(resolution)
    theirs = randomized(geffnet_model(name), x)
    ours = EfficientNet(VARIANTS[name], resolution=resolution).eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


@pytest.mark.parametrize("resolution", [95, 128, 201])
def test_same_padding_is_right_at_other_resolutions_too(resolution: int) -> None:
    x = picture(resolution)
    theirs = randomized(geffnet_model("b0"), x)
    ours = EfficientNet(VARIANTS["b0"], resolution=resolution).eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


def strided_in_the_expansion(model: nn.Module) -> nn.Module:
    """geffnet's EdgeTPU network with the strides where timm's has them."""
    for block in (each for stage in model.blocks for each in stage):
        if type(block).__name__ == "EdgeResidual" and block.conv_pwl.stride == (2, 2):
            block.conv_pwl.stride = (1, 1)
            old = block.conv_exp
            block.conv_exp = Conv2dSame(old.in_channels, old.out_channels, 3, stride=2, bias=False)
            block.conv_exp.weight = old.weight
    return model


@pytest.mark.parametrize("resolution", [64, 75])
def test_same_padding_as_timm_has_it_pads_what_skips_pixels_too(resolution: int) -> None:
    x = picture(resolution)
    theirs = randomized(strided_in_the_expansion(geffnet_model("es")), x)
    ours = EfficientNet(VARIANTS["es"], resolution=resolution, padding="same-timm").eval()
    take_over(ours, theirs, padding="same-timm")

    assert_same_logits(ours, theirs, x)


def test_symmetric_padding_is_that_of_geffnets_pytorch_models() -> None:
    x = picture(240)
    theirs = randomized(geffnet.create_model("efficientnet_b1"), x)
    ours = EfficientNet(VARIANTS["b1"], padding="symmetric").eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


@pytest.mark.parametrize("name", ["b0", "b3"])
def test_folding_batch_norm_changes_nothing_but_rounding(name: str) -> None:
    # In float64: by chance, a deep network amplifies rounding beyond any limit.
    x = picture(VARIANTS[name].resolution).double()
    network = randomized(EfficientNet(VARIANTS[name]).double(), x)
    folded = fold_batch_norm(network)

    assert_same_logits(folded, network, x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@given(size=st.integers(1, 700), kernel=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 4))
def test_same_padding_gives_the_output_size_of_tensorflow(
    size: int, kernel: int, stride: int
) -> None:
    before, after = same_padding(size, kernel, stride)

    assert 0 <= after - before <= 1
    if before + after or size >= kernel:
        assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)


def test_features_only_gives_the_maps_at_five_strides() -> None:
    network = EfficientNet(VARIANTS["b0"], features_only=True).eval()

    maps = network(picture(224, batch=2))

    assert [tuple(each.shape) for each in maps] == [
        (2, 16, 112, 112),
        (2, 24, 56, 56),
        (2, 40, 28, 28),
        (2, 112, 14, 14),
        (2, 320, 7, 7),
    ]
    assert not any(name.startswith(("head", "classifier")) for name in network.state_dict())


def test_other_class_and_channel_counts() -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=7, in_channels=1, resolution=64)

    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == VARIANTS["b0"].parameter_count(num_classes=7, in_channels=1)


def test_another_size_than_the_padding_was_made_for_is_refused() -> None:
    network = EfficientNet(VARIANTS["b0"], resolution=64)

    with pytest.raises(ValueError, match="65×64 px.*64×64"):
        network(torch.zeros(1, 3, 65, 64))


@pytest.mark.sample
def test_training_learns_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = EfficientNet(
        VARIANTS["b0"], num_classes=2, resolution=64, dropout=0.0, drop_connect=0.0
    ).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    x = torch.cat([torch.randn(4, 3, 64, 64) + 1, torch.randn(4, 3, 64, 64) - 1])
    labels = torch.tensor([0] * 4 + [1] * 4)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
        optimizer.step()
        losses.append(loss.item())

    assert max(losses[:2]) > 0.2
    assert max(losses[-3:]) < 0.1
    assert [name for name, gradient in gradients.items() if not gradient.abs().sum() > 0] == []


def test_batch_norm_keeps_99_percent_of_its_statistics_a_step() -> None:
    network = EfficientNet(VARIANTS["b0"], resolution=32).train()
    x = torch.randn(8, 3, 32, 32)

    with torch.no_grad():
        batch_mean = network.stem.conv(x).mean((0, 2, 3))
        network(x)

    torch.testing.assert_close(network.stem.bn.running_mean, 0.01 * batch_mean)
    assert network.stem.bn.eps == 1e-3


def test_drop_connect_grows_linearly_and_rests_in_evaluation() -> None:
    network = EfficientNet(VARIANTS["b0"])
    rates = [module.rate for module in network.modules() if isinstance(module, DropConnect)]

    assert rates == pytest.approx([0.2 * index / 16 for index in range(16)])
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(DropConnect(0.5).eval()(x), x)


def test_drop_connect_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 2, 2)

    out = DropConnect(0.25).train()(x)

    per_sample = out.flatten(1)
    assert sorted(per_sample.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (per_sample.min(1).values == per_sample.max(1).values).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
