"""What the inspector tells of a bundle's engine: python tests/gpu/layers.py BUNDLE.

Layers are counted by kind and output type; Q/DQ nodes that no layer took in are an error, because
they cost time and mean that a convolution did not become INT8.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from effnet_edge.bundle import Bundle
from effnet_edge.runtime.tensorrt.engine import Engine
from effnet_edge.runtime.tensorrt.selection import with_engine


def layers_of(path: str) -> list[dict[str, object]]:
    """The engine's layers, as the inspector describes them."""
    bundle, record = with_engine(Bundle.load(path))
    engine = Engine(record.library, (bundle.path / record.file).read_bytes(), record.file)
    try:
        return [
            layer if isinstance(layer, dict) else {"Name": layer, "LayerType": "unknown"}
            for layer in json.loads(engine.description())["Layers"]
        ]
    finally:
        engine.close()


def main(path: str) -> int:
    """Print the counts; 1 if a Q/DQ stands alone."""
    layers = layers_of(path)
    counts = Counter((layer.get("LayerType"), _type(layer)) for layer in layers)
    for (kind, dtype), count in counts.most_common():
        print(f"{count:5}  {kind}  {dtype}")
    alone = [layer for layer in layers if "quantize" in str(layer.get("LayerType")).lower()]
    for layer in alone:
        print(f"alone: {layer.get('Name')}")
    return 1 if alone else 0


def _type(layer: dict[str, object]) -> str:
    outputs = layer.get("Outputs")
    if not isinstance(outputs, list):
        return "type not told"
    return ", ".join(
        sorted({str(each.get("Format/Datatype", each.get("Datatype"))) for each in outputs})
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
