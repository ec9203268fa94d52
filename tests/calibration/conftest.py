from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from once import made_once
from tiny_networks import PREPROCESSING, QUICK_SCHEMES, Smooth, random_network

from effnet_calibration.calibrate import calibrate
from effnet_calibration.schemes import SCHEMES
from effnet_calibration.table import CalibrationTable

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.model.network import EfficientNet


@pytest.fixture(scope="session")
def network() -> EfficientNet:
    """Not to be changed by a test."""
    return random_network()


@pytest.fixture(scope="session")
def table(
    network: EfficientNet,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> CalibrationTable:
    """Of all schemes, or for the quick tests of two: each takes several seconds."""
    is_quick = not (pytestconfig.getoption("--slow") or pytestconfig.getoption("--sample"))
    schemes = QUICK_SCHEMES if is_quick else SCHEMES.values()

    def write(folder: Path) -> None:
        made = calibrate(network, Smooth(40), PREPROCESSING, tuple(schemes))
        (folder / "table.json").write_text(made.to_json())

    path = made_once(tmp_path_factory, "calibration-table", write, "table.json")
    return CalibrationTable.from_json(path.read_text())
