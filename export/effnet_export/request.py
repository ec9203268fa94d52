"""What a person asks an export for, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from effnet_calibration.activation_fitting import SHARE
from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_calibration.schemes import FLOATING_POINT
from effnet_edge.bundle import BatchRange, utc_now
from effnet_edge.labels import Label, default_labels, read_labels
from effnet_edge.parity import Gate
from effnet_edge.targets import TARGETS
from effnet_export.against import check_origin
from effnet_export.budget import share_of
from effnet_export.calibration import is_table
from effnet_export.naming import default_directory
from effnet_export.option_rules import Asked, check_options
from effnet_export.targets import target_for

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.work import DepthwiseKept, Settings
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.parity import ParityResult
    from effnet_export.deployed import InputKind
    from effnet_export.targets import ExportTarget


@dataclass(frozen=True)
class ExportRequest:
    """What to export. Everything but the network and the target has a default.

    Attributes:
        precision: "fp32", "fp16" or "int8"; the target's default if None.
        labels: a file of class names; ImageNet's for 1000 classes if None.
        calibration: for INT8, fitted activations and TensorRT's FP16: a folder or CSV of pictures,
            or for the first two a table (`.json`) to reuse; crops of the embedded photos if None.
        calibration_size: at most so many pictures.
        max_drop: for INT8: keep the fewest tensors in 16 bit that hold the top-1 drop on the
            calibration pictures, which must be labelled, to so many points.
        max_kl: the same for the KL divergence in nats; no labels are needed.
        max_nrmse: the same for the error of a regression, as a share of the spread of its values.
        loss_share: the same for the loss that is measured without labels, as a share, 0..1, of
            what INT8 loses on these pictures without a budget.
        fast_activations: let fitted hard-swishes take the place of the SiLUs of the
            largest feature maps, which costs some of the answer's faithfulness, and none of them
            bent; False for none at all. If None, INT8 has what the target gains by, unless that
            loses too much.
        fast_share: where they are asked for, so many of all values that pass a SiLU pass a
            hard-swish, 0..1.
        all_in_8_bit: for INT8: keep nothing in 16 bit where the target does.
        last_blocks_in_8_bit: for INT8: keep what the last blocks read in 8 bit where the target
            does not.
        keep_depthwise: for INT8: keep all depthwise convolutions in 16 bit.
        require_engine: fail where the engine can only be built on the device.
        weight_bits: of INT8 weights, 8, or 7 for x86 processors without VNNI, on which large sums
            of INT8 products overflow; what this machine needs if None.
        compute_capabilities: GPU generations to compile for with TensorRT-RTX ("8.6").
        against: the original to compare the network with first: `PACKAGE[:MODEL]` or a file; see
            `effnet_export.against`.
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
    max_nrmse: float | None = None
    loss_share: float | None = None
    fast_activations: bool | None = None
    fast_share: float = SHARE
    all_in_8_bit: bool = False
    last_blocks_in_8_bit: bool = False
    keep_depthwise: bool = False
    require_engine: bool = False
    weight_bits: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    against: str | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        TARGETS[self.target].precision(self.precision)
        check_options(Asked("export", self._given()))
        if self.against is not None:
            check_origin(self.against)
        _ = self.budget, utc_now()

    @property
    def chosen_target(self) -> ExportTarget:
        """The target, with the INT8 weights that were asked for or that this machine needs."""
        return target_for(self.target, self.weight_bits)

    @property
    def chosen_precision(self) -> str:
        """The target's default where none was asked for."""
        return self.chosen_target.precision(self.precision)

    @property
    def calibrates(self) -> bool:
        """Whether a table says what is changed in the network, made on pictures or read."""
        return (
            self.chosen_precision == "int8" or bool(self.fast_activations) or self.table is not None
        )

    @property
    def scheme(self) -> QuantizationScheme:
        """Of the table, where there is one."""
        return self.chosen_target.scheme if self.chosen_precision == "int8" else FLOATING_POINT

    @property
    def settings(self) -> Settings:
        """How a model is calibrated."""
        own = self.chosen_target.settings
        share = own.fitted_share if self.chosen_precision == "int8" else 0.0
        if self.fast_activations is not None:
            share = self.fast_share if self.fast_activations else 0.0
        depthwise: DepthwiseKept = "none" if self.all_in_8_bit else own.keep_depthwise
        last_blocks_in_8_bit = self.last_blocks_in_8_bit or self.all_in_8_bit
        return replace(
            own,
            fitted_share=share,
            bend_activations=own.bend_activations and not self.fast_activations,
            keep_last_blocks=own.keep_last_blocks and not last_blocks_in_8_bit,
            keep_depthwise="all" if self.keep_depthwise else depthwise,
        )

    @property
    def exact_settings(self) -> Settings | None:
        """The same with every SiLU, where nobody asked for a hard-swish; None where there is none.

        For what loses too much with `settings`.
        """
        settings = self.settings
        if self.fast_activations is not None or not settings.fitted_share:
            return None
        return replace(settings, fitted_share=0.0)

    @property
    def directory(self) -> Path:
        """The bundle's, as asked for or named after what is in it."""
        named = default_directory(self.network.variant, self.target, self.chosen_precision)
        return self.output or named

    @property
    def table(self) -> Path | None:
        """The calibration table to reuse."""
        path = self.calibration
        return path if path is not None and is_table(path) else None

    @property
    def budget(self) -> Gate | None:
        """What INT8 may lose at most; raises `UsageError` for a limit out of its range."""
        limits = (self.max_drop, self.max_kl, self.max_nrmse)
        if all(limit is None for limit in limits):
            return None
        return Gate(max_drop=self.max_drop, max_kl=self.max_kl, max_nrmse=self.max_nrmse)

    @property
    def is_bounded(self) -> bool:
        """Whether INT8 has a budget."""
        return self.budget is not None or self.loss_share is not None

    def budget_of(self, lost: ParityResult) -> Gate:
        """The budget, where INT8 without one loses that on the pictures of the calibration.

        Raises:
            GateError: it is a share of a loss that is no number.
        """
        if self.loss_share is not None:
            return share_of(lost, self.loss_share)
        assert self.budget is not None
        return self.budget

    def read_labels(self, classes: int) -> list[Label] | None:
        """Labels for so many classes; None where there are none.

        Raises:
            UsageError: the file cannot be read, or has another number of labels.
        """
        if self.network.output_kind == "features":
            return None
        if self.labels is not None:
            return read_labels(self.labels, classes)
        return None if self.network.output_kind == "regression" else default_labels(classes)

    def _given(self) -> dict[str, object]:
        """What was asked for, by the options that ask for it."""
        asked: dict[str, object] = {
            "--target": self.target,
            f"--{self.precision}": self.precision,
            "--labels": self.labels,
            f"--{self.network.output_kind}": self.network.output_kind != "single-label" or None,
            "--num-classes": self.network.num_classes,
            "--mean": self.network.mean,
            "--std": self.network.std,
            "--calibration": self.calibration,
            "--max-drop": self.max_drop,
            "--max-kl": self.max_kl,
            "--max-nrmse": self.max_nrmse,
            "--fast-activations": self.fast_activations or None,
            "--exact-activations": self.fast_activations is False or None,
            "--require-engine": self.require_engine or None,
            "--weight-bits": self.weight_bits,
            "--compute-capability": self.compute_capabilities or None,
        }
        return {option: value for option, value in asked.items() if value is not None}
