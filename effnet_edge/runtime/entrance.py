"""What `infer` takes: brought into the engine's form, or refused with what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from effnet_edge.errors import UsageError
from effnet_edge.pictures.decoding import describe
from effnet_edge.pictures.image import normalize
from effnet_edge.pictures.tensors import host_array
from effnet_edge.runtime.device_array import DeviceArray, device_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.bundle import Manifest
    from effnet_edge.pictures.tensors import HostArray

Batch: TypeAlias = npt.NDArray[np.uint8 | np.float32]


class Entrance:
    """Takes batches for one engine.

    Args:
        name: of the bundle, for messages.
        takes_device_arrays: whether the engine reads arrays on the GPU, too.
    """

    def __init__(self, name: str, manifest: Manifest, *, takes_device_arrays: bool) -> None:
        spec = manifest.input
        self._name, self._batch = name, manifest.batch
        self._preprocessing = manifest.preprocessing
        self._takes_device_arrays = takes_device_arrays
        size = manifest.preprocessing.resolution
        self.pixel_shape = (size.height, size.width, spec.channels)
        self.dtype: np.dtype[np.uint8 | np.float32] = np.dtype(np.uint8)
        self.image_shape: tuple[int, ...] = self.pixel_shape
        if spec.dtype != "uint8":
            self.dtype = np.dtype(np.float32)
            self.image_shape = (spec.channels, spec.height, spec.width)

    def accept(self, batch: object) -> Batch | DeviceArray:
        """`batch` as the engine takes it, the same memory where possible.

        Raises:
            UsageError: another type or shape.
        """
        array = self._stacked(batch) if isinstance(batch, list | tuple) else host_array(batch)
        if array is not None:
            if array.dtype == self.dtype and array.shape[1:] == self.image_shape:
                return np.ascontiguousarray(array)
            if array.dtype == np.uint8 and array.shape[1:] == self.pixel_shape:
                return normalize(cast("npt.NDArray[np.uint8]", array), self._preprocessing)
        elif self._takes_device_arrays:
            on_device = device_array(batch)
            if on_device is not None:
                return self._accept_on_device(on_device)
        raise self._refusal(batch, array)

    def _stacked(self, images: Sequence[object]) -> HostArray:
        """A list of images as one array; one image alone is not copied."""
        arrays: list[HostArray] = []
        for index, image in enumerate(images):
            array = host_array(image)
            fits = array is not None and (
                (array.dtype == self.dtype and array.shape == self.image_shape)
                or (array.dtype == np.uint8 and array.shape == self.pixel_shape)
            )
            if array is None or not fits:
                got = type(image).__name__ if array is None else describe(array)
                raise self._refused(f"list with {got} at index {index}")
            if arrays and array.dtype != arrays[0].dtype:
                raise self._refused(f"list with {array.dtype} and {arrays[0].dtype} in it")
            arrays.append(array)
        if not arrays:
            return np.empty((0, *self.image_shape), self.dtype)
        return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)

    def _accept_on_device(self, batch: DeviceArray) -> DeviceArray:
        """Nothing is converted or padded on the GPU: what the engine takes, or an error."""
        if batch.dtype != self.dtype or batch.shape[1:] != self.image_shape:
            wanted = ", ".join(str(size) for size in self.image_shape)
            raise UsageError(
                f"{self._name} takes {self.dtype} (N, {wanted}) on the GPU, got {batch.dtype} "
                f"{batch.shape}"
            )
        if 0 < len(batch) % self._batch.maximum < self._batch.minimum:
            raise UsageError(
                f"{self._name} takes {self._batch.minimum} to {self._batch.maximum} images at once "
                f"on the GPU, got {len(batch)}"
            )
        return batch

    def _refusal(self, batch: object, array: HostArray | None) -> UsageError:
        if array is None:
            return self._refused(type(batch).__name__)
        if array.shape in (self.pixel_shape, self.image_shape):
            return self._refused(
                f"{array.dtype} {array.shape}: add the batch axis with image[None]", hint=""
            )
        return self._refused(f"{array.dtype} {array.shape}")

    def blank(self, size: int) -> Batch:
        """Make `size` images of zeros as the engine takes them."""
        return np.zeros((size, *self.image_shape), self.dtype)

    def _refused(
        self, got: str, hint: str = ": EngineRunner.prepare makes that of pictures"
    ) -> UsageError:
        height, width, channels = self.pixel_shape
        shape = f"{height}, {width}, {channels}"
        takes = f"uint8 images ({shape}) as one array (N, {shape})"
        if self.dtype == np.float32:
            takes += f", or float32 (N, {channels}, {height}, {width})"
        return UsageError(f"{self._name} takes {takes}, got {got}{hint}")
