"""Text from elsewhere does nothing in a terminal, and reads back from JSON as it was."""

from __future__ import annotations

import json
import unicodedata
from html import escape
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge import nonfinite
from effnet_edge.text import plain, plain_lines

ANY_TEXT = st.text(st.characters(codec=None))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07cat", r"\x1b]0;owned\x07cat"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\r\tc\x7f", r"a\nb\r\tc\x7f"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\ud800", r"\ud800"),
        ("a\u2028b", r"a\u2028b"),
        ("\ufffe\ufdd0\U0010ffff", r"\ufffe\ufdd0\U0010ffff"),
        ("[/b] [link=x] :smile: épagneul 犬 👩‍🚀", "[/b] [link=x] :smile: épagneul 犬 👩‍🚀"),
    ],
)
def test_what_acts_is_shown_and_the_rest_stays(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(ANY_TEXT)
def test_nothing_acts_and_everything_has_an_encoding(text: str) -> None:
    shown = plain(text).replace("\u200c", "").replace("\u200d", "")
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()


@given(ANY_TEXT)
def test_text_of_several_lines_may_stand_in_xml_and_html(text: str) -> None:
    shown = plain_lines(text)
    assert ElementTree.fromstring(f"<p>{escape(shown)}</p>").text == (shown or None)


@given(ANY_TEXT)
def test_json_is_read_back_as_it_was(text: str) -> None:
    document = nonfinite.dumps({text: [text]})
    assert json.loads(document) == {text: [text]}
    assert all(each == "\n" or plain(each) == each for each in document)
    document.encode()
