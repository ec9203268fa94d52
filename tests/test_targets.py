from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_bundles import manifest

from effnet_edge.bundle import FileRecord, Manifest
from effnet_edge.cli.main import cli
from effnet_edge.cli.stages import STAGES
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.machine import is_x86
from effnet_edge.targets import DEFAULT_TARGET, TARGETS, built_on_device
from effnet_export.targets import WRITING, target_for

ROOT = Path(__file__).parents[1]


def test_every_target_is_written_and_run() -> None:
    assert WRITING.keys() == TARGETS.keys()
    for name, row in TARGETS.items():
        module, _, factory = row.runner.partition(":")
        assert callable(getattr(importlib.import_module(module), factory))
        assert name == row.name
        assert name in STAGES


def test_every_package_is_an_extra() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is Python 3.11's")
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for row in TARGETS.values():
        assert any(each.startswith(row.package) for each in extras[row.extra or row.package])


def test_the_command_line_offers_just_these() -> None:
    refused = CliRunner().invoke(cli, ["export", "b0", "--target", "tflite"])
    assert refused.exit_code == 2
    assert ", ".join(f"'{name}'" for name in TARGETS) in refused.output


@pytest.mark.parametrize("name", TARGETS)
def test_the_default_precision_comes_first_and_others_are_refused(name: str) -> None:
    row = TARGETS[name]
    assert row.precision(None) == row.precisions[0]
    for precision in row.precisions:
        assert row.precision(precision) == precision
    with pytest.raises(UsageError, match=f"--fp8 with --target {name}: "):
        row.precision("fp8")


@pytest.mark.parametrize("name", TARGETS)
def test_seven_bits_are_for_processors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet_export.option_rules.int8_overflows", lambda: False)
    if not TARGETS[name].overflows:
        with pytest.raises(UsageError, match="--weight-bits 7 is for x86 processors"):
            target_for(name, 7)
    else:
        assert target_for(name, 7).scheme != target_for(name, 8).scheme


@pytest.mark.parametrize("name", TARGETS)
def test_eight_bits_are_not_for_processors_that_lose_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnet_export.option_rules.int8_overflows", lambda: True)
    if not TARGETS[name].overflows:
        assert target_for(name, 8).scheme == target_for(name).scheme
    else:
        with pytest.raises(UsageError, match="--weight-bits 8: this processor has no VNNI"):
            target_for(name, 8)


@pytest.mark.skipif(not is_x86(), reason="the setting is of x86 processors")
def test_weights_have_seven_bits_where_a_setting_keeps_openvino_from_vnni(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("effnet_export.targets.int8_overflows", lambda: False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert target_for("openvino").scheme == target_for("openvino", 7).scheme
    assert target_for("onnxruntime").scheme != target_for("onnxruntime", 7).scheme


def test_a_manifest_is_held_to_the_table() -> None:
    document = json.loads(manifest(files={"model.xml": FileRecord("0" * 64, 1)}).to_json())
    for name in TARGETS:
        assert Manifest.from_json(json.dumps({**document, "target": name}), "m").target == name
    with pytest.raises(BundleError, match="target must be one of") as caught:
        Manifest.from_json(json.dumps({**document, "target": "tflite"}), "m")
    assert str(list(TARGETS)) in str(caught.value)


def test_only_what_is_built_on_the_device_has_engines() -> None:
    assert DEFAULT_TARGET not in built_on_device()
    for row in TARGETS.values():
        assert row.built_on_device or not row.builds_ahead


def test_the_table_imports_nothing_but_the_package() -> None:
    code = (
        "import sys; before = set(sys.modules); import effnet_edge.targets\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(new - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "{'effnet_edge'}\n"
