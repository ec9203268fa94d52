"""`EngineRunner`: a bundle made ready to run, whatever engine is inside."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from effnet_edge.arguments import whole_number
from effnet_edge.bundle import Bundle
from effnet_edge.bundle.signing import TrustedKey
from effnet_edge.errors import BackendError
from effnet_edge.pictures.sources import read_pictures
from effnet_edge.runtime.answers import answers, inputs, pixels_of
from effnet_edge.runtime.backend import load_backend
from effnet_edge.runtime.batches import Logits, in_batches
from effnet_edge.runtime.entrance import Batch, Entrance
from effnet_edge.runtime.huge_pages import EngineMemory
from effnet_edge.runtime.known_answers import held
from effnet_edge.runtime.layer_times import asked_clock
from effnet_edge.runtime.lifetime import Lifetime, enter_loading
from effnet_edge.runtime.predictions import Classes, Estimate, Prediction, Told, Values, each_row
from effnet_edge.runtime.runnable import runnable
from effnet_edge.runtime.workers import Workers
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from effnet_edge.bundle import Manifest
    from effnet_edge.errors import EffnetEdgeError
    from effnet_edge.labels import Label
    from effnet_edge.pictures.image import Pixels
    from effnet_edge.pictures.sources import Picture, Tensor
    from effnet_edge.runtime.backend import Backend
    from effnet_edge.runtime.device_array import DeviceArray
    from effnet_edge.runtime.layer_times import LayerTime


class EngineRunner:
    """Runs a bundle. Every method may be called from many threads at once.

    with EngineRunner.load("b0-openvino-fp32") as run:
        top = run.classify("cat.jpg")
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, memory: EngineMemory | None = None
    ) -> None:
        self.bundle = bundle.released()
        self.manifest: Manifest = bundle.manifest
        self.labels: tuple[Label, ...] | None = bundle.labels
        self.name = bundle.name
        self.device = backend.device
        self._backend = backend
        self._memory = memory
        self._batch = bundle.manifest.batch
        self._classes = bundle.manifest.output.classes
        self._entrance = Entrance(
            self.name, bundle.manifest, takes_device_arrays=backend.takes_device_arrays
        )
        self.parallelism = backend.parallelism
        self._workers = Workers(self.parallelism)
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
        streams: int | None = None,
        rebuild: bool = False,
        trusted: str | os.PathLike[str] | bytes | None = None,
    ) -> EngineRunner:
        """Check a bundle and load its engine.

        `device` is the backend's name for it ("CPU", "GPU", …; its CPU by default) and `threads`
        the number of CPU threads. `precision` is the execution precision ("fp32", "fp16", "bf16").
        Without it FP32 bundles run in FP32, where a plugin might choose BF16 unasked, and others as
        the engine likes. `throughput` asks for many batches at once rather than one soon, `streams`
        for that many of them. `rebuild` compiles a TensorRT engine for this machine, and keeps it
        in the bundle, if there is none. `trusted` is a public Ed25519 key, a PEM file or its bytes:
        what it has not signed is refused before anything else of the bundle is parsed.

        Raises:
            UsageError: no such path, or an option that this backend or machine does not have.
            BundleError: the bundle is damaged, foreign, too new, or not signed by `trusted`.
            BackendError: the backend is not installed, or its engine cannot be loaded or is wrong.
        """
        bundle = Bundle.load(bundle_path, trusted=None if trusted is None else TrustedKey(trusted))
        return cls.of(
            bundle,
            device=device,
            threads=threads,
            precision=precision,
            throughput=throughput,
            streams=streams,
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
        streams: int | None = None,
        rebuild: bool = False,
    ) -> EngineRunner:
        """Load the engine of a bundle that has been read already; options and errors as of `load`.

        BundleError is raised where a file has been changed since.
        """
        bundle, spec = runnable(
            bundle,
            device=device,
            threads=threads,
            precision=precision,
            throughput=throughput,
            streams=streams,
            rebuild=rebuild,
        )
        visit = threading.Lock()
        with visit:
            enter_loading(visit)
            memory = EngineMemory()
            runner = cls(bundle, load_backend(bundle.manifest.target, spec), memory)
        return held(runner, bundle, spec.engine)

    def infer(self, batch: Batch | Sequence[Batch | Tensor] | Tensor) -> Logits:
        """Give the float32 logits (N, classes) of N images, N ≥ 0, in an array of their own.

        A regression gives values (N, outputs), a bundle without a classifier features (N, C). They
        are as the engine gives them, NaN and infinite ones, too, which `classify` refuses. `batch`
        is what `prepare` gives: uint8 pixels (N, H, W, C), RGB or the bundle's own channels;
        bundles whose engine takes float32 also take normalized values (N, C, H, W). A list of such
        images is stacked, a tensor on the CPU is read by DLPack, and what the engine takes itself
        is not copied. More images than the engine's batch are split; fewer than a static batch are
        padded. TensorRT bundles also take such an array where it lies on the GPU, of any library
        that has DLPack or `__cuda_array_interface__`; it is read in place and must stay as it is
        until the answer.

        Raises:
            UsageError: another shape or type.
            BackendError: the runner is closed, or the engine failed.
        """
        visit = threading.Lock()
        with visit:
            self._lifetime.enter(visit)
            return self._run(self._entrance.accept(batch))

    def submit(self, batch: Batch | Sequence[Batch | Tensor] | Tensor) -> Future[Logits]:
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
            accepted = self._entrance.accept(batch)
            kept = accepted.copy() if isinstance(accepted, np.ndarray) else accepted
            return self._workers.submit(partial(self._run, kept))

    def prepare(self, images: Picture | Iterable[Picture], *, bgr: bool = False) -> Pixels:
        """What `infer` takes, uint8 (N, H, W, C), of one picture (N = 1) or several.

        Pictures are as for `classify`.

        Raises:
            UsageError, ImageError: as from `classify`.
        """
        pictures, _ = read_pictures(images, self.manifest.preprocessing, bgr=bgr)
        return inputs(pictures, self._entrance.pixel_shape)

    def predictions(
        self, logits: Logits, top: int | None = None, threshold: float | None = None
    ) -> list[list[Prediction]]:
        """The classes that each row of `infer`'s answer (N, classes) tells, as `classify` does.

        Raises:
            UsageError: another shape, or as from `classify`.
            NotFiniteError: a row has NaN or an infinity.
        """
        classes = Classes(self.manifest.output.kind, self.labels, top, threshold)
        return each_row(classes.of, logits, self._classes)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str, bytes or an array is iterable, too
        self,
        images: Picture,
        top: int | None = None,
        threshold: float | None = None,
        *,
        bgr: bool = False,
        return_exceptions: bool = False,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        images: Iterable[Picture],
        top: int | None = None,
        threshold: float | None = None,
        *,
        bgr: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[list[Prediction]]: ...

    @overload
    def classify(
        self,
        images: Iterable[Picture],
        top: int | None = None,
        threshold: float | None = None,
        *,
        bgr: bool = False,
        return_exceptions: bool,
    ) -> list[list[Prediction] | EffnetEdgeError]: ...

    def classify(
        self,
        images: Picture | Iterable[Picture],
        top: int | None = None,
        threshold: float | None = None,
        *,
        bgr: bool = False,
        return_exceptions: bool = False,
    ) -> object:
        """The `top` most probable classes of a picture, best first; of several, a list of those.

        Without `top` there are 5. Of a multi-label bundle all classes are given whose own
        probability is `threshold` or more (0.5 if None), or the `top` best of them.

        A picture is a path, the bytes of a file, an open file, a Pillow image, or a uint8 array or
        CPU tensor: (H, W) greyscale, (H, W, 3) RGB or (H, W, 4) RGBA, whose transparency is laid
        over white; with `bgr` the colours of arrays are in the order of OpenCV. Several are in
        whatever can be iterated, an array (N, H, W, C), a folder or a pattern ("in/*.jpg"), both in
        the order of `effnet_edge.pictures.sources.picture_paths`. With `return_exceptions` one that
        cannot be used has its error in its place of the list.

        Raises:
            UsageError: a path that does not exist, an option is out of its range or not for this
                bundle, or it has no classes: of a regression see `estimate`.
            ImageError: a picture cannot be used.
            NotFiniteError: the engine answers a picture with NaN or an infinity.
            BackendError: the runner is closed, or the engine failed.
        """
        classes = Classes(self.manifest.output.kind, self.labels, top, threshold)
        return self._told(classes.of, images, bgr, return_exceptions)

    @overload
    def estimate(  # type: ignore[overload-overlap]  # as above
        self, images: Picture, *, bgr: bool = False, return_exceptions: bool = False
    ) -> list[Estimate]: ...

    @overload
    def estimate(
        self,
        images: Iterable[Picture],
        *,
        bgr: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[list[Estimate]]: ...

    @overload
    def estimate(
        self, images: Iterable[Picture], *, bgr: bool = False, return_exceptions: bool
    ) -> list[list[Estimate] | EffnetEdgeError]: ...

    def estimate(
        self,
        images: Picture | Iterable[Picture],
        *,
        bgr: bool = False,
        return_exceptions: bool = False,
    ) -> object:
        """The values that a regression gives for a picture, all of them; of several, a list.

        Pictures and options are as for `classify`.

        Raises:
            UsageError: the bundle is no regression, or as from `classify`.
            ImageError, NotFiniteError, BackendError: as from `classify`.
        """
        values = Values(self.manifest.output.kind, self._classes, self.labels)
        return self._told(values.of, images, bgr, return_exceptions)

    def _told(
        self,
        told: Callable[[Logits, str], list[Told]],
        images: Picture | Iterable[Picture],
        bgr: bool,
        return_exceptions: bool,
    ) -> list[Told] | list[list[Told] | EffnetEdgeError]:
        pictures, several = read_pictures(images, self.manifest.preprocessing, bgr=bgr)
        if not several:
            (picture,) = pictures
            return told(self.infer(pixels_of(picture)[None])[0], picture.name)
        return answers(
            pictures,
            self,
            told,
            batch_size=self._batch.maximum,
            return_exceptions=return_exceptions,
        )

    def warmup(self, runs: int = 3) -> None:
        """Run blank images, so that what an engine does once is done before it is timed.

        On the CPU its memory is in huge pages then, where Linux has them: some calls are faster.
        """
        for size in {self._batch.minimum, self._batch.optimum}:
            for _ in range(whole_number("runs", runs, 0)):
                self.infer(self._entrance.blank(size))
        if self._memory is not None and self.device == "CPU":
            self._memory.use_huge_pages()

    @property
    def execution_precision(self) -> str:
        """What the engine really runs most of the network in: "FP32", "BF16", "FP16" or "INT8"."""
        if self._execution_precision is None:
            visit = threading.Lock()
            with visit:
                self._lifetime.enter(visit)
                self._execution_precision = self._backend.execution_precision
        return self._execution_precision

    def layer_times(self, size: int, runs: int = 20) -> list[LayerTime]:
        """How long each layer takes on `size` blank images at once, in a median of `runs` runs.

        Raises UsageError where the library tells none, or takes no such number at once.
        """
        clock, size, runs = asked_clock(self._backend, self.manifest, size, runs)
        visit = threading.Lock()
        with visit:
            self._lifetime.enter(visit)
            return clock.layer_times(self._entrance.blank(size), runs)

    def close(self) -> None:
        """Wait for work under way, futures included, and release the engine; may be repeated.

        Within a callback of a future, or a signal handler that came during `infer`, it does not
        wait: the engine is released as soon as that work is done. What is still open when the
        interpreter ends is closed then.
        """
        self._lifetime.close()

    def __repr__(self) -> str:
        spec, output = self.manifest.input, self.manifest.output
        shape = ", ".join(map(str, self._entrance.image_shape))
        return (
            f"<EngineRunner {self.name}: {TARGETS[self.manifest.target].title} on {self.device}, "
            f"{self.manifest.precision}, {spec.dtype} (N, {shape}) to {output.kind} "
            f"(N, {output.classes}), {self._batch} at once, {self._lifetime.state.name.lower()}>"
        )

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, batch: Batch | DeviceArray) -> Logits:
        return in_batches(self._answer, batch, self._batch, self._classes)

    def _answer(self, batch: Batch | DeviceArray) -> Logits:
        """The engine's answer, which its own description may have left open."""
        logits = self._backend.infer(batch)
        if logits.shape != (len(batch), self._classes):
            raise BackendError(
                f"{self.bundle.path}: the engine gives {logits.shape} for {len(batch)} images of "
                f"{self._classes} classes: export the bundle again"
            )
        return logits
