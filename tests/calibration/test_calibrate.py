from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from tiny_networks import CLASSES, PREPROCESSING, SIDE, Smooth, normalized, random_network

from effnet_calibration.calibrate import calibrate
from effnet_calibration.errors import CalibrationError, CalibrationWarning
from effnet_calibration.image_sets import CalibrationPictures
from effnet_calibration.quantization import DEPTHWISE
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.table import CalibrationTable, difference
from effnet_calibration.work import Settings
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.sets import ImageSet
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from effnet_calibration.schemes import QuantizationScheme

FAST = Settings(correct_biases=False)
ASYMMETRIC = (ASYMMETRIC_UINT8,)


def folder_of(tmp_path: Path, pixels: np.ndarray, bad: int = 0) -> ImageSet:
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"good{index:02}.png")
    for index in range(bad):
        (tmp_path / f"bad{index:02}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    return ImageSet.from_folder(tmp_path)


@pytest.mark.sample
def test_the_set_is_recorded(table: CalibrationTable) -> None:
    assert table.images.source == "smooth fields"
    assert table.images.size == 40
    assert len(table.images.sha256) == 64
    assert table.tools["torch"] == torch.__version__


@pytest.mark.slow
def test_the_same_pictures_give_the_same_table(
    network: EfficientNet, table: CalibrationTable
) -> None:
    again = calibrate(network, Smooth(40), PREPROCESSING, (ASYMMETRIC_UINT8,), settings=FAST)
    assert again.images == table.images
    name = ASYMMETRIC_UINT8.name
    assert again.quantization(name) == table.quantization(name).uncorrected()


@pytest.mark.sample
def test_other_pictures_have_another_hash(table: CalibrationTable) -> None:
    other = CalibrationPictures(Smooth(40, seed=1), PREPROCESSING)
    assert sum(len(batch) for batch in other.batches()) == other.record().size == 40
    assert other.record().sha256 != table.images.sha256


def test_an_empty_set_is_refused(network: EfficientNet) -> None:
    with pytest.raises(CalibrationError, match="no pictures"):
        calibrate(network, Smooth(0), PREPROCESSING, ASYMMETRIC)


def test_pictures_of_one_colour_are_refused(network: EfficientNet) -> None:
    plain = Smooth(40)
    plain.pixels[:] = plain.pixels[:, :1, :1]
    with pytest.raises(CalibrationError, match="single colour"):
        calibrate(network, plain, PREPROCESSING, ASYMMETRIC)


def test_few_pictures_are_warned_of() -> None:
    with pytest.warns(CalibrationWarning, match="8 pictures"):
        list(CalibrationPictures(Smooth(8), PREPROCESSING).batches())


def test_an_unreadable_picture_is_skipped_told_and_listed(tmp_path: Path) -> None:
    pictures = folder_of(tmp_path, Smooth(12).pixels, bad=1)
    passing = CalibrationPictures(pictures, PREPROCESSING)
    with pytest.warns(CalibrationWarning) as told:
        assert sum(len(batch) for batch in passing.batches()) == 12
    lines = [str(each.message) for each in told]
    assert any("1 of the 13 pictures in" in each and "bad00.png" in each for each in lines)
    record = passing.record()
    assert record.size == 12
    assert len(record.skipped) == 1
    assert "bad00.png" in record.skipped[0]


def test_more_than_a_tenth_unreadable_is_refused(tmp_path: Path, network: EfficientNet) -> None:
    pictures = folder_of(tmp_path, Smooth(8).pixels, bad=2)
    with pytest.raises(CalibrationError, match=r"2 of the 10 pictures.*bad00\.png"):
        calibrate(network, pictures, PREPROCESSING, ASYMMETRIC)


def test_pictures_none_of_which_can_be_read_are_refused(
    tmp_path: Path, network: EfficientNet
) -> None:
    pictures = folder_of(tmp_path, Smooth(0).pixels, bad=3)
    with pytest.raises(CalibrationError, match="3 of the 3 pictures"):
        calibrate(network, pictures, PREPROCESSING, ASYMMETRIC)


def test_nan_weights_are_named(network: EfficientNet) -> None:
    broken = copy.deepcopy(network)
    broken.stages[3][1].project.conv.weight[0, 0] = float("nan")
    with pytest.raises(CalibrationError, match=r"NaN.*stages\.3\.1\.project\.conv\.weight"):
        calibrate(broken, Smooth(40), PREPROCESSING, ASYMMETRIC)


def test_a_network_with_batch_norms_is_refused() -> None:
    with pytest.raises(CalibrationError, match="not folded"):
        calibrate(
            EfficientNet(VARIANTS["b0"], resolution=SIDE), Smooth(40), PREPROCESSING, ASYMMETRIC
        )


def test_a_feature_extractor_is_refused() -> None:
    extractor = EfficientNet(VARIANTS["b0"], resolution=SIDE, features_only=True)
    with pytest.raises(CalibrationError, match="features-only"):
        calibrate(extractor, Smooth(40), PREPROCESSING, ASYMMETRIC)


@pytest.mark.slow
def test_dead_channels_and_zero_tensors_give_a_working_network() -> None:
    network = random_network()
    with torch.no_grad():
        dead = network.stages[2][0].expand.conv
        dead.weight[:50], dead.bias[:50] = 0, 0  # silu(0) is 0: dead channels
        for name in ("weight", "bias"):
            getattr(network.stages[4][1].expand.conv, name).zero_()  # all of a tensor is 0
            getattr(network.stages[5][1].depthwise.conv, name).zero_()
    schemes = (ASYMMETRIC_UINT8, SYMMETRIC_INT8)
    made = calibrate(network, Smooth(40), PREPROCESSING, schemes)
    batch = normalized(8, seed=4)
    with torch.no_grad():
        exact = network(batch)
        for scheme in schemes:
            quantized = apply(network, made, scheme).simulated()(batch)
            assert bool(torch.isfinite(quantized).all())
            assert float((quantized - exact).square().mean()) < float(exact.var())


@pytest.mark.slow
def test_progress_reaches_its_totals(network: EfficientNet) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert done >= seen.get(stage, (0, total))[0]
        seen[stage] = (done, total)

    calibrate(network, Smooth(40), PREPROCESSING, ASYMMETRIC, progress=progress)
    assert list(seen) == ["statistics", "ranges", "bias correction"]
    assert all(done == total for done, total in seen.values())


@pytest.mark.sample
def test_a_saved_table_comes_back_equal(tmp_path: Path, table: CalibrationTable) -> None:
    table.save(tmp_path / "table.json")
    assert CalibrationTable.load(tmp_path / "table.json") == table
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    assert difference(table, CalibrationTable.load(tmp_path / "table.json")) == []


@pytest.mark.sample
def test_a_table_of_the_time_of_squares_is_read(table: CalibrationTable) -> None:
    tree = json.loads(table.to_json())
    tree["model"]["resolution"] = tree["model"]["resolution"]["height"]
    tree["schema_version"] = 2
    assert CalibrationTable.from_json(json.dumps(tree)) == table
    with pytest.raises(CalibrationError, match="is damaged"):
        CalibrationTable.from_json(json.dumps(tree | {"model": []}))


@pytest.mark.sample
def test_a_table_that_tells_no_normalization_is_read(table: CalibrationTable) -> None:
    tree = json.loads(table.to_json())
    del tree["images"]["normalization"]
    tree["schema_version"] = 3
    old = CalibrationTable.from_json(json.dumps(tree))
    assert old == replace(table, images=replace(table.images, normalization=None))


@pytest.mark.sample
@pytest.mark.parametrize(("told", "other"), [("pooling", "max"), ("activation", "relu")])
def test_a_table_of_other_conventions_is_refused(
    network: EfficientNet, table: CalibrationTable, told: str, other: str
) -> None:
    """The weights are the same, and the values that pass are not."""
    changed = copy.deepcopy(network)
    changed.set_conventions(replace(changed.conventions, **{told: other}))
    own = getattr(network, told)
    with pytest.raises(CalibrationError, match=f"its {told} is {own}, the network's is {other}"):
        table.check_model(changed)
    tree = json.loads(table.to_json()) | {"schema_version": 4}
    del tree["model"]["pooling"], tree["model"]["activation"]
    CalibrationTable.from_json(json.dumps(tree)).check_model(changed)


@pytest.mark.sample
@pytest.mark.parametrize("scheme", [ASYMMETRIC_UINT8, SYMMETRIC_INT8], ids=lambda each: each.name)
@pytest.mark.parametrize("told", [True, False])
def test_a_table_of_other_numbers_for_the_same_pixels_is_refused(
    table: CalibrationTable, scheme: QuantizationScheme, told: bool
) -> None:
    """A table of before tells it of the schemes whose stem reads pixels."""
    images = table.images if told else replace(table.images, normalization=None)
    part = {scheme.name: table.quantization(scheme.name)}
    table = replace(table, images=images, quantizations=part)
    table.check_normalization(PREPROCESSING)
    other = replace(PREPROCESSING, mean=(0.5, 0.5, 0.5))
    if not told and scheme.symmetric:
        table.check_normalization(other)
    else:
        with pytest.raises(CalibrationError, match=r"normalized otherwise.*\(0\.5, 0\.5, 0\.5\)"):
            table.check_normalization(other)


@pytest.mark.sample
def test_a_table_whose_stem_reads_other_pixels_than_its_pictures_is_refused(
    table: CalibrationTable,
) -> None:
    tree = json.loads(table.to_json())
    pixels = tree["quantizations"][ASYMMETRIC_UINT8.name]["pixels"]
    pixels["mean"], pixels["std"] = [0.0, 0.0], [1.0, 1.0]
    with pytest.raises(CalibrationError, match=r"normalized otherwise.*\(0\.0, 0\.0\)"):
        CalibrationTable.from_json(json.dumps(tree)).check_normalization(PREPROCESSING)


@pytest.mark.sample
def test_a_table_of_another_height_or_width_is_refused(table: CalibrationTable) -> None:
    turned = EfficientNet(VARIANTS["b0"], resolution=Size(SIDE, 2 * SIDE), num_classes=CLASSES)
    with pytest.raises(
        CalibrationError, match=f"resolution is {SIDE}×{SIDE}, .* is {SIDE}×{2 * SIDE}"
    ):
        table.check_model(turned)


@pytest.mark.sample
def test_a_table_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, table: CalibrationTable
) -> None:
    with pytest.raises(CalibrationError, match="cannot be written"):
        table.save(tmp_path / "missing" / "table.json")


