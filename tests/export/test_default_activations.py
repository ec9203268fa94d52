"""INT8 as it is made where nobody says what shall become of the SiLUs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest
from conditioned_networks import save_conditioned
from doubled_fits import double_fits
from exports_to_compare import SIDE, TINY

from effnet_edge.errors import UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.targets import TARGETS
from effnet_export.pipeline import ExportResult, export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Export: TypeAlias = "Callable[..., ExportResult]"
RELU = replace(VARIANTS["lite0"], depth=0.1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    """Export a tiny network in INT8 with these options, into a folder of that name."""
    folder = tmp_path_factory.mktemp("default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, TINY.name, TINY)
        patch.setitem(VARIANTS, RELU.name, RELU)

        def exported(name: str, variant: str = TINY.name, **options: object) -> ExportResult:
            checkpoint = save_conditioned(variant, SIDE, folder / f"{name}.safetensors")
            network = NetworkRequest(
                variant, weights=str(checkpoint), num_classes=10, resolution=SIDE
            )
            return export_bundle(
                ExportRequest(
                    network,
                    "openvino",
                    "int8",
                    calibration_size=32,
                    output=folder / name,
                    **options,
                )
            )

        yield exported


@pytest.fixture(scope="module")
def exact(export: Export) -> ExportResult:
    return export("exact", fast_activations=False)


def replaced(result: ExportResult) -> tuple[str, ...]:
    calibration = result.bundle.manifest.calibration
    assert calibration is not None
    return calibration.fast_activations


def model(result: ExportResult) -> tuple[object, ...]:
    files = result.bundle.manifest.files
    return files["model.bin"], files["calibration.json"]


def test_the_targets_that_gain_by_it_replace_some() -> None:
    network = NetworkRequest("b0")
    shares = {name: ExportRequest(network, name, "int8").settings.fitted_share for name in TARGETS}
    assert {name for name, share in shares.items() if share} == {"openvino", "litert"}
    assert shares["openvino"] == 0.9
    assert all(ExportRequest(network, name, "fp32").settings.fitted_share == 0 for name in TARGETS)


@pytest.mark.sample
def test_the_default_replaces_the_first_silus(export: Export, exact: ExportResult) -> None:
    found = export("plain")

    assert replaced(found)[0] == "stem.conv"
    assert found.tabulated is not None
    assert found.tabulated.too_far == ()
    assert all(stage.holds for stage in found.bundle.manifest.parity)
    assert replaced(exact) == ()
    assert model(found) != model(exact)


@pytest.mark.sample
def test_every_silu_stays_where_hard_swishes_lose_too_much(
    export: Export, exact: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    double_fits(monkeypatch)
    found = export("too-far")

    assert found.tabulated is not None
    assert "SQNR" in found.tabulated.too_far[0]
    assert "below the 18.00 dB asked for" in found.tabulated.too_far[0]
    assert replaced(found) == ()
    assert model(found) == model(exact)


@pytest.mark.sample
def test_a_budget_takes_them_where_it_holds_with_them(export: Export) -> None:
    wide = export("wide", max_kl=0.5)

    assert replaced(wide)
    assert wide.mixed is not None
    assert not wide.mixed.keeps_more
    assert wide.mixed.start.loss.kl
    narrow = export("narrow", max_kl=wide.mixed.start.loss.kl / 2)
    assert replaced(narrow) == ()
    assert narrow.tabulated is not None
    assert "KL divergence" in narrow.tabulated.too_far[0]


@pytest.mark.sample
def test_a_share_is_of_what_is_lost_without_it_on_the_same_pictures(export: Export) -> None:
    default = export("without", max_kl=0.5)
    whole = export("whole", loss_share=1.0)
    half = export("half", loss_share=0.5)

    assert default.mixed is not None
    assert whole.mixed is not None
    assert half.mixed is not None
    assert model(whole) == model(default)
    lost, left = default.mixed.start.loss.kl, half.mixed.best.loss.kl
    assert lost
    assert left
    assert left <= lost / 2
    assert replaced(half) == ()


@pytest.mark.sample
def test_a_network_without_silu_has_none_to_replace(export: Export) -> None:
    found = export("relu", RELU.name)

    assert found.tabulated is not None
    assert found.tabulated.too_far == ()
    assert replaced(found) == ()
    with pytest.raises(UsageError, match="relu6 activations, and no SiLU to replace"):
        export("relu-fast", RELU.name, fast_activations=True)
