"""Poolings: what makes one number of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_edge.model.architecture import Pooling


class GlobalAveragePool(nn.Module):
    """Mean over height and width: (N, C, H, W) → (N, C), or (N, C, 1, 1) with `keepdim`.

    nn.AdaptiveAvgPool2d and flatten would export shape arithmetic for a dynamic batch.
    """

    def __init__(self, *, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


class GlobalMaxPool(nn.Module):
    """Maximum over height and width: (N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


class GlobalAverageMaxPool(nn.Module):
    """The mean of both, as timm's `avgmax`: (N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3)) + x.amax((2, 3))) * 0.5


def pool_of(pooling: Pooling) -> nn.Module:
    """What stands between the head and the classifier."""
    makers: dict[Pooling, Callable[[], nn.Module]] = {
        "avg": lambda: GlobalAveragePool(keepdim=False),
        "max": GlobalMaxPool,
        "avgmax": GlobalAverageMaxPool,
    }
    return makers[pooling]()
