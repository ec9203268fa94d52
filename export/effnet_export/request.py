"""What a person asks an export for, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_edge.bundle import BatchRange
from effnet_edge.errors import UsageError
from effnet_edge.labels import Label, default_labels, read_labels
from effnet_edge.parity import Gate
from effnet_edge.targets import built_on_device
from effnet_export.calibration import is_table
from effnet_export.targets import target_for

if TYPE_CHECKING:
    from effnet_edge.model.request import NetworkRequest
    from effnet_export.deployed import InputKind
    from effnet_export.targets import ExportTarget


@dataclass(frozen=True)
class ExportRequest:
    """What to export. Everything but the network and the target has a default.

    Attributes:
        precision: "fp32", "fp16" or "int8"; the target's default if None.
        labels: a file of class names; ImageNet's for 1000 classes if None.
        calibration: for INT8 and for TensorRT's FP16: a folder or CSV of pictures, or for INT8 a
            table (`.json`) to reuse; crops of the embedded photos if None.
        calibration_size: at most so many pictures.
        max_drop: for INT8: keep the fewest tensors in 16 bit that hold the top-1 drop on the
            calibration pictures, which must be labelled, to so many points.
        max_kl: the same for the KL divergence in nats; no labels are needed.
        require_engine: fail where the engine can only be built on the device.
        weight_bits: of INT8 weights, 8, or 7 for x86 processors without VNNI, on which large sums
            of INT8 products overflow; what this machine needs if None.
        compute_capabilities: GPU generations to compile for with TensorRT-RTX ("8.6").
        output: the bundle's directory; `VARIANT-TARGET-PRECISION` here if None.

    Raises:
        UsageError: it contradicts itself.
    """

    network: NetworkRequest
    target: str
    precision: str | None = None
    labels: Path | None = None
    input_kind: InputKind = "uint8-nhwc"
    batch: BatchRange = field(default_factory=lambda: BatchRange(1, 1, 1))
    calibration: Path | None = None
    calibration_size: int = DEFAULT_IMAGES
    max_drop: float | None = None
    max_kl: float | None = None
    require_engine: bool = False
    weight_bits: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.require_engine and not self.chosen_target.built_on_device:
            raise UsageError(
                f"--require-engine goes with {' and '.join(built_on_device())}: "
                f"{self.target} has no engine"
            )
        if self.labels is not None and self.network.output_kind == "features":
            raise UsageError("--labels does not go with --features: features are no classes")
        if self.chosen_precision != "int8" and self.budget is not None:
            raise UsageError(f"{self.budget_option} goes with --int8: nothing else is quantized")
        if self.budget is not None:
            self._check_budget()

    @property
    def chosen_target(self) -> ExportTarget:
        """The target, with the INT8 weights that were asked for or that this machine needs."""
        return target_for(self.target, self.weight_bits)

    @property
    def chosen_precision(self) -> str:
        """The target's default where none was asked for."""
        return self.chosen_target.precision(self.precision)

    @property
    def directory(self) -> Path:
        """The bundle's, as asked for or named after what is in it."""
        name = f"{self.network.variant.lower()}-{self.target}-{self.chosen_precision}"
        return self.output or Path(name)

    @property
    def table(self) -> Path | None:
        """The calibration table to reuse."""
        path = self.calibration
        return path if path is not None and is_table(path) else None

    @property
    def budget(self) -> Gate | None:
        """What INT8 may lose at most; raises `UsageError` for a limit out of its range."""
        if self.max_drop is None and self.max_kl is None:
            return None
        return Gate(max_drop=self.max_drop, max_kl=self.max_kl)

    @property
    def budget_option(self) -> str:
        """The option that sets the budget."""
        return "--max-drop" if self.max_drop is not None else "--max-kl"

    def read_labels(self, classes: int) -> list[Label] | None:
        """Labels for so many classes; None where there are none.

        Raises:
            UsageError: the file cannot be read, or has another number of labels.
        """
        if self.network.output_kind == "features":
            return None
        if self.labels is not None:
            return read_labels(self.labels, classes)
        return default_labels(classes)

    def _check_budget(self) -> None:
        option, output_kind = self.budget_option, self.network.output_kind
        if output_kind == "features":
            raise UsageError(
                f"{option} goes with classes, and --features leaves none: leave it out"
            )
        if self.max_drop is not None and output_kind == "multi-label":
            raise UsageError("--max-drop goes with one class a picture: use --max-kl")
        if self.table is not None:
            raise UsageError(
                f"{option} needs pictures to measure on: give --calibration DIR or CSV, "
                f"or leave {option} out to use {self.table} as it is"
            )
