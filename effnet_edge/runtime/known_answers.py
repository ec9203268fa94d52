"""Answers to pictures that anybody can make, to which an engine is held where it runs.

The device has neither PyTorch nor the maker's pictures. So the network's answers travel with the
bundle, the pictures are a formula, and how far off an engine may be was settled where both were.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np

from effnet_edge.bundle import EngineCheck
from effnet_edge.bundle.schema import parse_json
from effnet_edge.errors import BackendError, BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from effnet_edge.bundle import Bundle, EngineRecord, Manifest

ANSWERS_FILE = "answers.json"
_MEAN, _TINT = 118.0, 30.0
_SMALL = 1e-9


@dataclass(frozen=True)
class _Kind:
    """How a picture is made: its amplitudes are frequency^−`slope`, its values `contrast` apart,
    and its channels by `own` of that from one another.
    """

    slope: float
    contrast: float
    own: float


_KINDS = (
    _Kind(0.7, 70.0, 0.1),
    _Kind(1.0, 40.0, 1.0),
    _Kind(1.3, 60.0, 0.3),
    _Kind(1.6, 50.0, 0.6),
)
_PICTURES = len(_KINDS)


class _Runner(Protocol):
    @property
    def manifest(self) -> Manifest: ...

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]: ...

    def close(self) -> None: ...


AnyRunner = TypeVar("AnyRunner", bound=_Runner)
Infer: TypeAlias = "Callable[[NDArray[np.uint8]], NDArray[np.float32]]"
"""From pixels (N, H, W, C), of any N, to outputs (N, outputs)."""


def known_pictures(manifest: Manifest) -> NDArray[np.uint8]:
    """Four pictures of noise with the spectrum of photographs, uint8 (4, H, W, C).

    They are as large as a bundle's input. INT8 loses as much on them as on photographs; on waves or
    white noise, which its ranges are not made for, it loses many times that. Amplitudes fall as the
    frequency grows (Field 1987, "Relations between the statistics of natural images and the
    response properties of cortical cells"), more or less so, with more or less contrast and colour:
    of pictures of one kind a network answers much the same to all. Another machine's Fourier
    transform may round a value to the next one.
    """
    side = manifest.input
    return _pictures(side.height, side.width, side.channels).copy()


@lru_cache(maxsize=2)
def _pictures(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    # The one generator of numpy whose numbers are promised to stay what they are.
    random = np.random.RandomState(0)
    pictures = []
    for kind in _KINDS:
        shared = _field(random, height, width, kind.slope)
        apart = [
            shared + kind.own * _field(random, height, width, kind.slope) for _ in range(channels)
        ]
        values = np.stack([each / max(each.std(), _SMALL) for each in apart], axis=-1)
        means = _MEAN + _TINT * random.normal(size=channels)
        pictures.append(means + kind.contrast * values)
    return np.rint(np.clip(np.stack(pictures), 0, 255)).astype(np.uint8)


def _field(
    random: np.random.RandomState, height: int, width: int, slope: float
) -> NDArray[np.float64]:
    """Noise whose amplitude is one over the frequency to the power of `slope`: deviation 1."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.normal(size=(height, width))) / frequency**slope
    values = np.fft.ifft2(spectrum).real
    return np.asarray(values / max(values.std(), _SMALL))


@dataclass(frozen=True)
class KnownAnswers:
    """What the network answers to `known_pictures`, and how far off a graph's engine may be.

    Attributes:
        exact: the network's own, float32 (4, outputs).
        allowed: the largest root mean square error: float64 (1,), of all outputs together, or
            (outputs,), of each by itself.
    """

    exact: NDArray[np.float32]
    allowed: NDArray[np.float64]

    def fits(self, outputs: int) -> bool:
        """Whether they are of so many outputs, and finite."""
        shaped = self.exact.shape == (_PICTURES, outputs) and self.allowed.shape in (
            (1,),
            (outputs,),
        )
        return bool(shaped and np.isfinite(self.exact).all() and (self.allowed >= 0).all())

    def errors(self, answers: NDArray[np.float32]) -> NDArray[np.float64]:
        """The root mean square error of answers (4, outputs), as many and of what `allowed` is."""
        squares = np.square(answers.astype(np.float64) - self.exact)
        each = squares.mean(0) if len(self.allowed) > 1 else np.full(1, squares.mean())
        return np.asarray(np.sqrt(each))

    def _farthest(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of answers (N ≥ 4, outputs) to the pictures in turns the worst to each, (4, outputs)."""
        found = self.exact.copy()
        for picture, exact in enumerate(self.exact):
            repeats = answers[picture::_PICTURES]
            worst = np.argmax(np.abs(repeats - exact), axis=0)  # NaN, where there is one
            found[picture] = np.take_along_axis(repeats, worst[None], axis=0)[0]
        return found

    def check(self, manifest: Manifest, infer: Infer) -> EngineCheck:
        """Compare at every batch size that the engine may be called with; the worst of all."""
        pictures, sizes = known_pictures(manifest), manifest.batch.sizes_to_check
        found = []
        for size in sizes:
            calls = -(-_PICTURES // size)
            rows = np.arange(calls * size).reshape(calls, size) % _PICTURES
            answers = np.concatenate([infer(pictures[each]) for each in rows])
            error, at_most = self._worst(self.errors(self._farthest(answers)))
            found.append(EngineCheck(error, at_most, sizes, size))
        broken = [each for each in found if not each.holds]
        return broken[0] if broken else max(found, key=EngineCheck.share)

    def _worst(self, errors: NDArray[np.float64]) -> tuple[float, float]:
        """The error that is largest beside what is allowed, or NaN, and that."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(errors == 0, 0.0, errors / self.allowed)
        worst = int(np.argmax(shares))
        return float(errors[worst]), float(self.allowed[worst])


def answers_text(exact: NDArray[np.float32], allowed: Mapping[str, NDArray[np.float64]]) -> str:
    """The text of `ANSWERS_FILE`; as `KnownAnswers` has them.

    Args:
        exact: the network's own.
        allowed: of each graph, by its file.
    """
    # With no more digits than float32 has.
    rows = [[float(str(each)) for each in row] for row in exact]
    limits = {name: each.tolist() for name, each in allowed.items()}
    return json.dumps({"exact": rows, "allowed": limits}) + "\n"


def read_answers(bundle: Bundle) -> KnownAnswers | None:
    """Those of the bundle's graph; None where it has no such file.

    Raises:
        BundleError: the file has no such answers.
    """
    name = bundle.manifest.answers
    if name is None:
        return None
    path = bundle.path / name
    document = parse_json(bundle.read(name), path)
    outputs = bundle.manifest.output.classes
    try:
        found = KnownAnswers(
            np.asarray(document["exact"], np.float32),
            np.asarray(document["allowed"][bundle.manifest.model], np.float64),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        found = None
    if found is None or not found.fits(outputs):
        raise BundleError(
            f"{path}: has no answers to {_PICTURES} pictures for {bundle.manifest.model}: make the "
            "bundle again"
        )
    return found


def check_engine(bundle: Bundle, manifest: Manifest, infer: Infer) -> EngineCheck | None:
    """How an engine answers; None where the bundle tells no answers.

    Args:
        manifest: the bundle's, with the engine's batch.

    Raises:
        BackendError: it answers otherwise than it may.
        BundleError: as of `read_answers`.
    """
    known = read_answers(bundle)
    if known is None:
        return None
    check = known.check(manifest, infer)
    if not check.holds:
        raise BackendError(
            f"{bundle.path}: {check}: update its library, or export it in another precision"
        )
    return check


def held(runner: AnyRunner, bundle: Bundle, engine: EngineRecord | None) -> AnyRunner:
    """The runner itself, whose engine was compared where it was built, or is now.

    Raises:
        BackendError, BundleError: as of `check_engine`; it is closed then.
    """
    if engine is None or engine.check is not None:
        return runner
    try:
        check_engine(bundle, runner.manifest, runner.infer)
    except BaseException:
        runner.close()
        raise
    return runner
