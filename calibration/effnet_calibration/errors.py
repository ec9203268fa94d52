"""What can go wrong between a set of pictures and a calibration table."""

from __future__ import annotations

from effnet_edge.errors import EffnetEdgeError, EffnetEdgeWarning


class CalibrationError(EffnetEdgeError):
    """The pictures, the network or the table cannot be calibrated with; the text says which."""


class CalibrationWarning(EffnetEdgeWarning):
    """The result may be poorer than it could be; the text says why and what would help."""
