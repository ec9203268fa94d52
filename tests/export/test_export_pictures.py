"""Which pictures an export is calibrated on and compared on."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from effnet_edge.errors import UsageError
from effnet_edge.labels import Label
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.pictures import GATE_PICTURES, ExportPictures
from effnet_export.request import ExportRequest


def photos(folder: Path, count: int) -> Path:
    (folder / "cat").mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / "cat" / f"{index:03}.png")
    return folder


def pictures(path: Path | None, size: int = 200, **options: object) -> ExportPictures:
    request = ExportRequest(
        NetworkRequest("b0"),
        **{"target": "openvino", "precision": "int8", **options},
        calibration=path,
        calibration_size=size,
    )
    return ExportPictures(request, [Label("cat", None)], 3)


@pytest.mark.parametrize(("size", "calibrated"), [(200, 44), (44, 44), (20, 20)])
def test_the_gates_see_pictures_that_nothing_was_calibrated_on(
    tmp_path: Path, size: int, calibrated: int
) -> None:
    folder = photos(tmp_path / "mine", 60)

    found = pictures(folder, size)

    held, used = found.for_gates(), found.calibrated_on
    assert isinstance(held, ImageSet)
    assert isinstance(used, ImageSet)
    assert (len(held), len(used)) == (GATE_PICTURES, calibrated)
    assert not set(held.paths) & set(used.paths)
    assert held.source == f"16 pictures held out of the 60 in {folder}"
    assert f"{folder} but for 16 held out" in used.source
    assert set(used.labels or ()) == {0}
    assert pictures(folder, size).for_gates() == held


def test_an_archive_is_calibrated_on_as_a_folder_is(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine", 60)
    with tarfile.open(tmp_path / "mine.tar", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.add(path, path.relative_to(folder))

    found, same = pictures(tmp_path / "mine.tar"), pictures(folder)

    used, expected = found.calibrated_on, same.calibrated_on
    assert isinstance(used, ImageSet)
    assert isinstance(expected, ImageSet)
    assert (used.labels, len(used)) == (expected.labels, 44)
    preprocessing = variant_preprocessing(VARIANTS["b0"], 8)
    for (pixels, _), (others, _) in zip(
        used.batches(preprocessing, 8), expected.batches(preprocessing, 8), strict=True
    ):
        assert (pixels == others).all()


def test_a_share_may_be_held_out_to_judge_on_and_the_gates_see_some_of_it(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine", 100)
    request = ExportRequest(NetworkRequest("b0"), "openvino", "int8", calibration=folder)

    found = ExportPictures(request, [Label("cat", None)], 3, held_out_share=0.25)

    held, gates, used = found.held_out(), found.for_gates(), found.calibrated_on
    assert isinstance(held, ImageSet)
    assert isinstance(gates, ImageSet)
    assert isinstance(used, ImageSet)
    assert (len(held), len(gates), len(used)) == (25, GATE_PICTURES, 75)
    assert set(gates.paths) < set(held.paths)
    assert not set(held.paths) & set(used.paths)
    assert set(held.labels or ()) == {0}


def test_what_is_held_out_is_what_the_gates_see_where_nothing_else_is_asked(
    tmp_path: Path,
) -> None:
    few, enough = pictures(photos(tmp_path / "a", 47)), pictures(photos(tmp_path / "b", 60))
    assert few.held_out() == few.for_gates()
    assert enough.held_out() == enough.for_gates()


def test_too_few_pictures_are_all_calibrated_on(tmp_path: Path) -> None:
    found = pictures(photos(tmp_path / "mine", 47))

    assert found.for_gates() == EmbeddedPhotos(GATE_PICTURES)
    assert isinstance(found.calibrated_on, ImageSet)
    assert len(found.calibrated_on) == 47


def test_fp16_is_typed_by_other_pictures_than_it_is_compared_on(tmp_path: Path) -> None:
    found = pictures(photos(tmp_path / "mine", 48), target="tensorrt", precision="fp16")

    held, typed = found.for_gates(), found.for_typing()
    assert isinstance(held, ImageSet)
    assert isinstance(typed, ImageSet)
    assert set(held.paths).isdisjoint(typed.paths)
    assert len({*held.paths, *typed.paths}) == 48


def test_a_picture_that_is_listed_twice_is_not_on_both_sides(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine", 48)
    rows = [f"mine/cat/{index:03}.png,0" for index in range(48)] * 2
    (tmp_path / "list.csv").write_text("\n".join(["path,class_index", *rows]))

    found = pictures(tmp_path / "list.csv")

    held, used = found.for_gates(), found.calibrated_on
    assert isinstance(held, ImageSet)
    assert isinstance(used, ImageSet)
    assert set(held.paths).isdisjoint(used.paths)
    assert folder.is_dir()


@pytest.mark.parametrize(("count", "held_out", "calibrated"), [(20, 0, 60), (48, 16, 96)])
def test_what_is_held_out_counts_pictures_and_not_the_rows_that_list_them(
    tmp_path: Path, count: int, held_out: int, calibrated: int
) -> None:
    photos(tmp_path / "mine", count)
    rows = [f"mine/cat/{index:03}.png,0" for index in range(count)] * 3
    (tmp_path / "list.csv").write_text("\n".join(["path,class_index", *rows]))

    found = pictures(tmp_path / "list.csv")

    held, used = found.held_out(), found.calibrated_on
    assert isinstance(used, ImageSet)
    assert len(used) == calibrated
    different = len(set(held.paths)) if isinstance(held, ImageSet) else 0
    assert different == held_out


@pytest.mark.parametrize(("different", "copies", "held_out"), [(60, 2, 16), (20, 3, 0)])
def test_a_copy_under_another_name_is_on_the_side_of_its_original(
    tmp_path: Path, different: int, copies: int, held_out: int
) -> None:
    folder = photos(tmp_path / "mine", different)
    for path in sorted((folder / "cat").iterdir()):
        for copy in range(1, copies):
            (folder / f"{path.stem}-{copy}.png").write_bytes(path.read_bytes())

    found = pictures(folder)

    held, used = found.held_out(), found.calibrated_on
    assert isinstance(used, ImageSet)
    paths = held.paths if isinstance(held, ImageSet) else ()
    own = {Path(str(path)).read_bytes() for path in paths}
    assert len(own) == held_out
    assert own.isdisjoint(Path(str(path)).read_bytes() for path in used.paths)


def test_a_list_needs_classes_for_a_limit_on_the_drop_alone(tmp_path: Path) -> None:
    photos(tmp_path / "mine", 3)
    rows = [f"mine/cat/{index:03}.png" for index in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["path", *rows]))

    used = pictures(tmp_path / "list.csv").calibrated_on

    assert isinstance(used, ImageSet)
    assert len(used) == 3
    with pytest.raises(UsageError, match=r"list\.csv does not tell: .* or use --max-kl"):
        pictures(tmp_path / "list.csv", max_drop=1.0)


def test_a_table_and_no_pictures_leave_the_embedded_ones(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    assert pictures(table).for_gates() == EmbeddedPhotos(GATE_PICTURES)
    assert pictures(table).calibrated_on == table
    assert pictures(None).for_gates() == EmbeddedPhotos(GATE_PICTURES)
    assert pictures(None).calibrated_on == EmbeddedPhotos(200)