@pytest.mark.sample
def test_a_difference_names_what_changed(table: CalibrationTable) -> None:
    name = ASYMMETRIC_UINT8.name
    part = table.quantization(name)
    grid = replace(part.grids["head.conv"], scale=0.5)
    changed = part.gridded({**part.grids, "head.conv": grid})
    factors = part.changes(DEPTHWISE)
    first = "stages.0.0.depthwise.conv"
    doubled = tuple(2 * value for value in factors[first])  # type: ignore[union-attr]
    changed = changed.changing(DEPTHWISE, {**factors, first: doubled})
    other = replace(table, quantizations={**table.quantizations, name: changed})
    lines = difference(table, other)
    assert len(lines) == 2
    assert any("tensors.head.conv.scale" in line and "→ 0.5" in line for line in lines)
    assert any("depthwise.stages.0.0: changed by up to" in line for line in lines)


@pytest.mark.sample
def test_a_difference_of_kept_layers_names_them(table: CalibrationTable) -> None:
    name = ASYMMETRIC_UINT8.name
    kept = table.quantization(name).keeping(["head.conv", "classifier"])
    other = replace(table, quantizations={**table.quantizations, name: kept})
    assert difference(table, other) == [
        f"quantizations.{name}.kept: 0 values → classifier, head.conv"
    ]


