"""A model behind a server as parity sees it: pixels in, rows of logits out, and nothing inside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.models.batches import filled_batches, joined
from effnet_edge.parity.models.ending import WayOut
from effnet_edge.parity.models.entrance import Entrance, Port, only_input
from effnet_edge.parity.models.reading import AS_TOLD, Reading
from effnet_edge.serving.model import PRECISION_NOT_TOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.bundle import BatchRange
    from effnet_edge.parity.models.reading import Layout
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.serving.model import ServedModel


class ServedClassifier:
    """A served model; each of its calls is one request or, beyond the server's batch, several.

    Args:
        model: stays the caller's to close.
        preprocessing: that of the pictures that it will be given.
        reading: what the server does not tell of input and output.
        bundle_batch: what the bundle behind it takes; where the server names no largest batch, the
            bundle's is the most that it is asked for at once.

    Attributes:
        entrance, way_out: how pictures go in, and what comes out.
        batch: what one request may have.

    Raises:
        UsageError, BackendError: pictures cannot go in, or it is not told which output counts.
        ServerError: as `ServedModel.send`.
    """

    execution_precision = PRECISION_NOT_TOLD

    def __init__(
        self,
        model: ServedModel,
        preprocessing: Preprocessing,
        reading: Reading = AS_TOLD,
        *,
        bundle_batch: BatchRange | None = None,
    ) -> None:
        self.name = str(model.address)
        self.entrance = entrance_of_served(model, reading)
        self._model = model
        self._preprocessing = preprocessing
        self._input = model.description.inputs[0]
        outputs = model.description.outputs
        chosen = outputs[reading.choose_output([each.name for each in outputs], self.name)]
        self.way_out = WayOut(chosen.name, None, chosen.name)
        self._least, most = model.description.least, model.description.most
        if most is None and bundle_batch is not None:
            most = bundle_batch.maximum
        self._most = most
        self.batch = range_of_file(self._least, most)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes), all finite.

        Raises:
            ServerError: there is no answer, not in time, or nonsense.
            NotFiniteError: it has a NaN or an infinity.
            BackendError: the server refuses the batch, or answers with other than a row an image.
        """
        return self.way_out.rows(self.answers(batch), self.name)

    def answers(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What comes out for images, as it is; raises as `infer`."""
        pixels = self.entrance.values(batch, self._preprocessing)
        answers = [
            self._answer(part) for (part,) in filled_batches([pixels], self._least, self._most)
        ]
        if any(each.shape[1:] != answers[0].shape[1:] for each in answers):
            raise BackendError(f"{self.name}: its answers to two requests differ in their shape")
        return joined(answers, len(batch))

    def infer_at_once(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """The same, each image in a request of its own and all at the same time; raises as `infer`.

        The server may put them into batches as it likes.
        """
        with ThreadPoolExecutor(len(batch)) as clients:
            return np.concatenate(list(clients.map(self.infer, np.split(batch, len(batch)))))

    def _answer(self, part: NDArray[np.generic]) -> NDArray[np.generic]:
        output, pictures = self.way_out.name, len(part)
        request = self._model.prepare(self._input, part, output)
        return self._model.send(request, output, pictures)


def entrance_of_served(model: ServedModel, reading: Reading = AS_TOLD) -> Entrance:
    """How pictures go in; raises as `Entrance.of`, and BackendError where it has no one input."""
    name, inputs = str(model.address), model.description.inputs
    only_input([each.name for each in inputs], name)
    (only,) = inputs
    layout: Layout | None = None
    if only.channels_last is not None:
        layout = "nhwc" if only.channels_last else "nchw"
    return Entrance.of(Port(only.name, only.dtype, only.shape, layout), name, reading)
