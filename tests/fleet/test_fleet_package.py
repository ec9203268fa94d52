"""What is sent between machines: whole or refused in one line, and no file outside its folder."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import BackendError
from effnet_edge.fleet.package import Package

NAMES = st.from_regex(r"[a-z]+/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,8}", fullmatch=True)
DOCUMENTS = st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers() | st.none())


@given(DOCUMENTS, st.dictionaries(NAMES, st.binary(max_size=50), max_size=4), st.binary(max_size=9))
def test_what_is_packed_comes_out_again(
    document: dict[str, object], files: dict[str, bytes], before: bytes
) -> None:
    package = Package(document, files)
    assert Package.unpack(before + package.pack(), "it") == package
    assert package.pack() == package.pack()


@given(st.binary(max_size=400))
def test_other_bytes_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(BackendError, match=r"^orin-1: what it sent is no fleet package") as refused:
        Package.unpack(content, "orin-1")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_half_a_package_is_refused(cut: int) -> None:
    packed = Package({"key": "x"}, {"bundle/model.onnx": b"m" * 50}).pack()
    with pytest.raises(BackendError):
        Package.unpack(packed[:-cut], "it")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "bundle/../../evil", "bundle/a/b", "bundle/.hidden", "plain"]
)
def test_a_file_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match="no name of a file"):
        Package.unpack(archive({"document.json": b"{}", name: b"x"}), "it")


def test_what_is_compressed_is_refused() -> None:
    bomb = archive({"document.json": b"{}", "bundle/big": b"\0" * 10_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BackendError, match="is compressed"):
        Package.unpack(bomb, "it")


@pytest.mark.parametrize("document", [b"[]", b"null", b"{", b"\xff"])
def test_a_document_that_is_no_object_is_refused(document: bytes) -> None:
    with pytest.raises(BackendError):
        Package.unpack(archive({"document.json": document}), "it")


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return buffer.getvalue()
