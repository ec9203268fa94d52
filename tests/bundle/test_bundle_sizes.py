"""Height and width in a manifest, and the manifests that only knew squares."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bundle_files import edit, refusal, write
from tiny_bundles import PREPROCESSING, SIDE

from effnet_edge.bundle import Bundle, InputSpec
from effnet_edge.pictures.fitting import FITS
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effnet_edge.pictures.fitting import Fit

WIDE = replace(PREPROCESSING, resolution=Size(192, 320))
WIDE_INPUT = InputSpec("pixels", "uint8", "NHWC", 192, 320, 3)


def as_version_2(document: dict[str, Any]) -> None:
    """What effnet-edge wrote before inputs could be rectangles."""
    document["schema_version"] = 2
    document["preprocessing"]["resolution"] = SIDE
    del document["preprocessing"]["fit"]
    for later in ("batch_norm_eps", "pooling", "activation"):
        del document[later]


@pytest.mark.parametrize("fit", FITS)
def test_a_rectangle_is_written_and_read_back(tmp_path: Path, fit: Fit) -> None:
    written = write(tmp_path / "b", preprocessing=replace(WIDE, fit=fit), input=WIDE_INPUT)
    assert Bundle.load(tmp_path / "b") == written
    document = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert document["preprocessing"]["resolution"] == {"height": 192, "width": 320}
    assert document["preprocessing"]["fit"] == fit


def test_a_manifest_of_the_time_of_squares_is_read(bundle: Path) -> None:
    new = Bundle.load(bundle)
    edit(bundle, as_version_2)
    assert Bundle.load(bundle) == new


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d["preprocessing"].update(resolution="8"), "preprocessing.resolution"),
        (lambda d: d["preprocessing"].update(resolution=0), "preprocessing.resolution"),
        (lambda d: d["preprocessing"].pop("resolution"), "preprocessing.resolution"),
        (lambda d: d["preprocessing"].pop("mean"), "preprocessing"),
        (lambda d: d.update(preprocessing=[]), "preprocessing"),
    ],
)
def test_what_is_wrong_with_an_old_manifest_is_named(
    bundle: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    edit(bundle, as_version_2)
    edit(bundle, change)
    assert what in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d["input"].update(height=320, width=192), "the preprocessing's resolution"),
        (lambda d: d["preprocessing"]["resolution"].pop("width"), "preprocessing.resolution"),
        (lambda d: d["preprocessing"]["resolution"].update(depth=1), "preprocessing.resolution"),
        (lambda d: d["preprocessing"].update(resolution=320), "preprocessing.resolution"),
        (lambda d: d["preprocessing"].update(fit="squash"), "preprocessing.fit"),
        (lambda d: d["preprocessing"].pop("fit"), "preprocessing"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    write(tmp_path / "b", preprocessing=WIDE, input=WIDE_INPUT)
    edit(tmp_path / "b", change)
    assert what in refusal(tmp_path / "b")
