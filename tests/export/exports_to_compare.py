"""Exports in a process of its own: exports_to_compare.py CHECKPOINT FOLDER TARGET-PRECISION…"""

from __future__ import annotations

import sys
from pathlib import Path

from effnet_edge.model.request import NetworkRequest
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest


def main(checkpoint: str, folder: str, *asked: str) -> None:
    for each in asked:
        target, _, precision = each.partition("-")
        request = ExportRequest(
            NetworkRequest("b0", weights=checkpoint, num_classes=10, resolution=32),
            target,
            precision,
            calibration_size=32,
            output=Path(folder) / each,
        )
        export_bundle(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
