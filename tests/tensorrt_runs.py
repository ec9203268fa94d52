"""What the tests of running engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt
from tiny_bundles import (
    SIDE,
    tiny_model,
    truth,
)

if TYPE_CHECKING:
    import numpy.typing as npt


Fake = tuple[FakeCuda, FakeTensorRt]


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def assert_right(logits: npt.NDArray[np.float32], batch: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(logits, truth(tiny_model(), batch), rtol=1e-4, atol=1e-4)


class OnDevice:
    """Somebody else's array on the fake GPU, with the CUDA Array Interface."""

    def __init__(self, fake: FakeCuda, batch: npt.NDArray[Any], **changes: Any) -> None:
        _, self.address = fake.cudaMalloc(batch.nbytes)
        self.fake, self.batch = fake, batch
        self.write(batch)
        self.changes = changes

    def write(self, batch: npt.NDArray[Any]) -> None:
        self.fake.memory_at(self.address, batch.nbytes)[:] = batch.tobytes()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {
            "version": 3,
            "shape": self.batch.shape,
            "typestr": self.batch.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
        }
        return interface | self.changes
