"""A bundle is read back as it was written, and whatever is wrong with one is named."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import CLASSES, LABELS, manifest

from effnet_edge.bundle import (
    Bundle,
    FileRecord,
    Manifest,
    Measured,
    OutputSpec,
    StageParity,
)
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.labels import Label
from effnet_edge.nonfinite import encode
from effnet_edge.parity.measures.table import MEASURES, Measure

if TYPE_CHECKING:
    from collections.abc import Callable
from bundle_files import STAGE, edit, entries, refusal, run_python, write


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "b", parity=(STAGE,), parity_images="8 photos")
    loaded = Bundle.load(tmp_path / "b")
    assert loaded == written
    assert loaded.labels == tuple(LABELS)
    assert loaded.manifest.parity == (STAGE,)
    assert loaded.model_path == tmp_path / "b" / "model.xml"


@pytest.mark.parametrize("asked", ["exists", "is_file"])
def test_what_may_not_be_looked_at_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """As in a folder of somebody else; `pathlib` lets out what the system says of that."""

    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, asked, refuse)
    assert refusal(bundle).endswith(": cannot be read: Permission denied")


def test_no_code_is_written_for_the_next_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt amid cattrs' code generation made every later bundle "damaged"."""
    loaded = Bundle.load(bundle)
    monkeypatch.setattr("cattrs.gen.make_dict_structure_fn", None)
    monkeypatch.setattr("cattrs.Converter", None)
    assert Bundle.load(bundle) == loaded


def test_hashes_are_those_of_the_coreutils(bundle: Path) -> None:
    for name, record in Bundle.load(bundle).manifest.files.items():
        output = subprocess.run(
            ["sha256sum", bundle / name], check=True, capture_output=True, text=True
        ).stdout
        assert output.split()[0] == record.sha256
        assert (bundle / name).stat().st_size == record.bytes


def test_every_file_but_the_manifest_is_recorded(bundle: Path) -> None:
    files = Bundle.load(bundle).manifest.files
    assert sorted(files) == ["labels.json", "model.bin", "model.xml"]
    assert entries(bundle) == ["labels.json", "manifest.json", "model.bin", "model.xml"]


