"""`export --fast-activations`: what the bundle says of it, and what OpenVINO makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from doubled_fits import double_fits

from effnet_calibration.errors import CalibrationError
from effnet_calibration.quantization import ACTIVATIONS
from effnet_calibration.schemes import FLOATING_POINT
from effnet_calibration.table import CalibrationTable
from effnet_edge.errors import GateError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_export import tabulating
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.bundle import Bundle

B0 = NetworkRequest("b0", resolution=64)


def exported(
    output: Path, target: str = "openvino", precision: str = "int8", **options: object
) -> Bundle:
    return export_bundle(ExportRequest(B0, target, precision, output=output, **options)).bundle


def kl_in_fp32(bundle: Bundle) -> float | None:
    """Of what the engine computes on the pictures of the gates when it rounds nothing."""
    source = load_source(B0)
    reference = TorchClassifier(source.network, source.preprocessing)
    with EngineRunner.load(bundle.path, precision="fp32") as run:
        return compare(reference, run, EmbeddedPhotos(16), source.preprocessing).value("kl")


def test_a_network_without_silu_is_refused_before_it_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabulating, "calibrated", None)
    lite = NetworkRequest("lite0", weights="random", resolution=64)
    request = ExportRequest(
        lite, "openvino", "int8", fast_activations=True, output=tmp_path / "lite"
    )
    with pytest.raises(UsageError, match="lite0 has relu6 activations, and no SiLU to replace"):
        export_bundle(request)


@pytest.mark.slow
@pytest.mark.sample
def test_the_bundle_tells_what_is_replaced_and_openvino_fuses_it(tmp_path: Path) -> None:
    bundle = exported(tmp_path / "fast", calibration_size=40, fast_activations=True)

    calibration = bundle.manifest.calibration
    table = CalibrationTable.load(bundle.path / "calibration.json")
    told = table.quantization(calibration.scheme).changes(ACTIVATIONS)
    assert set(calibration.fast_activations) == set(told)
    assert calibration.fast_activations[0] == "stem.conv"
    assert len(told) == 22
    assert all(stage.holds for stage in bundle.manifest.parity)
    assert _nodes_of_their_own(bundle) == set()

    again = exported(tmp_path / "again", calibration=bundle.path / "calibration.json")

    assert again.manifest.files["model.bin"] == bundle.manifest.files["model.bin"]
    assert again.manifest.calibration == calibration


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), [("openvino", "fp16"), ("litert", "fp32")])
def test_a_bundle_in_floating_point_is_the_changed_network(
    target: str, precision: str, tmp_path: Path
) -> None:
    options = {"calibration_size": 40, "fast_activations": True}
    bundle = exported(tmp_path / "fast", target, precision, **options)

    manifest = bundle.manifest
    assert manifest.precision == precision
    assert manifest.calibration.scheme == FLOATING_POINT.name
    assert len(manifest.calibration.fast_activations) == 22
    assert manifest.calibration.kept == ()
    stages = {each.stage: each for each in manifest.parity}
    assert list(stages) == ["activations", "export", "simplify", "written", target]
    assert all(stage.holds for stage in stages.values())
    assert stages["export"].value("sqnr_db") > 80
    assert stages["written"].reference == stages["export"].reference
    assert stages[target].reference == stages["activations"].reference
    # What the hard-swishes lose is in the last row, too: in FP32 the engine adds nothing to it.
    if stages[target].execution_precision == "FP32":
        last = stages[target].value("kl")
    else:
        last = kl_in_fp32(bundle)
    assert last == pytest.approx(stages["activations"].value("kl"), rel=0.05)

    again = exported(
        tmp_path / "again", target, precision, calibration=bundle.path / "calibration.json"
    )

    assert again.manifest.files[manifest.model] == manifest.files[manifest.model]
    assert again.manifest.calibration == manifest.calibration
    with pytest.raises(CalibrationError, match="holds floating-point, not asymmetric-"):
        exported(tmp_path / "int8", calibration=bundle.path / "calibration.json")


@pytest.mark.slow
def test_litert_in_int8_replaces_the_widest_map_alone(tmp_path: Path) -> None:
    options = {"calibration_size": 64, "fast_activations": True}
    bundle = exported(tmp_path / "fast", "litert", "int8", **options)

    assert bundle.manifest.calibration.fast_activations == ("stages.1.0.expand.conv",)
    assert all(stage.holds for stage in bundle.manifest.parity)

    again = exported(
        tmp_path / "again", "litert", "int8", calibration=bundle.path / "calibration.json"
    )

    assert again.manifest.files["model.tflite"] == bundle.manifest.files["model.tflite"]
    assert again.manifest.calibration == bundle.manifest.calibration


@pytest.mark.slow
def test_what_the_hard_swishes_lose_has_a_limit_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that gives every channel twice what it should."""
    double_fits(monkeypatch)
    with pytest.raises(GateError, match="^activations changed .* or leave --fast-activations out$"):
        exported(tmp_path / "b", precision="fp32", calibration_size=8, fast_activations=True)
    assert list(tmp_path.iterdir()) == []


def _nodes_of_their_own(bundle: Bundle) -> set[str]:
    """Hard-swishes and SiLUs that OpenVINO's execution graph has beside its convolutions."""
    model = openvino_core().read_model(bundle.path / "model.xml")
    assert sum(node.get_type_name() == "HSwish" for node in model.get_ops()) == 22
    compiled = openvino_core().compile_model(model, "CPU")
    kinds = {
        node.get_rt_info()["layerType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    }
    return kinds & {"Eltwise", "HSwish", "Swish"}
