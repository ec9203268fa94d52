"""Label files, right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import UsageError
from effnet_edge.labels import Label, default_labels, imagenet_labels, read_labels

if TYPE_CHECKING:
    from pathlib import Path


def test_imagenet_has_its_thousand_classes_in_order() -> None:
    labels = imagenet_labels()

    assert len(labels) == 1000
    assert labels[0] == Label("tench, Tinca tinca", "n01440764")
    assert labels[999].wnid == "n15075141"
    wnids = [label.wnid for label in labels]
    assert wnids == sorted(wnids)
    assert default_labels(1000) == labels
    assert default_labels(10) is None


@pytest.mark.parametrize(
    "text",
    [
        "cat\nhot dog\n\n",
        '["cat", "hot dog"]',
        '[{"name": "cat"}, {"name": "hot dog", "wnid": null}]',
        "\ufeffcat\r\nhot dog\r\n",
    ],
)
def test_lines_and_json_lists_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels"
    path.write_text(text, encoding="utf-8", newline="")

    assert [label.name for label in read_labels(path, 2)] == ["cat", "hot dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\n", "1 labels for 2 classes"),
        (b"", "0 labels for 2 classes"),
        (b"[1, 2]", "is no label"),
        (b'["cat", ', "not a JSON list"),
        (b'[{"wnid": "n1"}, "b"]', "not a JSON list"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=f"classes.txt.*{message}"):
        read_labels(path, 2)