@pytest.mark.parametrize(("value", "text"), [(math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_infinite_sqnr_is_told_in_json_and_infinite_in_python(
    tmp_path: Path, value: float, text: str
) -> None:
    write(tmp_path / "b", parity=(replace(STAGE, measures={"sqnr_db": Measured(value)}),))
    document = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert document["parity"][0]["measures"] == {"sqnr_db": {"value": text}}
    assert Bundle.load(tmp_path / "b").manifest.parity[0].value("sqnr_db") == value


def test_a_nan_result_cannot_be_bundled(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a finite number"):
        write(tmp_path / "b", parity=(replace(STAGE, measures={"kl": Measured(math.nan)}),))
    assert entries(tmp_path) == []


def test_a_stage_tells_whether_its_measures_hold_their_limits() -> None:
    assert STAGE.holds is True
    assert STAGE.value("label_set_agreement") is None
    assert replace(STAGE, measures={"kl": Measured(0.0)}).holds is None
    for broken in (Measured(2.0, at_most=1.0), Measured(2.0, at_least=3.0)):
        assert replace(STAGE, measures={**STAGE.measures, "kl": broken}).holds is False


@pytest.fixture
def proven(tmp_path: Path) -> Path:
    """A bundle of one stage."""
    return write(tmp_path / "b", parity=(STAGE,)).path


@pytest.mark.parametrize(
    ("measured", "what"),
    [
        ({"kl": {"value": 9.0, "at_most": 0.05}}, "its kl of 9 breaks its own limit"),
        ({"sqnr_db": {"value": 1.5, "at_least": 20}}, "its sqnr_db of 1.5 breaks its own limit"),
        ({"new": {"value": "-Infinity", "at_least": 0}}, "its new of -inf breaks its own limit"),
        ({"kl": {"value": 0.5, "at_most": 1, "at_least": 0}}, "holds kl to two limits"),
    ],
)
def test_a_stage_that_fails_was_never_bundled(
    proven: Path, measured: dict[str, object], what: str
) -> None:
    edit(proven, lambda document: document["parity"][0]["measures"].update(measured))
    assert f"parity: 'onnx' {'holds' if 'two' in what else 'has passed, and'}" in refusal(proven)
    assert what in refusal(proven)


@pytest.mark.parametrize("measure", [each for each in MEASURES if each.kept])
def test_a_measure_has_the_values_that_its_limit_may_have(proven: Path, measure: Measure) -> None:
    assert measure.limit is not None
    low, high = measure.limit.lowest, measure.limit.highest

    def tell(value: float) -> None:
        told = {measure.key: {"value": encode(value)}}
        edit(proven, lambda document: document["parity"][0]["measures"].update(told))

    for value in (low, high, 0.5):
        tell(value)
        assert Bundle.load(proven).manifest.parity[0].value(measure.key) == value
    for value in {low - 1e-3, high + 1e-3, -math.inf, math.inf} - {low, high}:
        tell(value)
        assert f"measures.{measure.key}.value must" in refusal(proven)


def test_measures_that_are_not_known_yet_are_read(proven: Path) -> None:
    later = {"later": {"value": 9.0, "at_most": 10}}
    edit(proven, lambda document: document["parity"][0]["measures"].update(later))
    assert Bundle.load(proven).manifest.parity[0].value("later") == 9.0


def test_a_stage_without_pictures_proves_nothing(proven: Path) -> None:
    edit(proven, lambda document: document["parity"][0].update(images=0))
    assert "parity[0].images must be bigger than or equal to 1" in refusal(proven)


def test_labels_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path / "b", labels=None)
    assert Bundle.load(tmp_path / "b").labels is None
    assert "labels.json" not in entries(tmp_path / "b")


@pytest.mark.parametrize(
    "names",
    [
        ("épagneul", "犬", 'a "b"', "x\ny", "🐕"),
        ("\x1b[31m", "\udce9", "\ufffe", "a\u2028b", "\x9b31m"),
    ],
)
def test_labels_keep_every_character(tmp_path: Path, names: tuple[str, ...]) -> None:
    labels = [Label(name, None) for name in names]
    write(tmp_path / "b", labels=labels)
    assert Bundle.load(tmp_path / "b").labels == tuple(labels)


# What a reader refuses


def test_a_path_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    assert "no such bundle" in refusal(tmp_path / "nothing", UsageError)


def test_a_directory_without_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    assert "is not a bundle" in refusal(tmp_path)


def test_a_file_is_not_a_bundle(bundle: Path) -> None:
    assert "is not a bundle" in refusal(bundle / "model.xml")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "'a' appears twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be object"),
        (b"{}", "must contain"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(bundle: Path, text: bytes, what: str) -> None:
    (bundle / "manifest.json").write_bytes(text)
    message = refusal(bundle)
    assert what in message
    assert "manifest.json" in message


def test_a_newer_schema_asks_for_an_upgrade_whatever_else_it_holds(bundle: Path) -> None:
    (bundle / "manifest.json").write_text('{"schema_version": 5, "new": true}')
    assert "newer effnet-edge" in refusal(bundle)
    assert "upgrade" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d.pop("precision"), "precision"),
        (lambda d: d.pop("engines"), "engines"),
        (lambda d: d["output"].pop("kind"), "output"),
        (lambda d: d.update(schema_version=1), "schema_version"),
        (lambda d: d.update(precision="int4"), "precision"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.update(created="yesterday"), "created"),
        (lambda d: d.update(target="tensorflow"), "target"),
        (lambda d: d["input"].update(height="8"), "input.height"),
        (lambda d: d["input"].update(height=True), "input.height"),
        (lambda d: d["input"].update(channels=17), "input.channels"),
        (lambda d: d["input"].update(channels=4), "input: channels"),
        (lambda d: d["output"].update(kind="softmax"), "output.kind"),
        (lambda d: d["output"].update(kind="features"), "labels"),
        (lambda d: d["input"].update(layout="NCHW"), "input"),
        (lambda d: d["input"].update(width=9), "input"),
        (lambda d: d["batch"].update(minimum=0), "batch.minimum"),
        (lambda d: d["batch"].update(minimum=2), "batch"),
        (lambda d: d["preprocessing"].update(mean=[]), "preprocessing.mean"),
        (lambda d: d["preprocessing"].update(mean=[0.5, 0.5]), "as many as of mean"),
        (lambda d: d["preprocessing"].update(std=[0, 1, 1]), "std"),
        (lambda d: d["weights"].update(sha256="ABC"), "weights.sha256"),
        (lambda d: d["files"]["model.bin"].pop("bytes"), "files.model.bin"),
        (lambda d: d.update(model="other.xml"), "other.xml"),
        (lambda d: d.update(labels="other.json"), "other.json"),
        (lambda d: d.update(parity=[{"stage": "onnx"}]), "parity[0]"),
    ],
)
def test_a_bad_field_is_named(
    bundle: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    edit(bundle, change)
    message = refusal(bundle)
    assert what in message
    assert "manifest.json" in message


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "x\n", ".hidden"]
)
def test_only_plain_file_names_are_followed(bundle: Path, name: str) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["files"][name] = document["files"]["model.bin"]

    edit(bundle, rename)
    assert "is not a plain file name" in refusal(bundle)


