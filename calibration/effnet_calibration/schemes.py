"""How activations become integers: what a backend asks for, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from effnet_calibration.errors import CalibrationError
from effnet_edge.bundle.proof import SEVEN_BIT_SCHEME

if TYPE_CHECKING:
    from torch import Tensor


# Below it, a scale's reciprocal is no float32 number that can be trusted.
SMALLEST_SCALE = 1e-20


@dataclass(frozen=True)
class TensorQuantization:
    """The grid of one tensor: real value = (integer − zero_point) · scale.

    `scale` is above 0; `zero_point`, `minimum` and `maximum` are integers, and real 0 is on the
    grid: minimum ≤ zero_point ≤ maximum.
    """

    scale: float
    zero_point: int
    minimum: int
    maximum: int

    def quantize(self, values: Tensor) -> Tensor:
        """Integers, as floats of the same shape: clamp(round(x / scale) + zero_point)."""
        integers = torch.mul(values, 1 / self.scale).round_().add_(self.zero_point)
        return integers.clamp_(self.minimum, self.maximum)

    def fake_quantize(self, values: Tensor) -> Tensor:
        """The nearest values on the grid: any shape, float32."""
        return self.quantize(values).sub_(self.zero_point).mul_(self.scale)


@dataclass(frozen=True)
class QuantizationScheme:
    """An integer type and whether its zero point may move.

    `minimum` and `maximum` are the integers of the type. A symmetric scheme has zero point 0.
    `quantizes_gates` tells whether the squeeze-excitation's two layers are quantized, too: TensorRT
    fuses the gate as a whole where no pair is inside. `quantizes_depthwise` tells it of depthwise
    convolutions: TensorRT-RTX has no INT8 kernel for them. `quantizes_last_projection` tells it of
    the last block's projection: on B0 that one tensor costs as much as all others together once
    depthwise convolutions are in 16 bit. `projection_scale` is the scale of every
    projection's input, where all shall have the same: TensorRT-RTX then stores one kernel for all
    blocks of a shape. docs/tensorrt.md tells how much both save. `weight_limit` is the largest
    integer of a weight. `rounds_outputs` tells whether the engine rounds what every operator gives,
    and not just what convolutions read. `quantizes_classifier` tells it of the last layer, whose
    outputs would be rounded, too. `rounds` tells whether anything is: without
    integers a table holds what its steps change in a network that stays in floating point.
    """

    name: str
    minimum: int
    maximum: int
    symmetric: bool
    quantizes_gates: bool = True
    quantizes_depthwise: bool = True
    quantizes_last_projection: bool = True
    projection_scale: float | None = None
    weight_limit: int = 127
    rounds_outputs: bool = False
    quantizes_classifier: bool = True
    rounds: bool = True

    @property
    def dtype(self) -> str:
        """The integer type by its ONNX and numpy name: "uint8" or "int8"."""
        return "int8" if self.minimum < 0 else "uint8"

    @property
    def quantizes_stem(self) -> bool:
        """Whether the stem reads integers: no grid with zero point 0 holds pixels and padding."""
        return not self.symmetric

    @property
    def levels(self) -> int:
        """Steps between the smallest and the largest integer."""
        return self.maximum - self.minimum

    @property
    def middle(self) -> int:
        """The integer with as many below it as from it on: 0 of int8, 128 of uint8."""
        return self.minimum + (self.levels + 1) // 2

    def on_grid(self, scale: float, zero_point: int) -> TensorQuantization:
        """The grid of this type with that scale and zero point.

        Raises:
            CalibrationError: the zero point is none of its integers.
        """
        if not self.minimum <= zero_point <= self.maximum:
            raise CalibrationError(
                f"the calibration table is damaged: a zero point of {self.name} is {zero_point}, "
                f"outside of {self.minimum} to {self.maximum}"
            )
        return TensorQuantization(scale, zero_point, self.minimum, self.maximum)


ASYMMETRIC_UINT8 = QuantizationScheme("asymmetric-uint8", 0, 255, symmetric=False)
# x86 without VNNI adds two products of bytes in saturating 16 bit: 2·255·64 is the most that fits.
ASYMMETRIC_UINT8_W7 = replace(ASYMMETRIC_UINT8, name=SEVEN_BIT_SCHEME, weight_limit=64)
SYMMETRIC_INT8 = QuantizationScheme(
    "symmetric-int8", -128, 127, symmetric=True, quantizes_gates=False
)
SYMMETRIC_INT8_DENSE = replace(
    SYMMETRIC_INT8,
    name="symmetric-int8-dense",
    quantizes_depthwise=False,
    quantizes_last_projection=False,
    # A power of two, which is exact in FP16; the grid then reaches from −8 to 8.
    projection_scale=2**-4,
)
ASYMMETRIC_INT8_OUTPUTS = QuantizationScheme(
    "asymmetric-int8-outputs",
    -128,
    127,
    symmetric=False,
    quantizes_gates=False,
    quantizes_last_projection=False,
    rounds_outputs=True,
    quantizes_classifier=False,
)
FLOATING_POINT = QuantizationScheme("floating-point", 0, 0, symmetric=False, rounds=False)

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        ASYMMETRIC_UINT8,
        ASYMMETRIC_UINT8_W7,
        SYMMETRIC_INT8,
        SYMMETRIC_INT8_DENSE,
        ASYMMETRIC_INT8_OUTPUTS,
    )
}
"""Those with integers."""


def get_scheme(name: str) -> QuantizationScheme:
    """The scheme called `name`; raises `CalibrationError` for an unknown one."""
    if name == FLOATING_POINT.name:
        return FLOATING_POINT
    try:
        return SCHEMES[name]
    except KeyError:
        raise CalibrationError(
            f"unknown quantization scheme '{name}': choose one of {', '.join(SCHEMES)}"
        ) from None
