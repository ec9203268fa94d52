"""Label files, right and wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_name_ends_where_its_line_does(tmp_path: Path, character: str) -> None:
    (tmp_path / "labels").write_text(f"hot{character}dog\r\ncat\r", "utf-8", newline="")
    names = [label.name for label in read_labels(tmp_path / "labels", 2)]
    assert names == [f"hot{character}dog", "cat"]


@pytest.mark.parametrize(
    "text",
    [
        "cat\nhot dog\n\n",
        '["cat", "hot dog"]',
        '[{"name": "cat"}, {"name": "hot dog", "wnid": null}]',
        "\ufeffcat\r\nhot dog\r\n",
        '{"0": "cat", "1": "hot dog"}',
        '{"1": "hot dog",\n "0": "cat"}',
        '{"hot dog": 1, "cat": 0}',
        '{"0": ["n1", "cat"], "1": ["n2", "hot dog"]}',
        "{0: 'cat',\n 1: \"hot dog\"}",
        "{0: 'cat',\n 1: 'hot dog',\n}\n",
        "{'hot dog': 1, 'cat': 0}",
        "['cat', 'hot dog']",
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
        (b"\xff\xfe\x00", "UTF-16 text: save the file as UTF-8"),
        (b"cat\nchi\xean\n", "line 2 cannot be read as UTF-8 text: .*iconv -f WINDOWS-1252"),
        (b"[" * 100_000, "not a JSON list"),
        (b'{"0": "cat", "2": "dog"}', "not 0 to 1"),
        (b"{0: 'cat', 1: open('x')}", "unexpected .1: open"),
        (b"{0: 'cat', 0: 'dog'}", "'0' stands there twice"),
        (b"{0: 'cat', 1: 'dog', 1: 'fox'}", "'1' stands there twice"),
        (b'{"0": "cat", "1": "dog", "1": "fox"}', "'1' stands there twice"),
        (b'{"cat": 0, "dog": 0, "dog": 1}', "'dog' stands there twice"),
        (b'[{"name": "cat", "name": "dog"}, "fox"]', "'name' stands there twice"),
        (b'{"' + b"9" * 5000 + b'": "cat"}', "not a JSON list"),
        (b'[{"name": 5}, "dog"]', "is no label"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=f"classes.txt.*{message}"):
        read_labels(path, 2)


@pytest.mark.parametrize(
    "names",
    [
        ["[background]", "hot dog"],
        ["[background]", "[other]"],
        ["{background}", "hot dog"],
        ["[0] cat", "[1] dog"],
    ],
)
def test_names_in_brackets_are_names(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names))

    assert [label.name for label in read_labels(path, 2)] == names


def test_utf16_with_its_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("Käse\n豆腐", encoding="utf-16")

    assert [label.name for label in read_labels(path, 2)] == ["Käse", "豆腐"]


@given(st.lists(st.text(), max_size=20))
def test_what_python_and_json_write_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels"
    printable = [name for name in names if name.isprintable() and "\\" not in name]
    for text, expected in (
        (json.dumps(dict(enumerate(names))), names),
        (str(dict(enumerate(printable))), printable),
        (str(printable), printable),
    ):
        path.write_text(text, encoding="utf-8")
        assert [label.name for label in read_labels(path, len(expected))] == expected


def test_a_keras_index_keeps_the_wordnet_ids(tmp_path: Path) -> None:
    path = tmp_path / "imagenet_class_index.json"
    path.write_text('{"0": ["n01440764", "tench"]}')

    assert read_labels(path, 1) == [Label("tench", "n01440764")]
