"""The `config.json` that timm puts beside the weights on the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.preprocessing import PixelConventions
from effnet_edge.size import Size

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.model.variants import Padding
    from effnet_edge.pictures.fitting import Fit

CONFIG_NAME = "config.json"

_FITS: dict[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}


@dataclass(frozen=True)
class TimmConfig:
    """What it tells of a checkpoint that the tensors do not."""

    padding: Padding
    pixels: PixelConventions


def read_timm_config(checkpoint: Path) -> TimmConfig | None:
    """That beside the checkpoint; None where there is none, or another program's.

    timm calls what it ported from TensorFlow `tf_…`; that has SAME padding, the rest PyTorch's.
    Fields: https://huggingface.co/docs/timm, "Sharing and Loading Models From the Hugging Face
    Hub"; `test_input_size` and `test_crop_pct` are what accuracy was measured at.

    Raises:
        CheckpointError: it is timm's, and a value in it is not what it should be.
    """
    path = checkpoint.with_name(CONFIG_NAME)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("architecture"), str):
        return None
    config = document.get("pretrained_cfg", document)  # before timm 0.6 it was all one object
    try:
        pixels = _pixels(config)
    except (
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        UsageError,
    ) as error:
        raise CheckpointError(
            f"{path} is not as timm writes it ({error}): remove the file, and say "
            "how the weights were trained with --padding"
        ) from error
    is_ported = document["architecture"].startswith("tf_")
    return TimmConfig("same" if is_ported else "symmetric", pixels)


def _pixels(config: dict[str, Any]) -> PixelConventions:
    size = config.get("test_input_size") or config.get("input_size")
    crop = config.get("test_crop_pct") or config.get("crop_pct")
    crop_mode = config.get("crop_mode") or "center"
    if crop_mode not in _FITS:
        raise ValueError(f"crop_mode is {crop_mode!r}, not one of {', '.join(_FITS)}")
    interpolation = config.get("interpolation")
    if interpolation not in (None, "bicubic", "bilinear"):
        raise ValueError(f"interpolation is {interpolation!r}, not 'bicubic' or 'bilinear'")
    if crop is not None and not 0 < float(crop) <= 1:
        raise ValueError(f"crop_pct is {crop}, not above 0 and at most 1")
    return PixelConventions(
        resolution=None if size is None else _size(*size),
        crop_fraction=None if crop is None else float(crop),
        interpolation=interpolation,
        mean=_triple(config.get("mean")),
        std=_triple(config.get("std")),
        fit=_FITS[crop_mode],
    )


def _size(_channels: int, height: int, width: int) -> Size:
    """The last two of timm's (C, H, W)."""
    return Size(int(height), int(width))


def _triple(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    red, green, blue = (float(value) for value in values)
    return red, green, blue
