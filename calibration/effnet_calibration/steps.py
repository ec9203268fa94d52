"""The steps of the quantization, in their order. A new one is its own module and a word here."""

from __future__ import annotations

from effnet_calibration import (
    activation_fitting,
    bias_correction,
    grids,
    kept_depthwise,
    last_blocks,
    output_grids,
    pixel_input,
    refitting,
)

STEPS = (
    pixel_input.STEP,
    activation_fitting.STEP,
    last_blocks.STEP,
    kept_depthwise.STEP,
    grids.STEP,
    output_grids.STEP,
    refitting.STEP,
    bias_correction.STEP,
)

CHANGES = {name: make for step in STEPS for name, make in step.changes.items()}
"""Every change of the network that a table may hold, in the order in which they are made."""
