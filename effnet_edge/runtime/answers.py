"""From pictures as they are read to what a person is told of each, a batch at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from effnet_edge.errors import EffnetEdgeError
    from effnet_edge.pictures.image import Pixels
    from effnet_edge.pictures.sources import ReadPicture
    from effnet_edge.runtime.predictions import Told


def answers(
    pictures: Iterator[ReadPicture],
    infer: Callable[[Pixels], npt.NDArray[np.float32]],
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
    if not return_exceptions:
        pictures = _raised(pictures)
    found = []
    for _, answer in each_answer(pictures, infer, told, batch_size=batch_size):
        if isinstance(answer, NotFiniteError) and not return_exceptions:
            raise answer
        found.append(answer)
    return found


def each_answer(
    pictures: Iterator[ReadPicture],
    infer: Callable[[Pixels], npt.NDArray[np.float32]],
    told: Callable[[npt.NDArray[np.float32], str], list[Told]],
    *,
    batch_size: int,
) -> Iterator[tuple[str, list[Told] | EffnetEdgeError]]:
    """Yield the name of each picture and what `told` makes of its answer, or why there is none.

    No more than `batch_size` pictures are held.
    """
    while chunk := list(islice(pictures, batch_size)):
        readable = [each.pixels for each in chunk if each.pixels is not None]
        rows = iter(infer(np.stack(readable)) if readable else ())
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
    read = [each.pixels for each in _raised(pictures) if each.pixels is not None]
    return np.stack(read) if read else np.empty((0, *pixel_shape), np.uint8)


def _raised(pictures: Iterator[ReadPicture]) -> Iterator[ReadPicture]:
    for picture in pictures:
        if picture.error is not None:
            raise picture.error
        yield picture
