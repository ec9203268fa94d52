"""Protocol buffers' text format, as far as a config.pbtxt needs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from effnet_edge.errors import BundleError
from effnet_edge.serving.description import MANIFEST_PARAMETER

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN_BYTES = frozenset(range(0x20, 0x7F)) - set(b"\"'\\")

# The hash is the only thing of a model that a new version of it changes.
_HASH = re.compile(
    rf'(key:\s*"{MANIFEST_PARAMETER}"\s*value:?\s*\{{\s*string_value:\s*")[0-9a-f]{{64}}(")'
)


def quoted(text: str) -> str:
    """A string literal; every byte of its UTF-8 that is not plain ASCII is an octal escape.

    Raises:
        BundleError: it has a surrogate, which no UTF-8 has.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{text!r}: is no text that UTF-8 can tell: export again") from error
    return '"' + "".join(chr(b) if b in _PLAIN_BYTES else f"\\{b:03o}" for b in encoded) + '"'


def numbers(values: Iterable[int]) -> str:
    """A list of integers."""
    return f"[ {', '.join(map(str, values))} ]"


def parameter(key: str, value: str) -> str:
    """A parameter of a model, on a line."""
    return f"parameters [ {{ key: {quoted(key)} value: {{ string_value: {quoted(value)} }} }} ]\n"


def with_manifest(config: str, sha256: str) -> str | None:
    """The text of a config with the hash of another manifest; None where it tells none."""
    changed, found = _HASH.subn(rf"\g<1>{sha256}\g<2>", config)
    return changed if found == 1 else None
