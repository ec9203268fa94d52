"""Which candidates a target has, and that each is an export that can be asked for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from effnet_edge.model.request import NetworkRequest
from effnet_edge.targets import TARGETS
from effnet_export.request import ExportRequest
from effnet_export.targets import target_for
from effnet_export.tuning.candidates import CANDIDATES, DEFAULT, candidates_for, export_request

if TYPE_CHECKING:
    from pathlib import Path

ON_BUILD_HOST = [name for name, row in TARGETS.items() if not row.built_on_device]


def network(activation: str = "silu", output_kind: str = "single-label") -> SimpleNamespace:
    return SimpleNamespace(activation=activation, output_kind=output_kind)


def names(target: str, **options: str) -> list[str]:
    return [each.name for each in candidates_for(target_for(target), network(**options))]


def base(target: str, tmp_path: Path, **options: object) -> ExportRequest:
    return ExportRequest(NetworkRequest("b0", **options), target, "int8", calibration=tmp_path)


def test_names_are_unique_and_one_is_the_default() -> None:
    known = [each.name for each in CANDIDATES]
    assert len(set(known)) == len(known)
    assert DEFAULT in known


def test_a_target_has_what_it_can_run() -> None:
    assert names("openvino") == [each.name for each in CANDIDATES]
    assert names("onnxruntime") == [
        *("fp32", "int8", "int8-dense", "int8-budget-50", "int8-budget-25")
    ]
    assert "int8-dense" not in names("tensorrt")
    assert names("litert") == [
        *("fp32", "fp16", "int8", "int8-exact", "fp16-fast-65", "fp16-fast-90")
    ]


def test_a_network_has_what_can_be_changed_in_it() -> None:
    assert not [name for name in names("openvino", activation="relu6") if "fast" in name]
    assert not [name for name in names("openvino", output_kind="features") if "budget" in name]


@pytest.mark.parametrize("target", ON_BUILD_HOST)
def test_each_is_an_export_that_can_be_asked_for(target: str, tmp_path: Path) -> None:
    asked = base(target, tmp_path)
    for candidate in candidates_for(target_for(target), network()):
        request = export_request(candidate, asked, tmp_path)
        assert request.directory == tmp_path / candidate.name
        assert request.chosen_precision == candidate.precision
        assert request.network == asked.network
        assert (request.calibration is not None) == request.calibrates
        assert request.calibrates == (candidate.precision == "int8" or "fast" in candidate.name)


def test_the_default_is_the_export_itself(tmp_path: Path) -> None:
    (default,) = (each for each in CANDIDATES if each.name == DEFAULT)
    asked = base("openvino", tmp_path)
    request = export_request(default, asked, tmp_path)
    assert replace(request, output=None) == asked


def test_a_budget_is_a_share_of_what_the_default_loses(tmp_path: Path) -> None:
    asked = base("openvino", tmp_path)
    budgets = {
        each.name: request.loss_share
        for each in CANDIDATES
        if (request := export_request(each, asked, tmp_path)).is_bounded
    }
    assert budgets == {"int8-budget-50": 0.5, "int8-budget-25": 0.25}


def test_the_changes_reach_the_calibration(tmp_path: Path) -> None:
    asked = base("openvino", tmp_path)
    settings = {
        each.name: export_request(each, asked, tmp_path).settings
        for each in CANDIDATES
        if each.precision == "int8"
    }
    assert settings[DEFAULT].keep_last_blocks
    assert settings["int8-exact"] == replace(settings[DEFAULT], fitted_share=0.0)
    assert not settings["int8-all-8-bit"].keep_last_blocks
    assert settings[DEFAULT].keep_depthwise == "small"
    assert settings["int8-all-8-bit"].keep_depthwise == "none"
    fast = settings["int8-fast-90"]
    assert fast.keep_last_blocks
    assert settings["int8-fast-8-bit"] == replace(fast, keep_last_blocks=False)
    kept = ("int8-all-8-bit", "int8-dense")
    of_all = [name for name, each in settings.items() if each.keep_depthwise == "all"]
    assert of_all == ["int8-dense"]
    shares = [settings[f"int8-fast-{percent}"].fitted_share for percent in (80, 90)]
    assert shares == [0.8, 0.9]
    assert settings[DEFAULT].fitted_share == 0.9
    bent = {name for name, each in settings.items() if each.bend_activations}
    assert bent == {DEFAULT, "int8-exact", *kept, "int8-budget-50", "int8-budget-25"}
