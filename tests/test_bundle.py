from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import CLASSES, LABELS, manifest

from effnet_edge.bundle import (
    BatchRange,
    Bundle,
    BundleWriter,
    FileRecord,
    InputSpec,
    Label,
    Manifest,
    OutputSpec,
    StageParity,
)
from effnet_edge.errors import BundleError, EffnetEdgeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAGE = StageParity(
    stage="onnx",
    reference="torch",
    candidate="onnxruntime",
    execution_precision="FP32",
    images=8,
    max_abs_error=1e-5,
    relative_error=1e-6,
    sqnr_db=112.5,
    kl=0.0,
    top1_agreement=1.0,
    passed=True,
    tolerance="relative error at most 1e-4",
)


def write(path: Path, labels: list[Label] | None = LABELS, **changes: Any) -> Bundle:
    with BundleWriter(path) as writer:
        (writer.staging / "model.xml").write_text("<net/>")
        (writer.staging / "model.bin").write_bytes(bytes(range(256)) * 10)
        return writer.commit(manifest(**changes), labels)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "b0-openvino-fp32").path


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refusal(path: Path, kind: type[EffnetEdgeError] = BundleError) -> str:
    with pytest.raises(kind) as caught:
        Bundle.load(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "b", parity=(STAGE,), parity_images="8 photos")
    loaded = Bundle.load(tmp_path / "b")
    assert loaded == written
    assert loaded.labels == tuple(LABELS)
    assert loaded.manifest.parity == (STAGE,)
    assert loaded.model_path == tmp_path / "b" / "model.xml"


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


def test_infinite_sqnr_is_null_in_json_and_infinite_in_python(tmp_path: Path) -> None:
    write(tmp_path / "b", parity=(replace(STAGE, sqnr_db=math.inf),))
    text = (tmp_path / "b" / "manifest.json").read_text()
    assert json.loads(text)["parity"][0]["sqnr_db"] is None
    assert Bundle.load(tmp_path / "b").manifest.parity[0].sqnr_db == math.inf


def test_a_nan_result_cannot_be_bundled(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a finite number"):
        write(tmp_path / "b", parity=(replace(STAGE, kl=math.nan),))
    assert entries(tmp_path) == []


def test_labels_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path / "b", labels=None)
    assert Bundle.load(tmp_path / "b").labels is None
    assert "labels.json" not in entries(tmp_path / "b")


def test_labels_keep_every_character(tmp_path: Path) -> None:
    labels = [Label(name, None) for name in ("épagneul", "犬", 'a "b"', "x\ny", "🐕")]
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
    (bundle / "manifest.json").write_text('{"schema_version": 4, "new": true}')
    assert "newer effnet-edge" in refusal(bundle)
    assert "upgrade" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d.pop("precision"), "precision"),
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


# Writing


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        assert writer.staging.parent == tmp_path
    assert entries(tmp_path) == []


def test_an_error_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "b") as writer:
        (writer.staging / str(1 // 0)).touch()
    assert entries(tmp_path) == []


def test_an_inconsistent_manifest_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="batch"):
        write(tmp_path / "b", batch=BatchRange(4, 2, 8))
    with pytest.raises(BundleError, match="input"):
        write(tmp_path / "b", input=InputSpec("x", "uint8", "NCHW", 8, 8, 3))
    assert entries(tmp_path) == []


@pytest.mark.parametrize("what", ["folder", "link"])
def test_staging_may_hold_regular_files_only(tmp_path: Path, what: str) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        if what == "folder":
            (writer.staging / "sub").mkdir()
        else:
            (writer.staging / "sub").symlink_to("/etc/hostname")
        with pytest.raises(BundleError, match="regular files only"):
            writer.commit(manifest(), LABELS)
    assert entries(tmp_path) == []


def test_missing_parents_are_made_and_the_umask_decides_who_reads(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    path = write(tmp_path / "out" / "deep" / "b").path
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_bundle_is_replaced(bundle: Path) -> None:
    write(bundle, labels=None, variant="b1")
    assert Bundle.load(bundle).manifest.variant == "b1"
    assert entries(bundle) == ["manifest.json", "model.bin", "model.xml"]
    assert entries(bundle.parent) == [bundle.name]


def test_a_damaged_bundle_is_replaced(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    write(bundle)
    Bundle.load(bundle)


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b")
    assert entries(tmp_path) == ["b"]
    Bundle.load(tmp_path / "b")


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


def make_bundle_with_notes(path: Path) -> None:
    write(path)
    (path / "notes.txt").write_text("mine")


def make_broken_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"name": "some web app"}')


def make_link_to_bundle(path: Path) -> None:
    path.symlink_to(write(path.with_name("real")).path)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "make",
    [
        make_file,
        make_full_folder,
        make_bundle_with_notes,
        make_broken_manifest,
        make_link_to_bundle,
        make_dangling_link,
    ],
)
def test_anything_else_at_the_destination_is_refused_before_work_starts(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "b")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="exists and is not a bundle: choose another -o"):
        BundleWriter(tmp_path / "b")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_root_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="choose another"):
        BundleWriter("/")


