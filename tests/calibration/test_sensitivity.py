from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_networks import normalized, random_network

from effnet_calibration.bias_correction import correct_biases
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantized import apply_quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.sensitivity import LayerCost, sensitivity
from effnet_calibration.sensitivity_plot import cumulative_shares, plot_sensitivity
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.measures.metrics import kl_divergence
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.sensitivity import named_place

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet

BATCHES = [normalized(8), normalized(8, seed=1)]


@pytest.fixture(scope="module")
def costs(network: EfficientNet, table: CalibrationTable) -> list[LayerCost]:
    return sensitivity(network, table.quantization(SYMMETRIC_INT8.name), BATCHES)


def test_every_quantized_layer_has_a_cost_costliest_first(
    network: EfficientNet, table: CalibrationTable, costs: list[LayerCost]
) -> None:
    assert {cost.name for cost in costs} == set(NetworkPath.of(network).names)
    assert [cost.divergence for cost in costs] == sorted(
        (cost.divergence for cost in costs), reverse=True
    )
    in_order = sorted(costs, key=lambda cost: cost.depth)
    assert [cost.name for cost in in_order] == NetworkPath.of(network).names
    entries = table.quantization(SYMMETRIC_INT8.name).grids
    for cost in in_order[1:]:
        assert (cost.rule, cost.snr_db) == (entries[cost.name].rule, entries[cost.name].snr_db)
    assert (in_order[0].kind, in_order[0].rule) == ("stem", None)


def test_the_layer_with_a_planted_bad_grid_is_the_costliest(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    name = "stages.4.1.project.conv"
    coarse = replace(part.grids[name], scale=part.grids[name].scale * 1000)
    broken = part.gridded({**part.grids, name: coarse})

    costliest = sensitivity(network, broken, BATCHES)[0]

    assert (costliest.name, costliest.kind) == (name, "project")


@pytest.mark.parametrize(
    "name", ["stem.conv", "stages.5.1.depthwise.conv", "head.conv", "classifier"]
)
def test_a_cost_is_that_of_quantizing_the_layer_alone_with_its_bias_corrected(
    network: EfficientNet, table: CalibrationTable, costs: list[LayerCost], name: str
) -> None:
    part = table.quantization(SYMMETRIC_INT8.name).uncorrected()
    others = set(NetworkPath.of(network).names) - {name}
    alone = apply_quantization(network, part.keeping(others)).simulated()
    found = correct_biases(ExactOutputs.of(network, BATCHES), alone)
    for other in others & set(
        found.biases
    ):  # only the quantized layer's own bias may make up for it
        module = alone.get_submodule(other)
        bias = module.bias
        module.bias = torch.nn.Parameter(bias - found.biases[other], requires_grad=False)
    pictures = torch.cat(BATCHES)
    with torch.no_grad():
        direct = kl_divergence(network(pictures), alone(pictures))

    (cost,) = [each.divergence for each in costs if each.name == name]
    assert cost == pytest.approx(direct, rel=0.05, abs=1e-7)


def test_kept_layers_have_no_cost(network: EfficientNet, table: CalibrationTable) -> None:
    kept = ("stages.6.0.project.conv", "stem.conv")
    part = table.quantization(ASYMMETRIC_UINT8.name).keeping(kept)
    names = {cost.name for cost in sensitivity(network, part, BATCHES[:1])}
    assert names == set(NetworkPath.of(network).names) - set(kept)


def test_measuring_changes_nothing(network: EfficientNet, table: CalibrationTable) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sensitivity(network, table.quantization(ASYMMETRIC_UINT8.name), BATCHES[:1])
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())


