"""NNCF: on OpenVINO's PyTorch frontend, with accuracy control, and on the exported ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import nncf
import numpy as np
import onnx
import openvino
import torch
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from effnet_edge.parity.measures import metrics
from int8_peers.engines import pixels_in
from int8_peers.method import Method, Product
from int8_peers.onnx_export import exported_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from int8_peers.method import Setting
    from int8_peers.subject import Subject

FRONTEND = "NNCF, PyTorch frontend"
CONTROLLED = "NNCF, accuracy control"
PRESETS = {
    "performance": nncf.QuantizationPreset.PERFORMANCE,
    "mixed": nncf.QuantizationPreset.MIXED,
}
_ON_ONNX = "NNCF, exported ONNX"
_TOOLS = ("nncf", "openvino", "torch")
_ONNX_TOOLS = (*_TOOLS, "onnx", "onnxruntime", "onnxsim")
_MODEL = "model.xml"


@dataclass(frozen=True)
class _Options:
    """Those of `nncf.quantize` that are tried; the values are NNCF's defaults."""

    preset: str
    fast_bias_correction: bool = True
    range_estimator: str = "default"
    overflow_fix: str = "default"
    channel_alignment: bool = False

    def settings(self) -> Mapping[str, Setting]:
        defaults = _Options(self.preset)
        return {
            name: value
            for name, value in vars(self).items()
            if name == "preset" or value != getattr(defaults, name)
        }

    def arguments(self, pictures: int) -> dict[str, Any]:
        """For `nncf.quantize`, but for the advanced parameters."""
        return {
            "preset": PRESETS[self.preset],
            "target_device": nncf.TargetDevice.CPU,
            "subset_size": pictures,
            "fast_bias_correction": self.fast_bias_correction,
        }

    def advanced(self) -> nncf.AdvancedQuantizationParameters:
        parameters = nncf.AdvancedQuantizationParameters(
            disable_channel_alignment=not self.channel_alignment
        )
        if self.overflow_fix != "default":
            parameters.overflow_fix = nncf.OverflowFix(self.overflow_fix)
        if self.range_estimator != "default":
            estimator = getattr(RangeEstimatorParametersSet, self.range_estimator)
            parameters.activations_range_estimator_params = estimator
        return parameters


def methods(openvino_hints: tuple[str, ...]) -> list[Method]:
    """The plain presets first, then what might make them better."""
    return [
        *(_frontend(options, openvino_hints) for options in _frontend_options()),
        *(
            _controlled(preset, control, openvino_hints)
            for preset in PRESETS
            for control in _CONTROLS
        ),
        *(
            method
            for preset in PRESETS
            for method in (
                _onnx_in_openvino(_Options(preset), openvino_hints),
                _onnx_backend_in_openvino(_Options(preset), openvino_hints),
                _onnx_backend_in_onnxruntime(_Options(preset)),
            )
        ),
    ]


def _frontend_options() -> list[_Options]:
    variants: list[dict[str, Any]] = [
        {},
        {"range_estimator": "HISTOGRAM"},
        {"fast_bias_correction": False},
        {"overflow_fix": "disable"},
        {"channel_alignment": True},
    ]
    return [_Options(preset, **variant) for variant in variants for preset in PRESETS]


def _frontend(options: _Options, hints: tuple[str, ...]) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        return _quantize(_from_torch(subject), options, subject, folder)

    group = f"{FRONTEND}, {options.preset}"
    return Method(group, options.settings(), make, "openvino", _TOOLS, hints)


def _onnx_in_openvino(options: _Options, hints: tuple[str, ...]) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        model = openvino.Core().read_model(exported_onnx(subject).SerializeToString())
        return _quantize(model, options, subject, folder)

    group = f"{_ON_ONNX}, {options.preset}, OpenVINO"
    return Method(group, options.settings(), make, "openvino", _ONNX_TOOLS, hints)


def _onnx_backend_in_openvino(options: _Options, hints: tuple[str, ...]) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        quantized = _quantize_onnx(options, subject)
        model = openvino.Core().read_model(quantized.SerializeToString())
        return _save(model, subject, folder)

    settings = {**options.settings(), "quantized as": "ONNX"}
    group = f"{_ON_ONNX}, {options.preset}, OpenVINO"
    return Method(group, settings, make, "openvino", _ONNX_TOOLS, hints)


