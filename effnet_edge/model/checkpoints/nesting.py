"""The dictionaries in what a pickle holds, and where each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.model.checkpoints.pickles import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEPTH_AT_MOST = 16
_HOLDERS = (dict, list, tuple, Call)


@dataclass(frozen=True)
class Place:
    """Where a value is: a key of the dictionary that is at `above`.

    A path is as long as all keys above it, and most are of no dictionary of tensors: it is put
    together for those alone.
    """

    key: str
    above: Place | None = None

    @property
    def _keys(self) -> list[str]:
        return [*(self.above._keys if self.above else ()), self.key]

    @property
    def length(self) -> int:
        """Of the path, in characters, dots included."""
        return sum(len(key) + 1 for key in self._keys)

    @property
    def path(self) -> str:
        """The keys joined by dots; "" of the whole."""
        return ".".join(self._keys).lstrip(".")


def dictionaries(content: object) -> Iterator[tuple[Place, dict[Any, Any]]]:
    """All in lists, tuples and each other, each once, with their places."""
    seen: set[int] = set()
    level: list[tuple[Place, object]] = [(Place(""), content)]
    for _ in range(_DEPTH_AT_MOST):
        deeper: list[tuple[Place, object]] = []
        for place, node in level:
            if id(node) in seen:
                continue
            children = _children(node)
            if children:
                seen.add(id(node))
                yield place, children
                deeper += [
                    (Place(_told(key), place), each)
                    for key, each in children.items()
                    if isinstance(each, _HOLDERS) and id(each) not in seen
                ]
        level = deeper


def _told(key: object) -> str:
    """A key in a path; a tuple of tuples may be endless where it is written out."""
    return str(key) if isinstance(key, (str, int)) else type(key).__name__


def _children(node: object) -> dict[Any, Any]:
    if isinstance(node, dict):
        return node
    if isinstance(node, (list, tuple)):
        return dict(enumerate(node))
    if isinstance(node, Call):
        if str(node.function) == "collections.OrderedDict" and node.arguments:  # Python 2's
            (pairs,) = node.arguments
            return {key: value for key, value in pairs if isinstance(key, str)}
        return node.items
    return {}