def test_the_plot_is_a_picture_with_the_costliest_named(
    costs: list[LayerCost], tmp_path: Path
) -> None:
    plot_sensitivity(costs, tmp_path / "costs.png", "title")
    header = (tmp_path / "costs.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:])
    assert width > 1000
    assert height > 500

    plot_sensitivity(costs, tmp_path / "costs.svg", "what it costs")
    text = (tmp_path / "costs.svg").read_text()
    ET.fromstring(text)
    for cost in costs[:15]:
        assert f"<!-- {cost.name} -->" in text
    for cost in costs[15:]:
        assert f"<!-- {cost.name} -->" not in text
    share = 100 * sum(cost.divergence for cost in costs[:15]) / sum(c.divergence for c in costs)
    assert f"<!-- the 15 shown: {share:.0f} % -->" in text
    assert "<!-- what it costs -->" in text
    assert {path.name for path in tmp_path.iterdir()} == {"costs.png", "costs.svg"}


@given(st.lists(st.floats(0, 10), max_size=30))
def test_the_shares_add_up_to_all(divergences: list[float]) -> None:
    shares = cumulative_shares(
        [LayerCost(f"layer{at}", "expand", at, value) for at, value in enumerate(divergences)]
    )
    assert shares == sorted(shares)
    if sum(divergences) > 0:
        assert shares[-1] == pytest.approx(1.0)
    else:
        assert set(shares) <= {0.0}


@pytest.mark.parametrize(
    ("measured", "calibrated", "same"),
    [
        ("photos", "photos but for 16 held out", True),
        ("60 of the 200 pictures in photos (seed 0)", "photos", True),
        ("32 of the 200 pictures in ./photos/ (seed 0)", "photos but for 16 held out", True),
        ("photos/check", "photos/calibration", False),
        ("in photos", "photos", False),
        (EmbeddedPhotos(32).source, EmbeddedPhotos(200).source, True),
        (EmbeddedPhotos(32).source, "photos", False),
    ],
)
def test_pictures_of_the_calibration_are_known(measured: str, calibrated: str, same: bool) -> None:
    assert (named_place(measured) == named_place(calibrated)) is same


def test_what_sets_say_of_themselves_is_one_place(tmp_path: Path) -> None:
    for at in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{at}.png")
    whole = ImageSet.from_folder(tmp_path)
    parts = [whole, whole.subset(3), *whole.hold_out(2), whole.subset(5).hold_out(2)[1]]
    assert {named_place(part.source) for part in parts} == {str(tmp_path.resolve())}


@pytest.mark.slow
def test_the_largest_variant_can_be_drawn(tmp_path: Path) -> None:
    network = random_network("b7")
    costs = [
        LayerCost(name, "depthwise", depth, 0.0)
        for depth, name in enumerate(NetworkPath.of(network).names)
    ]
    plot_sensitivity(costs, tmp_path / "costs.pdf", "all of them free")
    assert (tmp_path / "costs.pdf").read_bytes().startswith(b"%PDF")


def test_a_plot_that_cannot_be_is_refused(
    costs: list[LayerCost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"costs\.txt: the name must end in \.png, \.svg, \.pdf"):
        plot_sensitivity(costs, tmp_path / "costs.txt", "title")
    with pytest.raises(UsageError, match="nowhere does not exist"):
        plot_sensitivity(costs, tmp_path / "nowhere" / "costs.png", "title")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=r"folder\.png: is there and is no plot"):
        plot_sensitivity(costs, tmp_path / "folder.png", "title")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendError, match=r"matplotlib.*pip install 'effnet-edge\[report\]'"):
        plot_sensitivity(costs, tmp_path / "costs.png", "title")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_an_older_plot_is_replaced_and_nothing_else(
    costs: list[LayerCost], tmp_path: Path, suffix: str
) -> None:
    path = (tmp_path / "costs").with_suffix(suffix)
    plot_sensitivity(costs, path, "first")
    first = path.read_bytes()
    plot_sensitivity(costs[:3], path, "second")
    assert path.read_bytes() != first

    path.write_bytes(first.replace(b"effnet-edge", b"other"))
    with pytest.raises(UsageError, match="is there and is no plot"):
        plot_sensitivity(costs, path, "third")
