"""Hard-swishes whose fit is planted to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from effnet_calibration import activation_fitting

if TYPE_CHECKING:
    import pytest


def double_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fit give every channel twice what it should."""
    fitted = activation_fitting.fit_activations

    def doubled(*args: object) -> activation_fitting.FittedNumbers:
        found = fitted(*args)
        for name, numbers in found.activations.items():
            a, *others = torch.tensor(numbers).view(4, -1)
            found.activations[name] = tuple(torch.cat([2 * a, *others]).tolist())
        return found

    monkeypatch.setattr(activation_fitting, "fit_activations", doubled)
