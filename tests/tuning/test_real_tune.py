"""A tune with real exports: what the candidates share changes nothing in any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from conditioned_networks import save_conditioned
from PIL import Image

from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle import Bundle
from effnet_edge.errors import UsageError
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.loading import load
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest
from effnet_export.tuning import candidates, run
from effnet_export.tuning.existing import request_like
from effnet_export.tuning.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
TINY = replace(VARIANTS["b0"], depth=0.1)
TRIED = ("fp16", "int8", "int8-budget-50")


def photos(folder: Path, count: int = 64) -> Path:
    """Crops like those that the network's batch norms were measured on."""
    folder.mkdir()
    preprocessing = variant_preprocessing(TINY, SIDE)
    ((crops, _),) = EmbeddedPhotos(count).batches(preprocessing, count)
    for index, pixels in enumerate(crops):
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.sample
def test_the_bundle_is_the_export_that_the_candidate_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS, TINY.name, TINY)
    rows = tuple(each for each in candidates.CANDIDATES if each.name in TRIED)
    monkeypatch.setattr(candidates, "CANDIDATES", rows)
    checkpoint = save_conditioned(TINY.name, SIDE, tmp_path / "tiny.safetensors")
    base = ExportRequest(
        NetworkRequest(TINY.name, weights=str(checkpoint), num_classes=10, resolution=SIDE),
        "openvino",
        "int8",
        calibration=photos(tmp_path / "photos"),
        output=tmp_path / "tuned",
    )

    tuned = run.tune(base, Limits())

    assert [each.name for each in tuned.tried] == list(TRIED)
    assert {each.name for each, *_ in tuned.measured} >= {"fp16", "int8"}
    assert tuned.chosen is not None
    assert tuned.chosen.name == "int8"
    assert len({len(measured.seconds) for *_, measured in tuned.measured}) == 1
    losses = {each.name: loss.value("kl") for each, loss, _ in tuned.measured}
    assert losses["fp16"] < losses["int8"]
    bundle = Bundle.load(tmp_path / "tuned")
    assert all(stage.holds for stage in bundle.manifest.parity)

    monkeypatch.setattr(candidates, "CANDIDATES", (rows[0],))
    photos_given, again = tmp_path / "photos", tmp_path / "again"
    like = request_like(bundle, None, photos_given, base.calibration_size, again)
    from_bundle = run.tune(like, Limits(), existing=bundle)
    assert [each.name for each in from_bundle.tried] == ["bundle", "fp16"]
    own, fp16 = (loss.value("kl") for _, loss, _ in from_bundle.measured)
    assert own == pytest.approx(losses["int8"], rel=1e-3)
    assert fp16 == pytest.approx(losses["fp16"], rel=1e-3)
    assert from_bundle.limits.loss.limits == {"max_kl": own}
    assert from_bundle.chosen is not None
    other = replace(like, network=replace(like.network, weights="random"))
    with pytest.raises(UsageError, match="random is not the checkpoint that the bundle was made"):
        run.tune(other, Limits(), existing=bundle)

    alone = export_bundle(
        replace(base, output=tmp_path / "alone"), loaded=load(base, held_out_share=0.25)
    ).bundle
    assert alone.manifest.files["model.bin"] == bundle.manifest.files["model.bin"]
    assert CalibrationTable.of_bundle(alone) == CalibrationTable.of_bundle(bundle)
