"""A module whose output is rounded to a grid, and the same without the rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from effnet_calibration.schemes import TensorQuantization

_GRID = "output_grid"


def round_output(module: nn.Module, grid: TensorQuantization) -> None:
    """Let a module give what the integers of a grid stand for, in place."""
    setattr(module, _GRID, grid)
    module.register_forward_hook(lambda _, __, output: grid.fake_quantize(output))


def not_rounded(module: nn.Module, value: Tensor) -> Tensor:
    """What the module gives before its output is rounded."""
    run = module.forward if hasattr(module, _GRID) else module
    return cast("Tensor", run(value))


def rounded(module: nn.Module, output: Tensor) -> Tensor:
    """What the module makes of its own output: the nearest values on its grid, if it has one."""
    grid: TensorQuantization | None = getattr(module, _GRID, None)
    return output if grid is None else grid.fake_quantize(output)
