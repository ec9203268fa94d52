"""The file of a model's answers: what is in it is found again, what is wrong is one line."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.parity.models.answer_file import Answerer, AnswerFile, picture_key

if TYPE_CHECKING:
    from pathlib import Path

ANSWERER = Answerer("torch", "FP32", "single-label", 3, False, 12, {"weights": "00"})
RECORD_BYTES = 32 + 3 * 4 + 4


def recorded(path: Path, count: int = 4) -> list[tuple[bytes, np.ndarray]]:
    random = np.random.default_rng(0)
    rows = [
        (picture_key(random.integers(0, 256, (4, 4, 3), np.uint8)), random.normal(size=3))
        for _ in range(count)
    ]
    file = AnswerFile.opened_for(path, ANSWERER)
    for key, row in rows:
        file.add(key, row.astype(np.float32))
    file.close()
    return [(key, row.astype(np.float32)) for key, row in rows]


def one_line(path: Path, *, writable: bool = False) -> str:
    with pytest.raises(UsageError) as refused:
        AnswerFile(path, writable=writable)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_answers_are_found_again_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "torch.answers"
    rows = recorded(path)
    file = AnswerFile(path)
    assert file.answerer == ANSWERER
    assert len(file) == len(rows)
    for key, row in rows:
        np.testing.assert_array_equal(file.get(key), row)
    assert b"x" * 32 not in file


def test_numbers_that_are_not_finite_stay_what_they_are(tmp_path: Path) -> None:
    answer = np.array([np.nan, np.inf, -np.inf], np.float32)
    file = AnswerFile.opened_for(tmp_path / "a.answers", ANSWERER)
    file.add(b"k" * 32, answer)
    np.testing.assert_array_equal(file.get(b"k" * 32), answer)


@given(lost=st.integers(1, 4 * RECORD_BYTES))
def test_what_a_killed_run_left_is_continued_and_never_read_as_whole(
    tmp_path_factory: pytest.TempPathFactory, lost: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.answers"
    rows = recorded(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - lost])
    if lost % RECORD_BYTES:
        assert "not whole" in one_line(path)
    file = AnswerFile(path, writable=True)
    kept = len(rows) - -(-lost // RECORD_BYTES)
    assert len(file) == kept
    for key, row in rows[kept:]:
        file.add(key, row)
    file.close()
    assert path.read_bytes() == content


@given(st.integers(0, 4 * RECORD_BYTES - 1), st.integers(1, 255))
def test_no_changed_byte_of_an_answer_is_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    path = tmp_path_factory.mktemp("bad") / "a.answers"
    rows = recorded(path)
    content = bytearray(path.read_bytes())
    start = len(content) - 4 * RECORD_BYTES
    content[start + place] ^= change
    path.write_bytes(content)
    assert f"damaged at answer {place // RECORD_BYTES + 1}" in one_line(path)
    # To be written, the sound ones before it count, and the others are asked for again.
    file = AnswerFile(path, writable=True)
    assert len(file) == place // RECORD_BYTES
    for key, row in rows[: len(file)]:
        np.testing.assert_array_equal(file.get(key), row)


def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.answers"
    rows = recorded(path)
    file = AnswerFile(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UsageError, match="was changed"):
        file.get(rows[-1][0])


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.answers"
    recorded(path)
    first = AnswerFile(path, writable=True)
    assert "another run" in one_line(path, writable=True)
    first.close()
    AnswerFile(path, writable=True).close()


def test_the_answers_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.answers"
    recorded(path)
    other = replace(ANSWERER, identity={"weights": "11"})
    with pytest.raises(UsageError, match="another model than torch"):
        AnswerFile.opened_for(path, other)
    AnswerFile.opened_for(path, ANSWERER).close()  # it is not left locked


def header(**changes: object) -> bytes:
    whole = {"format": "effnet-edge answers", "version": 1, **vars(ANSWERER), **changes}
    return json.dumps(whole).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not JSON\n",
        b"[" * 50_000 + b"\n",
        header()[:-1],
        b"{}\n",
        header(format="another"),
        header(version=2),
        header(outputs=0),
        header(outputs=True),
        header(outputs=1 << 60),
        header(output="nonsense"),
        header(output=["single-label"]),
        header(identity="x"),
        header(unknown=1),
        header(name=None),
        header(name="x" * 70_000),
        pickle.dumps({"a": 1}),
        bytes(range(256)) * 4,
    ],
    ids=range(19),
)
def test_what_is_no_file_of_answers_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.answers"
    path.write_bytes(content)
    one_line(path)
    one_line(path, writable=True)
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    one_line(tmp_path / "none.answers")
    one_line(tmp_path)


def test_a_disk_that_is_full_is_a_failed_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AnswerFile.opened_for(tmp_path / "a.answers", ANSWERER)
    monkeypatch.setattr("os.pwrite", lambda *_: 5)
    with pytest.raises(EffnetEdgeError, match="the disk is full") as refused:
        file.add(b"k" * 32, np.zeros(3, np.float32))
    assert refused.value.exit_code == 1
