"""What the inspector tells of a bundle's engine: python tests/gpu/layers.py BUNDLE.

Layers are counted by kind and output type. Errors are: a convolution that the engine computes in
another precision than the graph says, one that no layer names, and a conversion to or from INT8
that is a layer of its own, which costs time and means that no layer took the Q/DQ pair in.

The inspector's format: NVIDIA TensorRT documentation, "Engine Inspector", and its migration guide
from 10 to 11, which splits "Format/Datatype". A layer's "Metadata" names the ONNX nodes in it, and
a Q/DQ pair that is left over is a reformatting layer with the "Origin" QDQ.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

import onnx

from effnet_edge.bundle import Bundle
from effnet_edge.runtime.tensorrt.engine import Engine
from effnet_edge.runtime.tensorrt.selection import with_engine

Layer = dict[str, Any]

TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")
PRECISIONS = (
    ("INT8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("FP16", re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE)),
    ("FP32", re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE)),
)
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
WEIGHTED = {"Conv", "Gemm", "MatMul"}


def described_layers(path: str) -> tuple[list[Layer], onnx.ModelProto]:
    """The engine's layers, as the inspector describes them, and the graph that it was made of."""
    bundle, record = with_engine(Bundle.load(path))
    engine = Engine(
        record.library,
        (bundle.path / record.file).read_bytes(),
        record.file,
        dla_core=record.dla_core,
        version_compatible=record.version_compatible,
    )
    try:
        return layers_in(engine.description()), onnx.load(bundle.model_path)
    finally:
        engine.close()


def layers_in(description: str) -> list[Layer]:
    """The layers in the inspector's JSON; of an engine built without details they are names."""
    return [
        layer if isinstance(layer, dict) else {"Name": layer, "LayerType": "unknown"}
        for layer in json.loads(description)["Layers"]
    ]


def precisions_in(graph: onnx.GraphProto) -> dict[str, str]:
    """What the graph computes each convolution and the classifier in, by the node's name."""
    makers = {name: node for node in graph.node for name in node.output}
    types = {each.name: each.data_type for each in graph.initializer}
    names = {onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.FLOAT: "FP32"}
    found = {}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type in WEIGHTED else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            found[node.name] = "INT8"
        elif node.op_type in WEIGHTED and node.input[1] in types:
            found[node.name] = names[types[node.input[1]]]
    return found


def faults(layers: list[Layer], graph: onnx.GraphProto) -> list[str]:
    """What is not as the graph says; see the module."""
    kinds = {node.name: node.op_type for node in graph.node}
    named = [(layer, nodes_of(layer)) for layer in layers]
    told = []
    for name, wanted in precisions_in(graph).items():
        ran = [precision_of(layer) for layer, nodes in named if name in nodes and _works(layer)]
        if not ran:
            told.append(f"{name}: no layer names it")
        elif wanted not in ran:
            told.append(f"{name}: runs in {' and '.join(ran)}, not in {wanted}")
    for layer, nodes in named:
        if _converts(layer) or (nodes and {kinds.get(node) for node in nodes} <= CONVERSIONS):
            told.append(f"{layer.get('Name')}: a conversion to or from INT8 that stands alone")
    return told


def nodes_of(layer: Layer) -> list[str]:
    """The ONNX nodes that a layer computes."""
    return re.findall(r"\[ONNX Layer: ([^\]]*)\]", str(layer.get("Metadata", "")))


def precision_of(layer: Layer) -> str:
    """What a layer computes in: the least precise type that it reads, or that of its weights."""
    weights = layer.get("Weights")
    texts = [_types(each) for each in layer.get("Inputs", [])]
    texts += [str(weights.get("Type"))] if isinstance(weights, dict) else []
    found = [name for name, pattern in PRECISIONS if any(pattern.search(text) for text in texts)]
    return found[0] if found else "a type that is not told"


def _works(layer: Layer) -> bool:
    """Whether it does more than to move data."""
    return layer.get("LayerType") not in {"Reformat", "Constant", "NoOp"}


def _converts(layer: Layer) -> bool:
    kind = str(layer.get("LayerType"))
    if "quantize" in kind.lower() or layer.get("Origin") == "QDQ":
        return True
    sides = [
        {bool(PRECISIONS[0][1].search(_types(each))) for each in layer.get(side, [])}
        for side in ("Inputs", "Outputs")
    ]
    return kind == "Reformat" and sides[0] != sides[1]


def _types(tensor: Any) -> str:
    if not isinstance(tensor, dict):
        return ""
    return " ".join(str(tensor[key]) for key in TYPE_KEYS if key in tensor)


def main(path: str) -> int:
    """Print the counts and the faults; 1 if there are any."""
    layers, model = described_layers(path)
    counts = Counter(
        (layer.get("LayerType"), ", ".join(sorted({_types(each) for each in outputs})))
        for layer in layers
        for outputs in [layer.get("Outputs", [])]
    )
    for (kind, types), count in counts.most_common():
        print(f"{count:5}  {kind}  {types or 'type not told'}")
    found = faults(layers, model.graph)
    for fault in found:
        print(f"fault: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
