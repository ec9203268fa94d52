"""Run by the interpreter that has ModelOpt: INPUTS.npy OPTIONS, options of `quantize` in JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
from modelopt.onnx.quantization import quantize

if __name__ == "__main__":
    quantize(calibration_data=np.load(sys.argv[1]), **json.loads(sys.argv[2]))