def _onnx_backend_in_onnxruntime(options: _Options) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        onnx.save(_quantize_onnx(options, subject), folder / "model.onnx")
        return Product("model.onnx")

    group = f"{_ON_ONNX}, {options.preset}, onnxruntime"
    return Method(group, options.settings(), make, "onnxruntime", _ONNX_TOOLS)


def _quantize_onnx(options: _Options, subject: Subject) -> onnx.ModelProto:
    """By NNCF's own ONNX backend."""
    inputs = [{"image": image} for image in subject.calibration_inputs]
    return nncf.quantize(
        exported_onnx(subject),
        nncf.Dataset(inputs),
        **options.arguments(len(inputs)),
        advanced_parameters=options.advanced(),
    )


def _from_torch(subject: Subject) -> openvino.Model:
    """By OpenVINO's PyTorch frontend, which keeps every SiLU as one Swish."""
    size = subject.preprocessing.resolution
    shape = [1, 3, size.height, size.width]
    return openvino.convert_model(subject.folded, example_input=torch.zeros(shape), input=shape)


def _quantize(model: openvino.Model, options: _Options, subject: Subject, folder: Path) -> Product:
    inputs = subject.calibration_inputs
    quantized = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        **options.arguments(len(inputs)),
        advanced_parameters=options.advanced(),
    )
    return _save(quantized, subject, folder)


def _save(quantized: openvino.Model, subject: Subject, folder: Path) -> Product:
    openvino.save_model(pixels_in(quantized, subject.preprocessing), folder / _MODEL)
    return Product(_MODEL)


Logits: TypeAlias = "NDArray[np.float32]"
Score = tuple[float, list[float]]
"""Of a set, higher is better, and of each of its pictures."""


@dataclass(frozen=True)
class _Control:
    """What accuracy control guards, on the labelled calibration pictures.

    Attributes:
        metric: its name in the table.
        max_drop: absolute.
        score: of logits (N, classes), given those of FP32 and the class indices.
    """

    metric: str
    max_drop: float
    score: Callable[[Logits, Logits, NDArray[np.int64]], Score]


def _top1(logits: Logits, _fp32: Logits, labels: NDArray[np.int64]) -> Score:
    right = logits.argmax(1) == labels
    return float(right.mean()), right.astype(float).tolist()


def _closeness(logits: Logits, fp32: Logits, _labels: NDArray[np.int64]) -> Score:
    closeness = -metrics.kl_per_image(fp32, logits)
    return float(closeness.mean()), closeness.tolist()


# A metric that moves with every picture lets NNCF rank layers that top-1 of 200 pictures cannot
# tell apart.
_CONTROLS = (_Control("top-1", 0.003, _top1), _Control("-KL", 0.01, _closeness))


def _controlled(preset: str, control: _Control, hints: tuple[str, ...]) -> Method:
    options = _Options(preset)

    def make(subject: Subject, folder: Path) -> Product:
        inputs, labels = subject.calibration_inputs, subject.calibration.labels
        fp32 = _fp32_logits(subject)

        def validate(model: openvino.CompiledModel, data: Iterable[tuple[int, Any]]) -> Score:
            """`data` may be a part of the set, as NNCF likes."""
            chosen = [index for index, _ in data]
            logits = np.concatenate([model(inputs[index])[0] for index in chosen])
            return control.score(logits, fp32[chosen], labels[chosen])

        quantized = nncf.quantize_with_accuracy_control(
            _from_torch(subject),
            nncf.Dataset(inputs),
            nncf.Dataset(list(enumerate(inputs)), lambda item: item[1]),
            validate,
            max_drop=control.max_drop,
            **options.arguments(len(inputs)),
            advanced_quantization_parameters=options.advanced(),
        )
        return _save(quantized, subject, folder)

    settings = {**options.settings(), "metric": control.metric, "max_drop": control.max_drop}
    return Method(f"{CONTROLLED}, {preset}", settings, make, "openvino", _TOOLS, hints)


def _fp32_logits(subject: Subject) -> Logits:
    with torch.inference_mode():
        outputs = [
            subject.folded(torch.from_numpy(image)).numpy() for image in subject.calibration_inputs
        ]
    return np.concatenate(outputs)
