"""From pictures as they are read to what a person is told of each, a few batches under way."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effnet_edge.errors import EffnetEdgeError, NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    import numpy.typing as npt

    from effnet_edge.pictures.image import Pixels
    from effnet_edge.pictures.sources import ReadPicture
    from effnet_edge.runtime.predictions import Told


class Engine(Protocol):
    """What answers batches, as `EngineRunner` does."""

    @property
    def parallelism(self) -> int:
        """How many batches it works on best at the same time."""

    def submit(self, batch: Any, /) -> Future[npt.NDArray[np.float32]]:
        """Begin with uint8 pixels (N, H, W, C); the future gives (N, classes)."""


def answers(
    pictures: Iterator[ReadPicture],
    engine: Engine,
    told: Callable[[npt.NDArray[np.float32], str], list[Told]],
    *,
    batch_size: int,
    return_exceptions: bool,
) -> list[list[Told] | EffnetEdgeError]:
    """What `told` makes of the answer (classes,) to each picture and its name.

    Args:
        return_exceptions: a picture that cannot be read or has no finite answer has its error in
            its place; the first such error is raised otherwise.
    """
    found = []
    for _, answer in each_answer(pictures, engine, told, batch_size=batch_size):
        if isinstance(answer, EffnetEdgeError) and not return_exceptions:
            raise answer
        found.append(answer)
    return found


def each_answer(
    pictures: Iterator[ReadPicture],
    engine: Engine,
    told: Callable[[npt.NDArray[np.float32], str], list[Told]],
    *,
    batch_size: int,
    at_once: bool = False,
) -> Iterator[tuple[str, list[Told] | EffnetEdgeError]]:
    """Yield the name of each picture and what `told` makes of its answer, or why there is none.

    The next pictures are asked for while the engine works on those before: of a batch for each
    place in the engine and one more, no more are held.

    Args:
        at_once: no picture is asked for before all earlier ones are answered, as of a camera.
    """
    most = 0 if at_once else engine.parallelism
    under_way: deque[tuple[list[ReadPicture], Future[npt.NDArray[np.float32]] | None]] = deque()
    while chunk := list(islice(pictures, batch_size)):
        readable = [each.pixels for each in chunk if each.pixels is not None]
        under_way.append((chunk, engine.submit(np.stack(readable)) if readable else None))
        if len(under_way) > most:
            yield from _told_chunk(*under_way.popleft(), told)
    while under_way:
        yield from _told_chunk(*under_way.popleft(), told)


def _told_chunk(
    chunk: list[ReadPicture],
    future: Future[npt.NDArray[np.float32]] | None,
    told: Callable[[npt.NDArray[np.float32], str], list[Told]],
) -> Iterator[tuple[str, list[Told] | EffnetEdgeError]]:
    rows = iter(future.result() if future else ())
    for picture in chunk:
        if picture.error is not None:
            yield picture.name, picture.error
            continue
        try:
            answer: list[Told] | EffnetEdgeError = told(next(rows), picture.name)
        except NotFiniteError as error:
            answer = error
        yield picture.name, answer


def inputs(pictures: Iterator[ReadPicture], pixel_shape: tuple[int, ...]) -> Pixels:
    """All pictures as one array uint8 (N, H, W, C), N ≥ 0; raises the first one's error."""
    read = [pixels_of(each) for each in pictures]
    return np.stack(read) if read else np.empty((0, *pixel_shape), np.uint8)


def pixels_of(picture: ReadPicture) -> Pixels:
    """The network's input for a picture, uint8 (H, W, C); raises why there is none."""
    if picture.pixels is None:
        assert picture.error is not None
        raise picture.error
    return picture.pixels
