"""Text from elsewhere (labels, file names, messages) made safe to show in a terminal."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Without these two some scripts and emoji cannot be written.
_JOINERS = ("\u200c", "\u200d")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: object) -> str:
    r"""Show every character that would not be seen, or would act, as its escape: "\x1b".

    These are control characters, of which terminals make commands and links; line breaks; those
    that turn the direction of what follows; surrogates, which no encoding takes; and what Unicode
    calls noncharacters.
    """
    return _escaped(str(text), _escape)


def one_plain_line(text: object) -> str:
    """The same, with a space for each line break and the space around it."""
    return plain(" ".join(line.strip() for line in str(text).splitlines()))


def plain_lines(text: object) -> str:
    """The same, but for its line breaks: what is left may stand in XML and in HTML."""
    return "\n".join(_escaped(line, _escape) for line in str(text).split("\n"))


def escape_json(text: str) -> str:
    r"""The same for the text of a JSON document, whose strings then have "\u001b".

    What is read back from it is the same, and its own line breaks stay.
    """
    return "\n".join(_escaped(line, _escape_in_json) for line in text.split("\n"))


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(each) if _is_unsafe(each) else each for each in text)


def _is_unsafe(character: str) -> bool:
    if unicodedata.category(character) in _UNSAFE_CATEGORIES:
        return character not in _JOINERS
    return _is_noncharacter(ord(character))


def _is_noncharacter(code: int) -> bool:
    """Whether it is none in any version of Unicode: XML and HTML forbid them."""
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _escape_in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
