"""Tiny ONNX models as other people export them, made with onnx alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from effnet_edge.model.request import NetworkRequest
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_export.model_files import Openings
from effnet_export.opening import Models, open_models
from effnet_export.said import Said

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

SIDE = 24
FORMATS = ("model.onnx", "model.xml")
NOTHING = Said()
CLASSES = 5
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of B0's preprocessing, written down once more."""

ELEMENTS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


@dataclass(frozen=True)
class Foreign:
    """What is unusual about a model; all of them compute the same logits of the same pictures.

    Attributes:
        dtype, layout, pixels: of the input, which is `shape` if given.
        end: the operators behind the logits, in order; "4d" leaves them (N, classes, 1, 1).
        also_logits: give the logits as a second output.
    """

    dtype: str = "float32"
    layout: str = "nchw"
    pixels: str = "normalized"
    end: tuple[str, ...] = ()
    shape: tuple[int | str | None, ...] | None = None
    name: str = "images"
    also_logits: bool = False

    def model(self) -> onnx.ModelProto:
        nodes, constants = self._front()
        working = "float16" if self.dtype == "float16" else "float32"
        random = np.random.default_rng(0)
        constants |= {
            "kernel": random.normal(size=(8, 3, 3, 3)).astype(working),
            "dense": random.normal(size=(CLASSES, 8, 1, 1)).astype(working),
        }
        nodes += [
            helper.make_node(
                "Conv", [nodes[-1].output[0] if nodes else self.name, "kernel"], ["a"]
            ),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Conv", ["c", "dense"], ["logits"]),
        ]
        last, rows = "logits", "4d" in self.end
        if not rows:
            nodes.append(helper.make_node("Flatten", ["logits"], ["flat"]))
            last = "flat"
        for index, operator in enumerate(each for each in self.end if each != "4d"):
            nodes.append(
                helper.make_node(operator, [last], [f"end{index}"], **_AXIS.get(operator, {}))
            )
            last = f"end{index}"
        outputs = [last, "logits"] if self.also_logits else [last]
        return self._whole(nodes, constants, outputs, working)

    def _front(self) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        """From the input to normalized pixels (N, C, H, W)."""
        nodes, constants, last = [], {}, self.name
        if self.dtype in ("uint8", "float64", "int8"):
            nodes.append(helper.make_node("Cast", [last], ["cast"], to=TensorProto.FLOAT))
            last = "cast"
        if self.layout == "nhwc":
            nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
            last = "first"
        if self.pixels != "normalized":
            scale = 255.0 if self.pixels == "0..255" else 1.0
            working = np.float16 if self.dtype == "float16" else np.float32
            constants = {
                "mean": (scale * MEAN).reshape(1, 3, 1, 1).astype(working),
                "std": (scale * STD).reshape(1, 3, 1, 1).astype(working),
            }
            nodes += [
                helper.make_node("Sub", [last, "mean"], ["shifted"]),
                helper.make_node("Div", ["shifted", "std"], ["normalized"]),
            ]
        return nodes, constants

    def _whole(
        self,
        nodes: list[onnx.NodeProto],
        constants: dict[str, Any],
        outputs: Sequence[str],
        working: str,
    ) -> onnx.ModelProto:
        last = [3, SIDE, SIDE] if self.layout == "nchw" else [SIDE, SIDE, 3]
        shape = list(self.shape) if self.shape else ["N", *last]
        graph = helper.make_graph(
            nodes,
            "foreign",
            [helper.make_tensor_value_info(self.name, ELEMENTS[self.dtype], shape)],
            [helper.make_tensor_value_info(each, ELEMENTS[working], None) for each in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)

    def saved(self, path: Path) -> Path:
        """Write it, as an IR where the name ends so."""
        return written(self.model(), path)


def written(model: onnx.ModelProto, path: Path) -> Path:
    """Write any such model, as an IR where the name ends so."""
    if path.suffix == ".xml":
        converted = openvino_core().read_model(model.SerializeToString())
        openvino.save_model(converted, path, compress_to_fp16=False)
    else:
        onnx.save(model, path)
    return path


_AXIS = {"Softmax": {"axis": 1}, "LogSoftmax": {"axis": 1}}


def normalized(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W), by the formula that everybody uses."""
    return (((pixels / 255) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def true_logits(pixels: np.ndarray) -> np.ndarray:
    """Of every such model, by ONNX Runtime run on its own on the plainest one."""
    plain = Foreign(shape=("N", 3, "H", "W")).model()
    session = onnxruntime.InferenceSession(plain.SerializeToString())
    return session.run(None, {"images": normalized(pixels)})[0]


def some_pixels(count: int = 3, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, width, 3), np.uint8)


def opened(
    stack: ExitStack,
    file: Path,
    other: Path | None = None,
    said: Said = NOTHING,
    precision: str | None = None,
    **asked: object,
) -> Models:
    """A comparison of a file with itself, or with another one."""
    network = NetworkRequest("b0", **{"resolution": SIDE, **asked})
    openings = Openings(network, precision=precision, said=said)
    return open_models(str(file), [str(other or file)], openings, stack)
