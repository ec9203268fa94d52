"""`EngineRunner`: a bundle made ready to run, whatever engine is inside."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from effnet_edge.bundle import Bundle
from effnet_edge.bundle.signing import TrustedKey
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.pictures.image import normalize, prepare
from effnet_edge.runtime.backend import EngineSpec, load_backend
from effnet_edge.runtime.device_array import DeviceArray, ExportsDeviceArray, device_array
from effnet_edge.runtime.interface import interface_of
from effnet_edge.runtime.lifetime import Lifetime, enter_loading
from effnet_edge.runtime.predictions import Classes, Estimate, Prediction, Values
from effnet_edge.runtime.workers import Workers
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from effnet_edge.bundle import EngineRecord, Manifest
    from effnet_edge.labels import Label
    from effnet_edge.pictures.image import ImageSource
    from effnet_edge.runtime.backend import Backend

Batch: TypeAlias = npt.NDArray[np.uint8 | np.float32]
Logits: TypeAlias = npt.NDArray[np.float32]
Told = TypeVar("Told", Prediction, Estimate)

EXECUTION_PRECISIONS = ("fp32", "fp16", "bf16")


class EngineRunner:
    """Runs a bundle. Every method may be called from many threads at once.

    with EngineRunner.load("b0-openvino-fp32") as run:
        top = run.classify("cat.jpg")
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle.released()
        self.manifest: Manifest = bundle.manifest
        self.labels: tuple[Label, ...] | None = bundle.labels
        self.name = bundle.path.name
        self.device = backend.device
        self._backend = backend
        self._batch = bundle.manifest.batch
        self._classes = bundle.manifest.output.classes
        self._dtype, self._image_shape = _engine_input(bundle.manifest)
        size, channels = bundle.manifest.preprocessing.resolution, bundle.manifest.input.channels
        self._pixel_shape = (size.height, size.width, channels)
        self._workers = Workers(backend.parallelism)
        self._lifetime = Lifetime(bundle.path, self._workers, backend.close)
        self._execution_precision: str | None = None

    @classmethod
    def load(
        cls,
        bundle_path: str | os.PathLike[str],
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        throughput: bool = False,
        rebuild: bool = False,
        trusted: str | os.PathLike[str] | bytes | None = None,
    ) -> EngineRunner:
        """Check a bundle and load its engine.

        `device` is the backend's name for it ("CPU", "GPU", …; its CPU by default) and `threads`
        the number of CPU threads. `precision` is the execution precision ("fp32", "fp16", "bf16").
        Without it FP32 bundles run in FP32, where a plugin might choose BF16 unasked, and others as
        the engine likes. `throughput` asks for many batches at once rather than one soon.
        `trusted` is a public Ed25519 key, a PEM file or its bytes: what it has not signed is
        refused before anything else of the bundle is parsed.

        Raises:
            UsageError: no such path, or an option that this backend or machine does not have.
            BundleError: the bundle is damaged, foreign, too new, not signed by `trusted`, or not
                what its manifest says.
            BackendError: the backend is not installed, or cannot load the engine.

        """
        bundle = Bundle.load(bundle_path, trusted=None if trusted is None else TrustedKey(trusted))
        return cls.of(
            bundle,
            device=device,
            threads=threads,
            precision=precision,
            throughput=throughput,
            rebuild=rebuild,
        )

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        throughput: bool = False,
        rebuild: bool = False,
    ) -> EngineRunner:
        """Load the engine of a bundle that has been read and checked already; see `load`.

        Raises:
            UsageError: an option that this backend or machine does not have.
            BundleError: a file has been changed since, or the engine is not what the manifest says.
            BackendError: the backend is not installed, or cannot load the engine.

        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: needs 1 or more")
        if precision not in (None, *EXECUTION_PRECISIONS):
            raise UsageError(
                f"precision {precision!r}: choose from {', '.join(EXECUTION_PRECISIONS)}"
            )
        bundle, engine = _runnable(bundle, device, rebuild)
        manifest = bundle.manifest
        spec = EngineSpec(
            model_path=bundle.path / engine.file if engine else bundle.model_path,
            model_precision=manifest.precision,
            built_with=manifest.tools.get(TARGETS[manifest.target].package),
            engine=engine,
            device=device,
            threads=threads,
            precision=precision or ("fp32" if manifest.precision == "fp32" else None),
            throughput=throughput,
            read=lambda path: bundle.read(path.name),
            interface=interface_of(manifest),
        )
        visit = threading.Lock()
        with visit:
            enter_loading(visit)
            return cls(bundle, load_backend(manifest.target, spec))

    def infer(self, batch: Batch | ExportsDeviceArray) -> Logits:
        """Give the float32 logits (N, classes) of N images, N ≥ 0, in an array of their own.

        A regression gives values (N, outputs), a bundle without a classifier features (N, C). They
        are as the engine gives them, NaN and infinite ones, too, which `classify` refuses. `batch`
        is uint8 pixels (N, H, W, C), RGB or the bundle's own channels; bundles whose engine takes
        float32 also take normalized values (N, C, H, W). What the engine takes itself is not
        copied. More images than the engine's batch are split; fewer than a static batch are padded.
        TensorRT bundles also take such an array where it lies on the GPU, of any library that has
        DLPack or `__cuda_array_interface__`; it is read in place and must stay as it is until the
        answer.

        Raises:
            UsageError: another shape or type.
            BackendError: the runner is closed, or the engine failed.

        """
        visit = threading.Lock()
        with visit:
            self._lifetime.enter(visit)
            return self._run(self._accept(batch))

    def submit(self, batch: Batch | ExportsDeviceArray) -> Future[Logits]:
        """Like `infer`, later: the future gives the logits, or raises what the engine raised.

        The batch is copied, so the caller may reuse its buffer; not so an array on the GPU, which
        must stay as it is until the future is done. Batches run in the order they were
        submitted, as many at a time as the engine works on best. Twice as many may be under way:
        beyond that `submit` waits, so that a fast camera cannot fill the memory; it does not
        in a callback of a future, and callbacks of several futures may run at once.

        Raises:
            UsageError: another shape or type than `infer` takes.
            BackendError: the runner is closed.

        """
        visit = threading.Lock()
        with visit:
            self._lifetime.enter(visit)
            accepted = self._accept(batch)
            kept = accepted.copy() if isinstance(accepted, np.ndarray) else accepted
            return self._workers.submit(partial(self._run, kept))

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is a sequence, too
        self, images: ImageSource, top: int | None = None, threshold: float | None = None
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self, images: Sequence[ImageSource], top: int | None = None, threshold: float | None = None
    ) -> list[list[Prediction]]: ...

    def classify(
        self,
        images: ImageSource | Sequence[ImageSource],
        top: int | None = None,
        threshold: float | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """The `top` most probable classes of an image, best first; a list of images gives a list.

        Without `top` there are 5. Of a multi-label bundle all classes are given whose own
        probability is `threshold` or more (0.5 if None), or the `top` best of them.

        An image is whatever `effnet_edge.pictures.image.decode` takes: a path, the bytes of a
        file, a Pillow image, or a uint8 array (H, W, 3).

        Raises:
            UsageError: an option is out of its range or not for this bundle, or it has no classes:
                of a regression see `estimate`.
            ImageError: a picture cannot be used.
            NotFiniteError: the engine answers a picture with NaN or an infinity.
            BackendError: the runner is closed, or the engine failed.

        """
        classes = Classes(self.manifest.output.kind, self.labels, top, threshold)
        if isinstance(images, list | tuple):
            return self._each(images, classes.of)
        return self._each([cast("ImageSource", images)], classes.of)[0]

    @overload
    def estimate(  # type: ignore[overload-overlap]  # as above
        self, images: ImageSource
    ) -> list[Estimate]: ...

    @overload
    def estimate(self, images: Sequence[ImageSource]) -> list[list[Estimate]]: ...

    def estimate(
        self, images: ImageSource | Sequence[ImageSource]
    ) -> list[Estimate] | list[list[Estimate]]:
        """The values that a regression gives for an image, all of them; a list gives a list.

        Images are as for `classify`.

        Raises:
            UsageError: the bundle is no regression.
            ImageError, NotFiniteError, BackendError: as from `classify`.

        """
        values = Values(self.manifest.output.kind, self._classes, self.labels)
        if isinstance(images, list | tuple):
            return self._each(images, values.of)
        return self._each([cast("ImageSource", images)], values.of)[0]

    def warmup(self, runs: int = 3) -> None:
        """Run blank images, so that what an engine does once is done before it is timed."""
        blank = np.zeros((self._batch.optimum, *self._image_shape), self._dtype)
        for size in {self._batch.minimum, self._batch.optimum}:
            for _ in range(runs):
                self.infer(blank[:size])

    @property
    def execution_precision(self) -> str:
        """What the engine really runs most of the network in: "FP32", "BF16", "FP16" or "INT8"."""
        if self._execution_precision is None:
            visit = threading.Lock()
            with visit:
                self._lifetime.enter(visit)
                self._execution_precision = self._backend.execution_precision
        return self._execution_precision

    def close(self) -> None:
        """Wait for work under way, futures included, and release the engine; may be repeated.

        Within a callback of a future, or a signal handler that came during `infer`, it does not
        wait: the engine is released as soon as that work is done. What is still open when the
        interpreter ends is closed then.
        """
        self._lifetime.close()

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self, batch: object) -> Batch | DeviceArray:
        """`batch` as the engine takes it, the same memory where possible."""
        if isinstance(batch, np.ndarray):
            image_shape = batch.shape[1:]
            if batch.dtype == self._dtype and image_shape == self._image_shape:
                return np.ascontiguousarray(batch)
            if batch.dtype == np.uint8 and image_shape == self._pixel_shape:
                pixels = cast("npt.NDArray[np.uint8]", batch)
                return normalize(pixels, self.manifest.preprocessing)
        elif self._backend.takes_device_arrays:
            on_device = device_array(batch)
            if on_device is not None:
                return self._accept_on_device(on_device)
        raise UsageError(self._refusal(batch))

    def _accept_on_device(self, batch: DeviceArray) -> DeviceArray:
        """Nothing is converted or padded on the GPU: what the engine takes, or an error."""
        if batch.dtype != self._dtype or batch.shape[1:] != self._image_shape:
            wanted = ", ".join(str(size) for size in self._image_shape)
            raise UsageError(
                f"{self.name} takes {self._dtype} (N, {wanted}) on the GPU, got {batch.dtype} "
                f"{batch.shape}"
            )
        if 0 < len(batch) % self._batch.maximum < self._batch.minimum:
            raise UsageError(
                f"{self.name} takes {self._batch.minimum} to {self._batch.maximum} images at once "
                f"on the GPU, got {len(batch)}"
            )
        return batch

    def _refusal(self, batch: object) -> str:
        height, width, channels = self._pixel_shape
        shape = f"{height}, {width}, {channels}"
        takes = f"uint8 images ({shape}) as one array (N, {shape})"
        if self._dtype == np.float32:
            takes += f", or float32 (N, {channels}, {height}, {width})"
        if not isinstance(batch, np.ndarray):
            return f"{self.name} takes {takes}, got {type(batch).__name__}"
        hint = ""
        if batch.shape in (self._pixel_shape, self._image_shape):
            hint = ": add the batch axis with image[None]"
        return f"{self.name} takes {takes}, got {batch.dtype} {batch.shape}{hint}"

    def _run(self, batch: Batch | DeviceArray) -> Logits:
        if self._batch.minimum <= len(batch) <= self._batch.maximum:
            return self._answer(batch)
        parts = [self._run_part(part) for part in _split(batch, self._batch.maximum)]
        return np.concatenate([np.empty((0, self._classes), np.float32), *parts])

    def _run_part(self, part: Batch | DeviceArray) -> Logits:
        missing = self._batch.minimum - len(part)
        if missing <= 0 or not isinstance(part, np.ndarray):
            return self._answer(part)
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        return self._answer(padded)[: len(part)].copy()

    def _answer(self, batch: Batch | DeviceArray) -> Logits:
        """The engine's answer, which its own description may have left open."""
        logits = self._backend.infer(batch)
        if logits.shape != (len(batch), self._classes):
            raise BackendError(
                f"{self.bundle.path}: the engine gives {logits.shape} for {len(batch)} images of "
                f"{self._classes} classes: export the bundle again"
            )
        return logits

    def _each(
        self, images: Sequence[ImageSource], told: Callable[[Logits, str], list[Told]]
    ) -> list[list[Told]]:
        """What `told` makes of the answer (classes,) to each image."""
        predictions: list[list[Told]] = []
        for start in range(0, len(images), self._batch.maximum):
            chunk = images[start : start + self._batch.maximum]
            pixels = [prepare(image, self.manifest.preprocessing) for image in chunk]
            predictions += [
                told(logits, _name(image, start + index))
                for index, (image, logits) in enumerate(
                    zip(chunk, self.infer(np.stack(pixels)), strict=True)
                )
            ]
        return predictions


def _name(image: ImageSource, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"picture {index + 1}"


def _engine_input(manifest: Manifest) -> tuple[np.dtype[np.uint8 | np.float32], tuple[int, ...]]:
    spec = manifest.input
    if spec.dtype == "uint8":
        return np.dtype(np.uint8), (spec.height, spec.width, spec.channels)
    return np.dtype(np.float32), (spec.channels, spec.height, spec.width)


def _runnable(
    bundle: Bundle, device: str | None, rebuild: bool
) -> tuple[Bundle, EngineRecord | None]:
    """The bundle as its engine runs it, and that engine, if it is one compiled from the model."""
    if not TARGETS[bundle.manifest.target].built_on_device:
        return bundle, None
    from effnet_edge.runtime.tensorrt.selection import with_engine

    bundle, engine = with_engine(bundle, device, rebuild=rebuild)
    narrowed = replace(bundle.manifest, batch=engine.batch)
    return replace(bundle, manifest=narrowed), engine


def _split(batch: Batch | DeviceArray, size: int) -> Iterator[Batch | DeviceArray]:
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
