"""The files that tell servers what to serve, and so whose a repository is."""

from __future__ import annotations

TRITON_CONFIG = "config.pbtxt"
"""In the folder of each model."""

OVMS_CONFIG = "config.json"
"""Beside the models: one for all."""
