from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_networks import PREPROCESSING, Smooth, random_network

from effnet_calibration.calibrate import calibrate
from effnet_calibration.schemes import SCHEMES

if TYPE_CHECKING:
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet


@pytest.fixture(scope="session")
def network() -> EfficientNet:
    """Not to be changed by a test."""
    return random_network()


@pytest.fixture(scope="session")
def table(network: EfficientNet) -> CalibrationTable:
    return calibrate(network, Smooth(40), PREPROCESSING, tuple(SCHEMES.values()))
