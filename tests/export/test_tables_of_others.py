"""A table that is named for an export is held to the network and the pixels of that export."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tiny_bundles import PREPROCESSING

from effnet_calibration.errors import CalibrationError
from effnet_calibration.quantization import PixelNormalization
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.table import CalibrationSet, CalibrationTable, identify
from effnet_calibration.work import DEFAULT_SETTINGS
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_export.calibration import calibrated

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def network() -> EfficientNet:
    return fold_batch_norm(EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32))


@pytest.fixture
def path(tmp_path: Path, network: EfficientNet) -> Path:
    pixels = PixelNormalization.of(PREPROCESSING)
    images = CalibrationSet("photos", 1, "0" * 64, normalization=pixels)
    table = CalibrationTable(identify(network), images, {}, {}, {})
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def test_its_own_network_is_given_it(network: EfficientNet, path: Path) -> None:
    found = calibrated(network, path, PREPROCESSING, ASYMMETRIC_UINT8, DEFAULT_SETTINGS)
    assert found.table == CalibrationTable.load(path)


def test_other_weights_are_refused(network: EfficientNet, path: Path) -> None:
    with torch.no_grad():
        network.classifier.bias[0] += 1
    with pytest.raises(CalibrationError, match="made from other weights"):
        calibrated(network, path, PREPROCESSING, ASYMMETRIC_UINT8, DEFAULT_SETTINGS)


def test_pixels_that_are_normalized_otherwise_are_refused(
    network: EfficientNet, path: Path
) -> None:
    other = replace(PREPROCESSING, std=(0.5, 0.5, 0.5))
    with pytest.raises(CalibrationError, match="normalized otherwise"):
        calibrated(network, path, other, ASYMMETRIC_UINT8, DEFAULT_SETTINGS)
