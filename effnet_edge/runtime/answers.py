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
    found: list[list[Told] | EffnetEdgeError] = []
    if not return_exceptions:
        pictures = _raised(pictures)
    while chunk := list(islice(pictures, batch_size)):
        readable = [each.pixels for each in chunk if each.pixels is not None]
        rows = iter(infer(np.stack(readable)) if readable else ())
        for picture in chunk:
            if picture.error is not None:
                found.append(picture.error)
                continue
            try:
                found.append(told(next(rows), picture.name))
            except NotFiniteError as error:
                if not return_exceptions:
                    raise
                found.append(error)
    return found


def inputs(pictures: Iterator[ReadPicture], pixel_shape: tuple[int, ...]) -> Pixels:
    """All pictures as one array uint8 (N, H, W, C), N ≥ 0; raises the first one's error."""
    read = [each.pixels for each in _raised(pictures) if each.pixels is not None]
    return np.stack(read) if read else np.empty((0, *pixel_shape), np.uint8)


def _raised(pictures: Iterator[ReadPicture]) -> Iterator[ReadPicture]:
    for picture in pictures:
        if picture.error is not None:
            raise picture.error
        yield picture
