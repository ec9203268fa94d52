"""A deserialized engine of TensorRT or TensorRT-RTX: what it takes and gives, and its contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.runtime.interface import Interface, Span, Tensor
from effnet_edge.runtime.tensorrt.library import ErrorLog, library_of
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import tensorrt


class Engine:
    """One input, one output, one optimisation profile: what `effnet-edge build` makes.

    Attributes:
        input_shape, output_shape: of one image and its answer, without the batch.
        input_dtype: of the pixels.
        image_bytes, logits_bytes: of one image and its answer.
        largest_batch: images.
        input_bytes, output_bytes: of the largest batch.
        scratch_bytes: device memory that an execution context needs.
    """

    def __init__(
        self,
        target: str,
        plan: bytes,
        source: str,
        *,
        dla_core: int | None = None,
        version_compatible: bool = False,
    ) -> None:
        """Deserialize a plan of "tensorrt" or "tensorrt-rtx".

        Args:
            dla_core: the DLA core to run on, which the plan itself does not say.
            version_compatible: let the plan run the lean runtime of its own version, which it
                carries (NVIDIA TensorRT documentation, "Version Compatibility").

        Raises:
            BackendError: the library is not installed, or refuses the plan, which `source` names.
        """
        library = library_of(target)
        self._library, self.title = library, f"{TARGETS[target].title} {library.__version__}"
        self._log = ErrorLog(library)
        self._runtime = library.Runtime(self._log.logger)
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        if version_compatible:
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendError(
                f"{source}: {self.title} cannot load it: {self._log.reason()}: run effnet-edge "
                "build again"
            )
        self._input, self._output = self._tensors(source)
        self.input_shape = _of_one(self._engine.get_tensor_shape(self._input))
        self.output_shape = _of_one(self._engine.get_tensor_shape(self._output))
        self.input_dtype = np.dtype(library.nptype(self._engine.get_tensor_dtype(self._input)))
        self.image_bytes = _bytes(self.input_shape, self.input_dtype)
        self.logits_bytes = _bytes(self.output_shape, np.dtype(np.float32))
        self.largest_batch = self._largest_batch()
        self.input_bytes = self.largest_batch * self.image_bytes
        self.output_bytes = self.largest_batch * self.logits_bytes
        self.scratch_bytes = _scratch_bytes(self._engine)

    @property
    def interface(self) -> Interface:
        """What it takes and gives by the plan itself, in any batch: `bind` refuses a wrong one."""
        return Interface(
            (self._tensor(self._input, self.input_shape),),
            (self._tensor(self._output, self.output_shape),),
        )

    def new_context(self, scratch: int) -> tensorrt.IExecutionContext:
        """An execution context that works in the device memory at `scratch`.

        Raises:
            BackendError: the library makes none.
        """
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise BackendError(f"{self.title} makes no execution context: {self._log.reason()}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch, max(self.scratch_bytes, 1))
        else:
            context.device_memory = scratch
        return context

    def bind(
        self, context: tensorrt.IExecutionContext, images: int, pixels: int, logits: int
    ) -> None:
        """Let `context` take so many images from, and put the logits to, these device addresses.

        Raises:
            BackendError: the engine does not take such a batch.
        """
        bound = (
            context.set_input_shape(self._input, (images, *self.input_shape))
            and context.set_tensor_address(self._input, pixels)
            and context.set_tensor_address(self._output, logits)
        )
        if not bound:
            raise BackendError(f"{self.title} refuses a batch of {images}: {self._log.reason()}")

    def enqueue(self, context: tensorrt.IExecutionContext, stream: int) -> None:
        """Enqueue one run.

        Raises:
            BackendError: the library refuses.
        """
        if not context.execute_async_v3(stream):
            raise BackendError(f"{self.title} failed on a batch: {self._log.reason()}")

    def can_be_recorded(self, context: tensorrt.IExecutionContext, stream: int) -> bool:
        """Whether its runs may become a CUDA graph; TensorRT-RTX knows, TensorRT lets one try."""
        asked = getattr(context, "is_stream_capturable", None)
        return asked is None or bool(asked(stream))

    def description(self) -> str:
        """What the library's inspector tells of every layer, as JSON."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._library.LayerInformationFormat.JSON)
        return str(text)

    def close(self) -> None:
        """Release the engine, then the runtime that it came from."""
        del self._engine
        del self._runtime

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return Tensor(frozenset({name}), dtype.name, (Span(0, None), *map(Span.of, shape)))

    def _largest_batch(self) -> int:
        static = int(self._engine.get_tensor_shape(self._input)[0])
        if static > 0:
            return static
        return int(self._engine.get_tensor_profile_shape(self._input, 0)[2][0])

    def _tensors(self, source: str) -> tuple[str, str]:
        """The names of the one input and the one output."""
        engine, mode = self._engine, self._library.TensorIOMode
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(
                f"{source}: has {len(inputs)} inputs and {len(outputs)} outputs, "
                "and should have one of each: run effnet-edge build again"
            )
        return inputs[0], outputs[0]


def _scratch_bytes(engine: tensorrt.ICudaEngine) -> int:
    """TensorRT 10.0 has the older name alone, and 11 the newer."""
    newer = "device_memory_size_v2"
    return int(getattr(engine, newer if hasattr(engine, newer) else "device_memory_size"))


def _of_one(batch_shape: tensorrt.Dims) -> tuple[int, ...]:
    return tuple(int(batch_shape[axis]) for axis in range(1, len(batch_shape)))


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
