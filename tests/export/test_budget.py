"""A budget as a share of what INT8 loses without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conditioned_networks import save_conditioned
from exports_to_compare import SIDE, TINY
from PIL import Image

from effnet_edge.errors import GateError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.parity import Comparison, Gate, ParityResult
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.budget import loss_without_labels, share_of
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from pathlib import Path


def lost(output: str, of: float) -> ParityResult:
    """As INT8 loses it whose every number is `of` times the reference's, in part."""
    comparison = Comparison("torch", "int8", "FP32", "INT8", output)
    exact = [[4.0, 1.0], [1.0, 3.0], [0.5, 2.0], [2.5, 0.0]]
    comparison.update(exact, [[of * first, second] for first, second in exact], None)
    return comparison.result("4 pictures")


@pytest.mark.parametrize(
    ("output", "limit"),
    [("single-label", "max_kl"), ("multi-label", "max_kl"), ("regression", "max_nrmse")],
)
def test_a_share_is_of_the_loss_without_labels(output: str, limit: str) -> None:
    loss = lost(output, 0.9)
    whole = loss.value(limit.removeprefix("max_"))
    assert whole
    assert share_of(loss, 0.5) == Gate(**{limit: whole / 2})
    assert share_of(loss, 0.5).check(loss)
    assert not share_of(loss, 1.0).check(loss)


def test_only_features_have_none() -> None:
    assert [name for name in OUTPUT_NAMES if loss_without_labels(name) is None] == ["features"]


def test_what_is_no_number_has_no_share() -> None:
    with pytest.raises(GateError, match="is no number, and has no share"):
        share_of(lost("single-label", float("nan")), 0.5)


def test_a_drop_from_labels_of_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is right on none of them, so that INT8 could lose nothing."""
    monkeypatch.setitem(VARIANTS, TINY.name, TINY)
    checkpoint = save_conditioned(TINY.name, SIDE, tmp_path / "tiny.safetensors")
    asked = NetworkRequest(TINY.name, weights=str(checkpoint), num_classes=10, resolution=SIDE)
    source = load_source(asked)
    network = TorchClassifier(source.network, source.preprocessing)
    rows = ["path,class_index"]
    for pixels, _ in EmbeddedPhotos(40).batches(source.preprocessing, 40):
        for index, (picture, answer) in enumerate(zip(pixels, network.infer(pixels), strict=True)):
            Image.fromarray(picture).save(tmp_path / f"{index}.png")
            rows.append(f"{index}.png,{(answer.argmax() + 1) % 10}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    request = ExportRequest(
        asked,
        "onnxruntime",
        "int8",
        calibration=tmp_path / "list.csv",
        max_drop=1.0,
        output=tmp_path / "bundle",
    )

    with pytest.raises(UsageError, match=r"--max-drop: torch is right on \d of 40 pictures"):
        export_bundle(request)

    assert not (tmp_path / "bundle").exists()
