"""The errors that a person is shown: one line each, with an exit code, never a traceback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class EffnetEdgeError(Exception):
    """A failed job. Its text is one line: what is wrong, with which file or option, what to do.

    What it quotes of a file, a name or a library does nothing where it is shown.
    """

    exit_code = 1

    def __init__(self, text: str) -> None:
        """Tell in `text`, whose line breaks and control characters become escapes."""
        super().__init__(plain(text))


class UsageError(EffnetEdgeError):
    """The request itself is wrong: an option, a name, or a path that does not exist."""

    exit_code = 2


class ImageError(EffnetEdgeError):
    """A picture cannot be used; the text names the file."""


class CheckpointError(EffnetEdgeError):
    """A checkpoint does not fit the network; the text names the file and the first bad tensors."""


class EffnetEdgeWarning(Warning):
    """A remark on a job that goes on; one line, as an error's."""

    def __init__(self, text: str) -> None:
        """Tell in `text`, as an error does."""
        super().__init__(plain(text))


class CheckpointWarning(EffnetEdgeWarning):
    """Something in a checkpoint was left out, or chosen among others; the text names it."""


class BundleError(EffnetEdgeError):
    """A bundle is damaged, foreign, or made by a newer version; the text names the file."""


class BackendError(EffnetEdgeError):
    """An engine backend is not installed or failed; the text says how to install it."""


class WriteError(EffnetEdgeError):
    """What was worked out cannot be written, as on a full disk; the text names the file."""


class NotFiniteError(BackendError):
    """A model answers a picture with NaN or an infinity; the text names the picture."""


class ServerError(EffnetEdgeError):
    """A server of models cannot be reached, or what it answers is no answer; it may be gone."""


class GateError(EffnetEdgeError):
    """A parity gate failed: the candidate is not the same model as the reference.

    Attributes:
        problem: what is wrong, without the advice.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        """Tell what is wrong, and what options of `export` may help."""
        super().__init__(f"{problem}; {advice}" if advice else problem)
        self.problem = problem


NO_MEMORY = "there is not enough memory"


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch, which has a RuntimeError for it, got no more memory."""
    torch = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return torch or isinstance(error, MemoryError)


def first_line(error: BaseException, width: int = 200) -> str:
    """What a library's error says, as one line of at most `width` characters that all show."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return plain(lines[0] if lines else type(error).__name__)[:width]


@contextmanager
def told_as_one_line(
    file: object, failed: str, reason: Callable[[Exception], str] | None = None
) -> Iterator[None]:
    """Raise whatever a library raises on a file as a BackendError: "FILE: FAILED: REASON".

    For readers of files, whose libraries have exceptions of many kinds without a common base. Our
    own errors, a library that is missing and a lack of memory pass as they are.

    Args:
        reason: gives what a library says in one line; its first line if None.
    """
    try:
        yield
    except (EffnetEdgeError, ImportError, MemoryError):
        raise
    except OSError as error:
        raise BackendError(f"{file}: {failed}: {error.strerror or first_line(error)}") from error
    except Exception as error:
        raise BackendError(f"{file}: {failed}: {(reason or first_line)(error)}") from error


def cannot_load(
    file: object, title: str, here: str, built_with: str | None, reason: str
) -> BackendError:
    """The one line for a model that its engine's library refuses.

    Args:
        title: of the library.
        here, built_with: its version on this machine, and where the model was made if known.
    """
    built = f"built with {title} {built_with}, " if built_with else ""
    return BackendError(f"{file}: cannot be loaded ({built}here {title} {here}): {reason}")
