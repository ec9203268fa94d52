"""Which network a person asks for: one value that every command and stage passes on whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.arguments import check_choice, whole_number
from effnet_edge.model.conventions import ToldConventions
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.pictures.fitting import FITS

if TYPE_CHECKING:
    from effnet_edge.model.architecture import Activation, Pooling
    from effnet_edge.model.variants import Padding
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.fitting import Fit
    from effnet_edge.size import Size

RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class NetworkRequest:
    """A variant and its weights, and what the user says of them. What is None, the weights tell.

    Attributes:
        weights: "imagenet" or another name that the variant has, a checkpoint file, an address on
            the Hugging Face hub, or "random"; "imagenet" if None.
        num_classes: of the checkpoint's classifier if None; 1000 where the weights are random.
        output_kind: "multi-label" for classes that do not exclude each other, "regression" for
            values, "features" for the network without its classifier, whatever `num_classes` says.
        resolution: height and width of the input in pixels, or the side of a square; that of the
            weights, or the variant's own, if None.
        fit: how a picture is brought to that size; as the weights' code base does if None.
        padding: what the weights were trained with; if None, as the checkpoint's naming tells, and
            SAME where it tells nothing.
        mean, std: one value a channel in units of pixel / 255; those of the weights if None.
            Random weights get as many channels as `mean` has values.
        batch_norm_eps, pooling, activation: as in `EfficientNet`; those of the weights if None.

    Raises:
        UsageError: a value that there is none such of.
    """

    variant: str
    weights: str | None = None
    num_classes: int | None = None
    output_kind: OutputKind = "single-label"
    resolution: Size | int | None = None
    padding: Padding | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None
    batch_norm_eps: float | None = None
    pooling: Pooling | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        check_choice("output_kind", self.output_kind, OUTPUT_NAMES)
        if self.num_classes is not None:
            whole_number("num_classes", self.num_classes, 1)
        if self.fit is not None:
            check_choice("fit", self.fit, FITS)
        _ = self.conventions  # which are checked

    @property
    def conventions(self) -> ToldConventions:
        """What the user says of the network's."""
        return ToldConventions(self.padding, self.batch_norm_eps, self.pooling, self.activation)
