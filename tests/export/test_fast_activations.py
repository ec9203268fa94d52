"""`export --fast-activations`: what the bundle says of it, and what OpenVINO makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openvino
import pytest

from effnet_calibration.quantization import ACTIVATIONS
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.table import CalibrationTable
from effnet_calibration.work import Settings
from effnet_edge.errors import UsageError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.calibration import calibrated
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.bundle import Bundle

B0 = NetworkRequest("b0", resolution=64)


def exported(output: Path, **options: object) -> Bundle:
    return export_bundle(ExportRequest(B0, "openvino", "int8", output=output, **options)).bundle


def test_a_network_without_silu_is_refused_before_it_is_calibrated() -> None:
    lite = fold_batch_norm(EfficientNet(VARIANTS["lite0"], resolution=64, num_classes=3))
    with pytest.raises(UsageError, match="lite0 has relu6 activations, and no SiLU to replace"):
        calibrated(
            lite,
            EmbeddedPhotos(8),
            variant_preprocessing(VARIANTS["lite0"], 64),
            ASYMMETRIC_UINT8,
            Settings(fitted_share=0.9),
        )


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


def _nodes_of_their_own(bundle: Bundle) -> set[str]:
    """Hard-swishes and SiLUs that OpenVINO's execution graph has beside its convolutions."""
    model = openvino.Core().read_model(bundle.path / "model.xml")
    assert sum(node.get_type_name() == "HSwish" for node in model.get_ops()) == 22
    compiled = openvino.compile_model(model, "CPU")
    kinds = {
        node.get_rt_info()["layerType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    }
    return kinds & {"Eltwise", "HSwish", "Swish"}
