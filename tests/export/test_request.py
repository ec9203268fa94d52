"""What an export cannot be asked for is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

B0 = NetworkRequest("b0")
FEATURES = NetworkRequest("b0", output_kind="features")
LABELS = NetworkRequest("b0", output_kind="multi-label")


@pytest.mark.parametrize(
    ("network", "options", "says"),
    [
        (FEATURES, {"labels": Path("names.txt")}, "--labels does not go with --features"),
        (FEATURES, {"precision": "int8", "max_kl": 0.1}, "--max-kl goes with classes"),
        (LABELS, {"precision": "int8", "max_drop": 1.0}, "use --max-kl"),
        (B0, {"max_drop": 1.0}, "--max-drop goes with --int8"),
        (B0, {"precision": "int8", "max_kl": -0.1}, "max_kl must be between 0"),
        (
            B0,
            {"precision": "int8", "max_kl": 0.1, "calibration": Path("table.json")},
            "--max-kl needs pictures.*to use table.json as it is",
        ),
        (B0, {"require_engine": True}, "--require-engine goes with tensorrt"),
        (B0, {"target": "onnxruntime", "precision": "fp16"}, "--fp16 with --target onnxruntime"),
        (B0, {"target": "tensorrt", "weight_bits": 7}, "--weight-bits 7 is for x86"),
    ],
)
def test_a_request_that_contradicts_itself_is_never_made(
    network: NetworkRequest, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ExportRequest(network, **{"target": "openvino", **options})


def test_a_table_that_was_made_for_openvino_is_taken_for_onnxruntime_as_it_is() -> None:
    made, taken = (
        ExportRequest(B0, target, "int8", calibration=Path("table.json"))
        for target in ("openvino", "onnxruntime")
    )
    assert made.scheme == taken.scheme
    assert made.settings.fitted_share
    assert not taken.settings.fitted_share
    with pytest.raises(UsageError, match="--fast-activations makes nothing faster on onnxruntime"):
        ExportRequest(B0, "onnxruntime", "int8", fast_activations=True)


def test_a_bundle_is_named_after_what_is_in_it() -> None:
    assert ExportRequest(NetworkRequest("B0"), "openvino").directory == Path("b0-openvino-fp16")
    assert ExportRequest(B0, "onnxruntime", "int8").directory == Path("b0-onnxruntime-int8")
    assert ExportRequest(B0, "openvino", output=Path("mine")).directory == Path("mine")


@pytest.mark.parametrize(
    ("target", "library", "extra"),
    [
        ("litert", "ai_edge_litert", "litert"),
        ("openvino", "openvino", "openvino"),
        ("onnxruntime", "onnxruntime", "onnxruntime"),
    ],
)
def test_a_missing_library_is_told_before_the_work(
    target: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    request = ExportRequest(network=NetworkRequest("b0"), target=target, output=tmp_path / "b0")
    begun: list[str] = []
    with pytest.raises(BackendError) as caught:
        export_bundle(request, begun.append)
    assert str(caught.value) == (
        f"--target {target} needs {library}, which is not installed: "
        f"pip install 'effnet-edge[{extra}]'"
    )
    assert not begun
