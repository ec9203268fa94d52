"""The boundary between parsers of foreign bytes and the errors that a person is shown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointError, EffnetEdgeError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on the bytes of `name` into `CheckpointError`.

    Damaged bytes make parsers raise errors of any class, also MemoryError and RecursionError.
    """
    try:
        yield
    except EffnetEdgeError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again ({first_line(error)})"
        ) from error
