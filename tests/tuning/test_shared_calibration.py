"""Exports that share a calibration read the pictures once, and make each table once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from effnet_calibration.schemes import ASYMMETRIC_UINT8, ASYMMETRIC_UINT8_W7
from effnet_calibration.work import Settings
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export import calibration
from effnet_export.calibration import SharedCalibration, calibrated

if TYPE_CHECKING:
    from effnet_calibration.schemes import QuantizationScheme

NETWORK = SimpleNamespace(activation="silu", variant=SimpleNamespace(name="b0"))
FAST = Settings(fitted_share=0.9)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was made of the pictures, in order."""
    found: list[object] = []

    def observe(*_: object) -> SimpleNamespace:
        found.append("observed")
        return SimpleNamespace()

    def tabulate(
        _: object, schemes: tuple[QuantizationScheme, ...], settings: Settings, *__: object
    ) -> SimpleNamespace:
        found.append((schemes, settings))
        return SimpleNamespace(schemes=schemes, settings=settings)

    monkeypatch.setattr(calibration, "observe", observe)
    monkeypatch.setattr(calibration, "tabulate", tabulate)
    return found


def table(
    shared: SharedCalibration | None, scheme: QuantizationScheme, settings: Settings
) -> object:
    found = calibrated(NETWORK, EmbeddedPhotos(8), None, scheme, settings, shared=shared)  # type: ignore[arg-type]
    return found.table


def test_each_table_is_made_once_from_what_was_observed(made: list[object]) -> None:
    shared = SharedCalibration(SimpleNamespace())  # type: ignore[arg-type]
    asked = [
        (ASYMMETRIC_UINT8, Settings()),
        (ASYMMETRIC_UINT8, FAST),
        (ASYMMETRIC_UINT8_W7, Settings()),
    ]
    first = [table(shared, *each) for each in asked]
    again = [table(shared, *each) for each in asked]

    assert all(one is other for one, other in zip(first, again, strict=True))
    assert made == [((scheme,), settings) for scheme, settings in asked]


def test_without_sharing_every_export_reads_the_pictures(made: list[object]) -> None:
    one = table(None, ASYMMETRIC_UINT8, FAST)
    other = table(None, ASYMMETRIC_UINT8, FAST)

    assert one is not other
    assert made == ["observed", ((ASYMMETRIC_UINT8,), FAST)] * 2
