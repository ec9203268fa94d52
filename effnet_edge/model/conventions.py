"""What a network computes with and no number of its tensors tells."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, get_args

from effnet_edge.arguments import check_choice, number_between
from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.architecture import Activation, Pooling
from effnet_edge.model.variants import Padding

if TYPE_CHECKING:
    from torch import Tensor

TELLING_TENSOR = "_extra_state"
"""What PyTorch calls the entry of a state dict that is no parameter and no buffer."""

_LONGEST = 1024
_CHOICES = {
    "padding": get_args(Padding),
    "pooling": get_args(Pooling),
    "activation": get_args(Activation),
}


@dataclass(frozen=True)
class ToldConventions:
    """As far as somebody or something says them. What is None, they do not tell.

    Attributes:
        padding, batch_norm_eps, pooling, activation: as in `EfficientNet`.

    Raises:
        UsageError: a value that there is none such of.
    """

    padding: Padding | None = None
    batch_norm_eps: float | None = None
    pooling: Pooling | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        for name, value in self._given().items():
            if name in _CHOICES:
                check_choice(name, value, _CHOICES[name])
            else:
                object.__setattr__(self, name, number_between(name, value, 0, 1))

    def _given(self) -> dict[str, Any]:
        """By name, what is not left to something else."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, other: ToldConventions) -> ToldConventions:
        """These, and of the other what these do not tell."""
        return ToldConventions(**other._given() | self._given())


NOTHING_TOLD = ToldConventions()


@dataclass(frozen=True)
class Conventions(ToldConventions):
    """All of them."""

    padding: Padding
    batch_norm_eps: float
    pooling: Pooling
    activation: Activation

    def _given(self) -> dict[str, Any]:
        """All, so that None is refused."""
        return asdict(self)

    def where_told(self, told: ToldConventions) -> Conventions:
        """These, changed to what is told."""
        return Conventions(**asdict(self) | told._given())

    def as_bytes(self) -> bytes:
        """JSON that `read_conventions` reads."""
        return json.dumps(asdict(self)).encode()


def read_conventions(state: Tensor) -> Conventions:
    """Those that `as_bytes` wrote, one byte an element of the tensor.

    Training code averages and converts all tensors of a state dict alike, so that the elements may
    be floating-point numbers that are almost whole.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        if state.numel() > _LONGEST:
            raise ValueError("it is too long")
        numbers = state.flatten().double().round().tolist()
        return Conventions(**json.loads(bytes(map(int, numbers))))
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, UsageError):
        raise CheckpointError(
            f"{TELLING_TENSOR} is not what this version of effnet-edge writes there (padding, "
            "batch norm's epsilon, pooling and activation): take it out of the checkpoint, and say "
            "these where the network is built"
        ) from None