def test_what_appears_at_the_destination_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        make_full_folder(tmp_path / "b")
        with pytest.raises(UsageError, match="exists and is not a bundle"):
            writer.commit(manifest(), LABELS)
    assert (tmp_path / "b" / "thesis.txt").read_text() == "mine"
    assert entries(tmp_path) == ["b"]


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_swap_that_fails_halfway_puts_the_old_bundle_back(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    rename = Path.rename

    def fail_on_the_new_one(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises((BundleError, KeyboardInterrupt)):
        write(bundle, variant="b1")
    assert Bundle.load(bundle).manifest.variant == "b0"
    assert entries(bundle.parent) == [bundle.name]


def test_files_and_directories_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    write(tmp_path / "b")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert {"model.xml", "model.bin", "labels.json", "manifest.json"} < set(before)
    assert before[-1].endswith(".partial")
    assert after == [tmp_path.name]


# Disks that refuse

FILE_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from effnet_edge.bundle import BundleWriter
from effnet_edge.errors import BundleError
try:
    with BundleWriter(sys.argv[1]) as writer:
        (writer.staging / "model.xml").write_bytes(bytes(1_000_000))
except BundleError as error:
    print(error)
"""


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_a_file_limit_hit_while_writing_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_python(FILE_LIMIT, tmp_path / "b")
    assert done.stdout == f"{tmp_path / 'b'}: cannot write the bundle: File too large\n"
    assert entries(tmp_path) == []


@contextmanager
def mounted_tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("free_pages", [0, 1, 2, 3])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, free_pages: int) -> None:
    """Each of the four files, in turn, is the one that the disk has no room for."""
    with mounted_tmpfs(tmp_path / "disk", "size=1m") as disk:
        (disk / "filling").write_bytes(bytes((256 - free_pages) * 4096))
        with pytest.raises(BundleError, match="No space left on device") as caught:
            write(disk / "b")
        assert caught.value.__cause__ is not None
        assert "\n" not in str(caught.value)
        assert entries(disk) == ["filling"]


def test_a_full_disk_keeps_the_old_bundle(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "size=1m") as disk:
        write(disk / "b")
        with pytest.raises(BundleError, match="No space left"), BundleWriter(disk / "b") as writer:
            (writer.staging / "model.xml").write_bytes(bytes(2_000_000))
        assert Bundle.load(disk / "b").manifest.variant == "b0"
        assert entries(disk) == ["b"]


def test_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", "ro") as disk,
        pytest.raises(BundleError, match="Read-only file system"),
        BundleWriter(disk / "b"),
    ):
        pass


@pytest.fixture
def unprivileged() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_of_someone_else_is_one_line() -> None:
    with pytest.raises(BundleError, match="b: cannot write the bundle: "), BundleWriter("/usr/b"):
        pass


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BundleError, match=r"File exists .*/file\)"),
        BundleWriter(tmp_path / "file" / "b"),
    ):
        pass


def test_an_input_file_that_cannot_be_read_is_not_blamed_on_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "b"):
        (tmp_path / "weights").read_bytes()


WRITE_SLOWLY = """
import sys, time
from tiny_bundles import LABELS, manifest
from effnet_edge.bundle import BundleWriter
with BundleWriter(sys.argv[1]) as writer:
    with (writer.staging / "model.xml").open("wb") as file:
        print("writing", flush=True)
        while True:
            file.write(bytes(1000)); file.flush(); time.sleep(0.001)
"""


def test_ctrl_c_while_writing_leaves_nothing_and_keeps_the_old_bundle(bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_SLOWLY, bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # A test run in the background of a shell hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    time.sleep(0.05)
    assert len(entries(bundle.parent)) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    assert entries(bundle.parent) == [bundle.name]
    Bundle.load(bundle)


def test_reading_a_bundle_imports_no_engine(bundle: Path) -> None:
    code = (
        "import sys; from effnet_edge.bundle import Bundle; Bundle.load(sys.argv[1]);"
        "print({'torch', 'onnx', 'openvino', 'onnxruntime'} & set(sys.modules))"
    )
    assert run_python(code, bundle).stdout == "set()\n"


def test_importing_the_module_imports_neither_schema_nor_structuring_library() -> None:
    code = "import sys, effnet_edge.bundle;print({'cattrs', 'fastjsonschema'} & set(sys.modules))"
    assert run_python(code).stdout == "set()\n"


def test_a_bundle_of_the_first_schema_version_is_still_read(bundle: Path) -> None:
    """As versions before independent labels and features wrote it."""

    def older(document: dict[str, Any]) -> None:
        document["schema_version"] = 1
        del document["output"]["kind"]
        del document["engines"]
        for stage in document["parity"]:
            del stage["label_set_agreement"]

    edit(bundle, older)

    manifest = Bundle.load(bundle).manifest
    assert manifest.output.kind == "single-label"
    assert manifest.schema_version == 1


@pytest.mark.parametrize("kind", ["multi-label", "features"])
def test_the_kind_of_output_survives(tmp_path: Path, kind: str) -> None:
    labels = None if kind == "features" else LABELS
    output = OutputSpec("output", CLASSES, kind)
    stage = StageParity(
        "onnx", "torch", "onnx", "FP32", 4, 0.1, 0.01, 30.0, None, None, True, "SQNR ≥ 20 dB", 0.5
    )
    written = write(tmp_path / "b", labels=labels, output=output, parity=(stage,))
    assert Bundle.load(written.path).manifest.output == output
    assert Bundle.load(written.path).manifest.parity == (stage,)