def test_one_flipped_bit_is_seen(bundle: Path) -> None:
    path = bundle / "model.bin"
    data = bytearray(path.read_bytes())
    data[777] ^= 1
    path.write_bytes(data)
    assert "model.bin: is not the file that was exported" in refusal(bundle)
    Bundle.load(bundle, verify=False)


def test_a_truncated_file_is_seen_even_without_hashing(bundle: Path) -> None:
    os.truncate(bundle / "model.bin", 100)
    with pytest.raises(BundleError, match=r"model\.bin"):
        Bundle.load(bundle, verify=False)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    assert "model.bin: is missing" in refusal(bundle)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_anything_foreign_is_named(bundle: Path, make: Callable[[Path], None]) -> None:
    make(bundle / "notes.txt")
    assert "'notes.txt' is not part of this bundle" in refusal(bundle)


@pytest.mark.parametrize("name", ["model.bin", "manifest.json", "labels.json"])
def test_symbolic_links_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    refusal(bundle)


def test_a_pipe_in_place_of_a_file_does_not_hang(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    os.mkfifo(bundle / "model.bin")
    assert "not a regular file" in refusal(bundle)


@pytest.mark.parametrize("text", ["{}", '[{"name": "a"}]', '[{"name": 1, "wnid": null}]', "[]"])
def test_bad_labels_are_refused(bundle: Path, text: str) -> None:
    (bundle / "labels.json").write_text(text)

    def reseal(document: dict[str, Any]) -> None:
        digest = hashlib.sha256(text.encode()).hexdigest()
        document["files"]["labels.json"] = {"sha256": digest, "bytes": len(text)}

    edit(bundle, reseal)
    assert "labels.json" in refusal(bundle)


def test_labels_must_count_as_many_as_the_classes(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="5 labels for a model of 6 classes"):
        write(tmp_path / "b", output=OutputSpec("logits", 6))
    assert entries(tmp_path) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


VALID = json.loads(manifest(files={"model.xml": FileRecord("0" * 64, 1)}).to_json())


@settings(deadline=None)
@given(key=st.sampled_from(sorted(VALID)), value=json_values)
def test_any_value_in_any_field_is_read_or_refused_in_one_line(key: str, value: object) -> None:
    message = ""
    try:
        parsed = Manifest.from_json(json.dumps({**VALID, key: value}), "m.json")
    except BundleError as error:
        message = str(error)
    if message:
        assert len(message.splitlines()) == 1
    else:
        assert json.loads(parsed.to_json())[key] == value


def test_reading_a_bundle_imports_no_engine(bundle: Path) -> None:
    code = (
        "import sys; from effnet_edge.bundle import Bundle; Bundle.load(sys.argv[1]);"
        "print({'torch', 'onnx', 'openvino', 'onnxruntime'} & set(sys.modules))"
    )
    assert run_python(code, bundle).stdout == "set()\n"


def test_importing_the_module_imports_neither_schema_nor_structuring_library() -> None:
    code = "import sys, effnet_edge.bundle;print({'cattrs', 'fastjsonschema'} & set(sys.modules))"
    assert run_python(code).stdout == "set()\n"


@pytest.mark.parametrize("kind", ["multi-label", "regression", "features"])
def test_the_kind_of_output_survives(tmp_path: Path, kind: str) -> None:
    labels = None if kind == "features" else LABELS
    output = OutputSpec("output", CLASSES, kind)
    measures = {"sqnr_db": Measured(30.0, at_least=20.0), "label_set_agreement": Measured(0.5)}
    stage = StageParity("onnx", "torch", "onnx", "FP32", 4, measures)
    written = write(tmp_path / "b", labels=labels, output=output, parity=(stage,))
    assert Bundle.load(written.path).manifest.output == output
    assert Bundle.load(written.path).manifest.parity == (stage,)


def test_one_output_that_would_choose_a_class_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b", labels=None, output=OutputSpec("output", 1, "multi-label")).path
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("multi-label", "single-label"))
    with pytest.raises(BundleError, match="100 % for every picture: .*--regression"):
        Bundle.load(path)
