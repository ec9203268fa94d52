"""Exports in a process of its own: exports_to_compare.py CHECKPOINT FOLDER TARGET-PRECISION…"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

# In place of B0: one block a stage, with every kind of layer that it has.
TINY = replace(VARIANTS["b0"], depth=0.1)
SIDE = 32


def main(checkpoint: str, folder: str, *asked: str) -> None:
    VARIANTS[TINY.name] = TINY
    for each in asked:
        target, _, precision = each.partition("-")
        request = ExportRequest(
            NetworkRequest(TINY.name, weights=checkpoint, num_classes=10, resolution=SIDE),
            target,
            precision,
            calibration_size=32,
            output=Path(folder) / each,
        )
        export_bundle(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
