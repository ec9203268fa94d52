"""What a TensorRT bundle's graph answers on a GPU's own arithmetic, without TensorRT.

    python tests/gpu/graph_on_gpu.py BUNDLE IMAGES

PyTorch computes it node by node on the GPU, in the types that the graph says, and it is compared
with PyTorch in FP32. What TensorRT adds, its kernels and its fusion, is not in it: no time is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from effnet_edge.bundle import Bundle
from effnet_edge.parity import compare
from effnet_edge.pictures.sets import ImageSet
from effnet_export.origin import load_source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
}


class GraphOnGpu:
    """Of an ONNX graph of one input and one output, the operators that our graphs have."""

    execution_precision = "FP16 and FP32 as the graph says, node by node in PyTorch on the GPU"

    def __init__(self, model: onnx.ModelProto, name: str, device: str) -> None:
        self.name, self.device = name, device
        self._nodes = [(node, _attributes(node)) for node in model.graph.node]
        self._constants = {
            each.name: torch.from_numpy(np.array(numpy_helper.to_array(each))).to(device)
            for each in model.graph.initializer
        }
        (self._input,) = [each.name for each in model.graph.input]
        (self._output,) = [each.name for each in model.graph.output]

    @torch.inference_mode()
    def infer(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, 3)."""
        values = {**self._constants, self._input: torch.from_numpy(batch).to(self.device)}
        for node, attributes in self._nodes:
            given = [values[name] for name in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](attributes, *given)
        answer: npt.NDArray[np.float32] = values[self._output].cpu().numpy()
        return answer


class TorchOnGpu:
    """The network in FP32, as the bundle's origin tells, without TF32."""

    execution_precision = "FP32"

    def __init__(self, bundle: Bundle, device: str) -> None:
        source = load_source_of(bundle.manifest, None)
        self.name, self.device = "PyTorch", device
        self._network = source.network.eval().to(device)
        statistics = (bundle.manifest.preprocessing.mean, bundle.manifest.preprocessing.std)
        self._mean, self._std = (
            torch.tensor(each, device=device).view(1, 3, 1, 1) for each in statistics
        )

    @torch.inference_mode()
    def infer(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, 3)."""
        pixels = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
        answer: npt.NDArray[np.float32] = (
            self._network((pixels.float() / 255 - self._mean) / self._std).cpu().numpy()
        )
        return answer


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _convolution(
    told: dict[str, Any],
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    top, left, bottom, right = told.get("pads", [0, 0, 0, 0])
    padded = functional.pad(value, (left, right, top, bottom))
    return functional.conv2d(padded, weight, bias, told.get("strides", 1), groups=told["group"])


def _gemm(
    told: dict[str, Any], value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    return functional.linear(value, weight if told.get("transB") else weight.T, bias)


def _quantize(
    told: dict[str, Any], value: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    limits = torch.iinfo(zero.dtype)
    steps = torch.round(value.float() / _along(told, scale, value).float()) + zero.float()
    return steps.clamp(limits.min, limits.max).to(zero.dtype)


def _dequantize(
    told: dict[str, Any],
    value: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None = None,
) -> torch.Tensor:
    offset = 0.0 if zero is None else _along(told, zero, value).float()
    return ((value.float() - offset) * _along(told, scale, value).float()).to(scale.dtype)


def _along(told: dict[str, Any], parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A parameter a channel, to go with `value`."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * value.ndim
    shape[told.get("axis", 1)] = -1
    return parameter.view(shape)


OPERATORS: dict[str, Callable[..., torch.Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": lambda told, a: a.to(TYPES[told["to"]]),
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Gemm": _gemm,
    "HardSwish": lambda _, a: functional.hardswish(a),
    "Mul": lambda _, a, b: a * b,
    "QuantizeLinear": _quantize,
    "ReduceMean": lambda told, a, axes: a.mean(axes.tolist(), keepdim=bool(told["keepdims"])),
    "Sigmoid": lambda _, a: torch.sigmoid(a),
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda told, a: a.permute(told["perm"]),
}


@click.command()
@click.argument("path", metavar="BUNDLE")
@click.argument("images")
def main(path: str, images: str) -> None:
    """Print the measures."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bundle = Bundle.load(path)
    graph = GraphOnGpu(onnx.load(bundle.model_path), path, device)
    result = compare(
        TorchOnGpu(bundle, device),
        graph,
        ImageSet.from_folder(images),
        bundle.manifest.preprocessing,
        batch_size=20,
    )
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU: the CPU"
    print(f"{path} on {name}, torch {torch.__version__}, {result.images} pictures:")
    for key in ("kl", "sqnr_db", "top1_agreement", "top5_agreement"):
        print(f"  {key}: {result.value(key):.6g}")


if __name__ == "__main__":
    main()
