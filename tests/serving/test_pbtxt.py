"""Any text is text in a config.pbtxt: judged by protobuf's own parser."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.deploy.pbtxt import parameter, quoted, with_manifest
from effnet_edge.errors import BundleError
from effnet_edge.serving.description import MANIFEST_PARAMETER


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_literal_is_read_back_as_it_was(text: str) -> None:
    literal = quoted(text)
    assert literal.isascii()
    assert literal.isprintable()
    assert text_format.Parse(f"string_value: {literal}", Value()).string_value == text


@pytest.mark.parametrize("text", ['"', "\\", "a\nb", "\0", "'", "\\n", "é\U0001f600", "#", "{ } ]"])
def test_what_would_end_or_change_a_literal_does_not(text: str) -> None:
    assert text_format.Parse(f"string_value: {quoted(text)}", Value()).string_value == text


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(BundleError, match="no text"):
        quoted("\ud800")


def test_the_hash_of_a_config_is_found_however_it_is_laid_out() -> None:
    ours = parameter(MANIFEST_PARAMETER, "a" * 64)
    told = (
        f'parameters {{\n  key: "{MANIFEST_PARAMETER}"\n  value {{\n    string_value: "{"a" * 64}"'
    )
    for config in (ours, told):
        assert with_manifest(config, "b" * 64) == config.replace("a" * 64, "b" * 64)
    assert with_manifest(parameter("other", "a" * 64), "b" * 64) is None
    assert with_manifest(ours + ours, "b" * 64) is None