@pytest.mark.sample
def test_a_scheme_that_the_table_lacks_is_named(table: CalibrationTable) -> None:
    only = replace(
        table, quantizations={ASYMMETRIC_UINT8.name: table.quantization(ASYMMETRIC_UINT8.name)}
    )
    with pytest.raises(CalibrationError, match=r"holds asymmetric-uint8, not symmetric-int8"):
        only.quantization(SYMMETRIC_INT8.name)


@pytest.mark.sample
def test_a_table_of_another_variant_is_refused(table: CalibrationTable) -> None:
    with pytest.raises(CalibrationError, match="its variant is b0, the network's is b1"):
        table.check_model(random_network("b1"))


def _set(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


@pytest.mark.sample
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("schema_version", value=1), "schema version 1; this effnet-edge reads 5"),
        (_set("schema_version", value=None), "schema version None"),
        (_set("surprise", value=1), "damaged"),
        (_set("images", "size", value="many"), "damaged"),
        (_set("images", "size", value=0), "is of 0 pictures"),
        (_set("model", value=[]), "damaged"),
        (
            _set("quantizations", "symmetric-int8", "tensors", "head.conv", "scale", value=0),
            r"the scale of head\.conv is 0",
        ),
        (
            _set("quantizations", "symmetric-int8", "tensors", "head.conv", "scale", value=1e-300),
            r"the scale of head\.conv is 1e-300",
        ),
        (
            _set("quantizations", "symmetric-int8", "tensors", "head.conv", "scale", value=1e39),
            r"1e\+39 is not a number that a table can hold",
        ),
        (
            _set("quantizations", "symmetric-int8", "biases", "head.conv", value=[10**39]),
            "is not a number that a table can hold",
        ),
        (_set("quantizations", "symmetric-int8", "logit_gain", value=-1), "logit_gain"),
        (
            _set("quantizations", "asymmetric-uint8", "pixels", "std", value=[0.2, 0.0, 0.2]),
            "a deviation of the pixels is not above 0",
        ),
        (_set("quantizations", "symmetric-int8", "scheme", value="int4"), "damaged"),
        (
            _set("quantizations", "symmetric-int8", "depthwise", "stages.0.0", value=[0.0]),
            "factor is not above 0",
        ),
        (
            _set("quantizations", "symmetric-int8", "stream", "0", value=[0.0]),
            "factor is not above 0",
        ),
    ],
)
def test_a_damaged_table_is_refused(
    table: CalibrationTable, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    tree = json.loads(table.to_json())
    change(tree)
    with pytest.raises(CalibrationError, match=message):
        CalibrationTable.from_json(json.dumps(tree))


@pytest.mark.sample
@pytest.mark.parametrize("zero_point", [256, -1])
def test_a_zero_point_outside_of_the_grid_is_refused(
    network: EfficientNet, table: CalibrationTable, zero_point: int
) -> None:
    tree = json.loads(table.to_json())
    name = ASYMMETRIC_UINT8.name
    tree["quantizations"][name]["tensors"]["head.conv"]["zero_point"] = zero_point
    damaged = CalibrationTable.from_json(json.dumps(tree))
    with pytest.raises(CalibrationError, match=f"is {zero_point}, outside of 0 to 255"):
        apply(network, damaged, ASYMMETRIC_UINT8)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema_version": NaN}', "\x00"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        CalibrationTable.from_json(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"gone\.json cannot be read: No such file"):
        CalibrationTable.load(tmp_path / "gone.json")
