"""Pictures and videos that are named, and a bundle's answers to them, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from effnet_edge.cli.picture_arguments import Named
    from effnet_edge.errors import EffnetEdgeError
    from effnet_edge.pictures.sources import ReadPicture
    from effnet_edge.pictures.video import Video
    from effnet_edge.runtime import EngineRunner, Estimate, Prediction

Told: TypeAlias = Callable[[Any, str], list[Any]]

Answer: TypeAlias = "tuple[str, Sequence[Prediction | Estimate] | EffnetEdgeError]"
"""The name of a picture or frame, and its answer, or why it has none."""


@dataclass(frozen=True)
class Answered:
    """What is to be answered, and by what.

    Attributes:
        named: pictures and videos by their names.
        told: makes predictions of a picture's answer (classes,) and its name.
        every: seconds from one frame of a video to the next that is taken; None for all.
    """

    runner: EngineRunner
    named: Mapping[str, Named]
    told: Told
    every: float | None

    @property
    def videos(self) -> list[Video]:
        """Those of what is named."""
        from effnet_edge.pictures.video import Video

        return [each for each in self.named.values() if isinstance(each, Video)]

    @property
    def total(self) -> int:
        """How many answers there will be; 0 where a video does not say."""
        return 0 if self.videos else len(self.named)

    def check(self, *, resume: bool, at_the_end: bool) -> None:
        """See that what is asked for can be done.

        Args:
            resume: what a run before has answered is left out.
            at_the_end: nothing is printed before all is answered.

        Raises:
            UsageError: it cannot.
        """
        if self.every is not None and not self.videos:
            raise UsageError("--every is of videos and cameras, and none is named: leave it out")
        cameras = [video for video in self.videos if video.device is not None]
        if cameras and resume:
            raise UsageError(f"--resume: what {cameras[0]} showed before is gone: leave it out")
        if cameras and at_the_end:
            raise UsageError(
                f"--json prints at the end, which {cameras[0]} has not: give --jsonl FILE, which "
                "has a line for each frame at once"
            )

    def answers(self, done: Container[str] = ()) -> Iterator[Answer]:
        """Of pictures first, then of videos; none of those whose name is done.

        As many are answered at a time as the engine takes best.
        """
        yield from self.of_pictures(done)
        for video in self.videos:
            yield from self.of_video(video, self.runner.manifest.batch.optimum, done)

    def of_pictures(self, done: Container[str] = ()) -> Iterator[Answer]:
        """Of those that are no videos, decoded ahead."""
        from effnet_edge.pictures.ahead import in_order
        from effnet_edge.pictures.sources import read_picture

        read = partial(read_picture, preprocessing=self.runner.manifest.preprocessing)
        videos = {str(video) for video in self.videos}
        missing = [
            picture
            for name, picture in self.named.items()
            if name not in videos and name not in done
        ]
        yield from self._of(in_order(read, missing), self.runner.manifest.batch.optimum)

    def of_video(
        self, video: Video, batch_size: int, done: Container[str] = ()
    ) -> Iterator[Answer]:
        """Of each frame as it comes; a camera's are never waited for to fill a batch."""
        from effnet_edge.pictures.video import read_video

        frames = read_video(video, self.runner.manifest.preprocessing, self.every)
        missing = (frame for frame in frames if frame.name not in done)
        is_camera = video.device is not None
        yield from self._of(missing, 1 if is_camera else batch_size, at_once=is_camera)

    def _of(
        self, pictures: Iterator[ReadPicture], batch_size: int, *, at_once: bool = False
    ) -> Iterator[Answer]:
        from effnet_edge.runtime.answers import each_answer

        yield from each_answer(
            pictures, self.runner, self.told, batch_size=batch_size, at_once=at_once
        )
