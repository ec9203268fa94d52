"""EfficientNet as a PyTorch module: one class for the whole family.

Source: Tan & Le 2019 and 2021; block details (SE bottleneck, drop-connect, initialization) from the
authors' TensorFlow reference implementation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet_edge.arguments import check_choice, whole_number
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.conventions import TELLING_TENSOR, Conventions, read_conventions
from effnet_edge.model.paddings import STEM_KERNEL, STEM_STRIDE, pads_of
from effnet_edge.model.pooling import GlobalAveragePool, pool_of
from effnet_edge.outputs import OUTPUT_NAMES, check_one_output
from effnet_edge.size import Size

if TYPE_CHECKING:
    from effnet_edge.model.architecture import Activation, BlockSpec, Pooling
    from effnet_edge.model.variants import Padding, Variant
    from effnet_edge.outputs import OutputKind

BATCH_NORM_EPS = 1e-3
PYTORCH_EPS = 1e-5
# The reference keeps 0.99 of the running statistics a step; PyTorch's momentum is the other part.
BATCH_NORM_MOMENTUM = 1 - 0.99
DROP_CONNECT = 0.2


class PaddedConv2d(nn.Conv2d):
    """A bias-free convolution with SAME padding fixed for one input size, or a symmetric one.

    Args:
        input_size: of the feature map that it reads, which fixes the SAME padding of either axis.
        skips_pixels: as in `StageSpec`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        input_size: Size,
        padding: Padding,
        groups: int = 1,
        skips_pixels: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.input_size = input_size
        self.skips_pixels = skips_pixels
        self.set_padding(padding)

    def set_padding(self, padding: Padding) -> None:
        """Pad so from now on."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        (top, bottom), (left, right) = pads_of(
            padding, self.input_size, kernel, stride, skips_pixels=self.skips_pixels
        )
        # Only an uneven padding needs an operation of its own.
        even = top == bottom and left == right
        self.padding = (top, left) if even else (0, 0)
        self.explicit_padding = None if even else (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        if self.explicit_padding is not None:
            x = functional.pad(x, self.explicit_padding)
        return super().forward(x)


ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "relu6": nn.ReLU6}


class ConvBnAct(nn.Module):
    """Convolution, batch norm and, unless it is None, an activation."""

    def __init__(self, conv: PaddedConv2d, activation: Activation | None, eps: float) -> None:
        super().__init__()
        self.conv = conv
        self.bn: nn.Module = nn.BatchNorm2d(
            conv.out_channels, eps=eps, momentum=BATCH_NORM_MOMENTUM
        )
        self.act: nn.Module = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al. 2018): an activation in the bottleneck, a sigmoid gate."""

    def __init__(self, channels: int, squeeze_channels: int, activation: Activation) -> None:
        super().__init__()
        self.pool = GlobalAveragePool(keepdim=True)
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = ACTIVATIONS[activation]()
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


