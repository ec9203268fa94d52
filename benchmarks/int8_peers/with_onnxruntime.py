"""onnxruntime's own static quantization, on the exported ONNX.

Its histogram calibrators keep the activations of all pictures of a call in memory, and merge what
they get in several calls. So here they get few pictures a call, and the ranges go to
`quantize_static` by its own cache file.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from int8_peers.cost import Cost, measured
from int8_peers.method import Method, Product
from int8_peers.onnx_export import exported_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from int8_peers.method import Setting
    from int8_peers.subject import Subject

_TOOLS = ("onnxruntime", "onnx", "onnxsim", "torch")
_PICTURES_A_CALL = 4
_CONVOLUTIONS = ["Conv", "Gemm"]
_PERCENTILES = (99.9, 99.99, 99.999)

EVERYTHING, AROUND, BEFORE = "all operations", "around convolutions", "before convolutions"


@dataclass(frozen=True)
class _Options:
    """Those of `quantize_static` that are tried. Weights are int8, a scale an output channel.

    Attributes:
        calibration: MinMax, Entropy or Percentile.
        percentile: for Percentile.
        moving_average: for MinMax: the mean of the pictures' ranges in place of their union.
        symmetric: int8 activations with zero point 0; otherwise uint8.
        where: the pairs stand at the inputs and outputs of all operations that can be quantized,
            at those of convolutions and the classifier, or at the latter's inputs only.
        reduce_range: 7-bit weights.
    """

    calibration: str
    percentile: float = 0.0
    moving_average: bool = False
    symmetric: bool = False
    where: str = AROUND
    reduce_range: bool = False

    @property
    def ranges(self) -> tuple[str, bool]:
        """What has to be collected; all percentiles come from one histogram."""
        return self.calibration, self.moving_average

    def settings(self) -> Mapping[str, Setting]:
        """As the table shows them."""
        shown: dict[str, Setting] = {"types": "S8S8" if self.symmetric else "U8S8"}
        if self.percentile:
            shown["percentile"] = self.percentile
        if self.moving_average:
            shown["moving_average"] = True
        shown["pairs"] = self.where
        if self.reduce_range:
            shown["reduce_range"] = True
        return shown

    def arguments(self) -> dict[str, Any]:
        """For `quantize_static`."""
        extra: dict[str, Any] = {"ActivationSymmetric": self.symmetric}
        if self.where == BEFORE:
            extra["OpTypesToExcludeOutputQuantization"] = _CONVOLUTIONS
        return {
            "quant_format": QuantFormat.QDQ,
            "op_types_to_quantize": None if self.where == EVERYTHING else _CONVOLUTIONS,
            "per_channel": True,
            "reduce_range": self.reduce_range,
            "activation_type": QuantType.QInt8 if self.symmetric else QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "calibrate_method": CalibrationMethod[self.calibration],
            "extra_options": extra,
        }


def methods() -> list[Method]:
    """Every calibration with every placement, and on the first what is not worth more tries."""
    shared = _SharedRanges()
    calibrations = [
        _Options("MinMax"),
        _Options("MinMax", moving_average=True),
        _Options("Entropy"),
        *(_Options("Percentile", percentile) for percentile in _PERCENTILES),
    ]
    placements: list[dict[str, Any]] = [
        {"where": EVERYTHING},
        {"where": AROUND},
        {"where": BEFORE},
        {"where": BEFORE, "symmetric": True},
    ]
    options = [replace(each, **where) for each in calibrations for where in placements]
    options += [_Options("MinMax", symmetric=True), _Options("MinMax", reduce_range=True)]
    return [_method(each, shared) for each in options]


def _method(options: _Options, shared: _SharedRanges) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        spent = shared.collect(options, subject)
        ranges = folder / "ranges.json"
        shared.save(options, ranges)
        with _silence():
            quantize_static(
                shared.model,
                folder / "model.onnx",
                calibration_cache_path=ranges,
                **options.arguments(),
            )
        return Product("model.onnx", spent)

    group = f"onnxruntime static, {options.calibration}"
    return Method(group, options.settings(), make, "onnxruntime", _TOOLS)


class _SharedRanges:
    """The preprocessed model and the statistics of its tensors, each collected once a run."""

    model: Path

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="onnxruntime-ranges-")
        self._calibrators: dict[tuple[str, bool], Any] = {}
        self._costs: dict[tuple[str, bool], Cost] = {}

    def collect(self, options: _Options, subject: Subject) -> Cost:
        """Collect what these options need, unless that has been done; gives its cost if so."""
        if options.ranges in self._costs:
            return self._costs[options.ranges]
        with measured() as cost, _silence():
            self.model = self._preprocessed(subject)
            self._calibrators[options.ranges] = self._calibrated(options, subject)
        self._costs[options.ranges] = cost
        # This time it is in what the caller measures itself.
        return Cost()

    def save(self, options: _Options, file: Path) -> None:
        """Write the ranges that `quantize_static` reads."""
        calibrator = self._calibrators[options.ranges]
        if options.percentile:
            calibrator.collector.percentile = options.percentile
        with _silence():
            save_tensors_data(calibrator.compute_data(), file)

    def _preprocessed(self, subject: Subject) -> Path:
        model = Path(self._folder.name, "model.onnx")
        quant_pre_process(exported_onnx(subject), model)
        return model

    def _calibrated(self, options: _Options, subject: Subject) -> Any:
        calibrator = create_calibrator(
            self.model,
            augmented_model_path=str(Path(self._folder.name, "augmented.onnx")),
            calibrate_method=CalibrationMethod[options.calibration],
            extra_options={"moving_average": options.moving_average},
        )
        inputs = subject.calibration_inputs
        # MinMax keeps two numbers a tensor and picture, and averages only what it gets in one call.
        a_call = len(inputs) if options.calibration == "MinMax" else _PICTURES_A_CALL
        for start in range(0, len(inputs), a_call):
            calibrator.collect_data(_Reader(inputs[start : start + a_call]))
        return calibrator


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Sequence[NDArray[Any]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next picture as the model's feed."""
        image = next(self._inputs, None)
        return None if image is None else {"image": image}


def _silence() -> contextlib.AbstractContextManager[object]:
    """The calibrators print a line a call."""
    return contextlib.redirect_stdout(io.StringIO())
