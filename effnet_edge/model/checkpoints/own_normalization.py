"""A mean and a deviation that a network keeps among its tensors, held against an export's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.belonging import statistic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# Pixels may be numbers of 0 to 1 or of 0 to 255 where they are subtracted from.
_LARGEST_PIXELS = (1.0, 255.0)
_TOLERANCE = 1e-3


def check_own_normalization(
    origin: str,
    tensors: Mapping[str, Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Hold what a network normalizes with by itself against what is exported.

    Args:
        origin: what errors call the checkpoint.
        tensors: those that are named as a mean or a deviation, by name.
        mean, std: of the export, in units of pixel / 255.

    Raises:
        CheckpointError: they are others; the text names them.
    """
    exported = {"mean": mean, "std": std}
    for largest in _LARGEST_PIXELS:
        if all(
            _is_close(tensor, largest, exported[statistic(name) or "mean"])
            for name, tensor in tensors.items()
        ):
            return
    raise CheckpointError(
        f"{origin}: the network normalizes its input by itself ({_told(tensors)}), and otherwise "
        f"than the export would ({_numbers(mean)} and {_numbers(std)}): give what pixels go "
        "through in all with --mean and --std, in units of pixel / 255"
    )


def leave_out_own_normalization(origin: str, tensors: Mapping[str, Tensor]) -> None:
    """Warn that pictures have to be normalized by whoever runs the network."""
    if tensors:
        told = (
            f"{origin}: left out: what the network normalizes its input with ({_told(tensors)}): "
            "give it pictures that are normalized"
        )
        warnings.warn(told, CheckpointWarning, stacklevel=2)


def _told(tensors: Mapping[str, Tensor]) -> str:
    return "; ".join(f"{name} = {_numbers(tensor.flatten())}" for name, tensor in tensors.items())


def _is_close(tensor: Tensor, largest: float, values: tuple[float, ...]) -> bool:
    """Whether they are the same as far as the tensor's own type has digits."""
    found = tensor.double().flatten() / largest
    expected = torch.tensor(values, dtype=torch.float64)
    rounded = torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0
    tolerance = max(_TOLERANCE, rounded)
    return torch.allclose(found.expand_as(expected), expected, rtol=tolerance, atol=0)


def _numbers(values: Tensor | tuple[float, ...]) -> str:
    return ",".join(f"{float(each):.4g}" for each in values)