class DropConnect(nn.Module):
    """Drop a whole sample's residual branch with probability `rate` (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * kept / keep


class Block(nn.Module):
    """MBConv, its fused form, or a single convolution: see `BlockKind`.

    `expand`, `depthwise` and `se` are identities where the kind or the variant has none; the
    projection of the first two kinds is linear.
    """

    def __init__(
        self,
        spec: BlockSpec,
        input_size: Size,
        padding: Padding,
        activation: Activation,
        batch_norm_eps: float,
        drop_connect: float,
    ) -> None:
        super().__init__()
        self.expand: nn.Module = nn.Identity()
        self.depthwise: nn.Module = nn.Identity()
        self.se: nn.Module = nn.Identity()

        def layer(
            in_channels: int, out_channels: int, *, spatial: bool, active: bool, groups: int = 1
        ) -> ConvBnAct:
            conv = PaddedConv2d(
                in_channels,
                out_channels,
                spec.kernel if spatial else 1,
                spec.stride if spatial else 1,
                input_size=input_size,
                padding=padding,
                groups=groups,
                skips_pixels=spec.skips_pixels,
            )
            return ConvBnAct(conv, activation if active else None, batch_norm_eps)

        expanded = spec.expanded_channels
        if spec.kind == "fused" or (spec.kind == "mbconv" and spec.expand_ratio != 1):
            fused = spec.kind == "fused"
            self.expand = layer(spec.in_channels, expanded, spatial=fused, active=True)
        if spec.kind == "mbconv":
            self.depthwise = layer(expanded, expanded, spatial=True, active=True, groups=expanded)
        if spec.squeeze_excitation:
            self.se = SqueezeExcitation(expanded, spec.squeeze_channels, activation)
        single = spec.kind == "conv"
        self.project = layer(expanded, spec.out_channels, spatial=single, active=single)
        self.drop_connect = DropConnect(drop_connect)
        self.has_shortcut = spec.has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + self.drop_connect(out) if self.has_shortcut else out


class EfficientNet(nn.Module):
    """EfficientNet for normalized images, float32 (N, in_channels, height, width).

    `forward` gives logits, float32 (N, num_classes); with `num_classes=0`, as in timm, the pooled
    output of the head, (N, head channels); with `features_only` the feature maps at strides 2, 4,
    8, 16 and 32, each (N, channels, height / stride, width / stride), rounded up.

    A state dict has one entry more than its tensors, which tells the padding, ε, pooling and
    activation, and a network that loads it computes so. One without that entry changes none.

    Args:
        output_kind: "multi-label" for classes that do not exclude each other, "regression" for
            values. It changes no number, but what is compared and calibrated for.
        resolution: height and width of the input in pixels, or the side of a square; the variant's
            own if not given. SAME padding is computed for it, so that an exported graph has no
            shape arithmetic; another size is refused.
        padding: "same" for weights trained in TensorFlow, "symmetric" for PyTorch's, "same-timm"
            for EdgeTPU's as timm has them with SAME padding.
        batch_norm_eps: TensorFlow's if not given; PyTorch's own is 1e-5.
        pooling: of the head's output.
        activation: of every layer that has one; the variant's own if not given.
        dropout: before the classifier; the variant's own if not given.
        drop_connect: rate of the last block; it grows linearly from 0 at the first.

    Raises:
        UsageError: an argument that is none of its values; one output, and no other kind of it
            than single-label.
        ValueError: from `forward`, for an input of another size under SAME padding.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        num_classes: int = IMAGENET_CLASSES,
        output_kind: OutputKind = "single-label",
        in_channels: int = 3,
        resolution: Size | int | None = None,
        padding: Padding = "same",
        batch_norm_eps: float = BATCH_NORM_EPS,
        pooling: Pooling = "avg",
        activation: Activation | None = None,
        dropout: float | None = None,
        drop_connect: float = DROP_CONNECT,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.resolution = Size.of(variant.resolution if resolution is None else resolution)
        activation = activation or variant.family.activation
        self._remember(Conventions(padding, batch_norm_eps, pooling, activation))
        num_classes = whole_number("num_classes", num_classes, 0)
        in_channels = whole_number("in_channels", in_channels, 1)
        check_choice("output_kind", output_kind, OUTPUT_NAMES)
        self.features_only = features_only
        has_classifier = num_classes > 0 and not features_only
        self.output_kind: OutputKind = output_kind if has_classifier else "features"
        check_one_output(self.output_kind, num_classes, argument="output_kind")
        size = self.resolution
        self.stem = ConvBnAct(
            PaddedConv2d(
                in_channels,
                variant.stem_channels,
                STEM_KERNEL,
                STEM_STRIDE,
                input_size=size,
                padding=padding,
            ),
            activation,
            batch_norm_eps,
        )
        size = size.strided(STEM_STRIDE)
        stages = variant.stages()
        block_count = sum(len(stage) for stage in stages)
        self.stages = nn.ModuleList()
        block_index = 0
        for stage in stages:
            blocks = []
            for spec in stage:
                rate = drop_connect * block_index / block_count
                blocks.append(Block(spec, size, padding, activation, batch_norm_eps, rate))
                size = size.strided(spec.stride)
                block_index += 1
            self.stages.append(nn.Sequential(*blocks))
        # A stage is a feature map's last one when the next stage halves the resolution.
        strides = [stage[0].stride for stage in stages]
        self.feature_stages = [
            index for index in range(len(stages)) if strides[index + 1 : index + 2] != [1]
        ]
        if not features_only:
            self.head = ConvBnAct(
                PaddedConv2d(
                    stages[-1][-1].out_channels,
                    variant.head_channels,
                    1,
                    input_size=size,
                    padding=padding,
                ),
                activation,
                batch_norm_eps,
            )
            self.pool = pool_of(pooling)
            self.dropout = nn.Dropout(variant.dropout if dropout is None else dropout)
            self.classifier: nn.Module = (
                nn.Linear(variant.head_channels, num_classes) if num_classes else nn.Identity()
            )
        self.apply(_initialize)

    @property
    def output_size(self) -> int:
        """How many numbers `forward` gives a picture: classes, or the channels of the head."""
        classifier = self.classifier
        return (
            classifier.out_features
            if isinstance(classifier, nn.Linear)
            else self.variant.head_channels
        )

    @property
    def conventions(self) -> Conventions:
        """What its answers depend on beside the numbers of its tensors."""
        return Conventions(self.padding, self.batch_norm_eps, self.pooling, self.activation)

    def set_conventions(self, conventions: Conventions) -> None:
        """Compute as the code base did that weights loaded later come from."""
        self._remember(conventions)
        for module in self.modules():
            if isinstance(module, PaddedConv2d):
                module.set_padding(conventions.padding)
            if isinstance(module, nn.BatchNorm2d):
                module.eps = conventions.batch_norm_eps
            if isinstance(module, (ConvBnAct, SqueezeExcitation)):
                module.act = _activated_as(module.act, conventions.activation)
        if not self.features_only:
            self.pool = pool_of(conventions.pooling)

    def _remember(self, conventions: Conventions) -> None:
        self.padding = conventions.padding
        self.batch_norm_eps = conventions.batch_norm_eps
        self.pooling = conventions.pooling
        self.activation = conventions.activation

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters and statistics: a state dict less the entry that tells the conventions."""
        return {
            name: tensor for name, tensor in self.state_dict().items() if name != TELLING_TENSOR
        }

    def get_extra_state(self) -> Tensor:
        """Give the conventions to a state dict, as a tensor, since safetensors takes nothing else.

        It is neither a buffer, which training would move and average, nor a part of the graph.
        """
        return torch.tensor(list(self.conventions.as_bytes()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the conventions of a state dict; raises `CheckpointError` for what is none."""
        told = read_conventions(state)
        # What has not changed keeps its modules, which may have hooks.
        if told != self.conventions:
            self.set_conventions(told)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any, **more: Any
    ) -> None:
        """Let a state dict tell no conventions, as those before there was an entry for it."""
        state_dict.setdefault(f"{prefix}{TELLING_TENSOR}", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *others, **more)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        height, width = x.shape[-2:]
        made_for = self.resolution
        if self.padding != "symmetric" and (height, width) != (made_for.height, made_for.width):
            raise ValueError(
                f"the input is {height}×{width} px, but SAME padding was computed for "
                f"{made_for}: build the network with that resolution"
            )
        x = self.stem(x)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.feature_stages:
                features.append(x)
        if self.features_only:
            return features
        logits: Tensor = self.classifier(self.dropout(self.pool(self.head(x))))
        return logits


def _activated_as(module: nn.Module, activation: Activation) -> nn.Module:
    return module if isinstance(module, nn.Identity) else ACTIVATIONS[activation]()


def _initialize(module: nn.Module) -> None:
    """As the reference: fan-out normal for convolutions, uniform for the classifier."""
    if isinstance(module, nn.Conv2d):
        kernel_height, kernel_width = module.kernel_size
        fan_out = kernel_height * kernel_width * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)
