"""What a bundle's directory is called where nobody says."""

from __future__ import annotations

from pathlib import Path


def default_directory(variant: str, target: str, precision: str) -> Path:
    """In the working directory: `b0-openvino-fp16`."""
    return Path(f"{variant.lower()}-{target}-{precision}")
