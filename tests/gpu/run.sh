#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one run:
#     tests/gpu/run.sh [tensorrt|tensorrt-rtx] [PHOTOS]
# in an environment with 'effnet-edge[dev,tensorrt]' (or [dev,tensorrt-rtx]). PHOTOS is a folder for
# calibration and parity; without it, the embedded photos. It stops at the first thing that fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-tensorrt}
photos=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limit=${EFFNET_EDGE_LEAK_RUNS:-10000}

step() { printf '\n== %s\n' "$*"; }

step "the machine"
nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv || true
effnet-edge doctor
capability=$(python -c 'from effnet_edge.runtime.tensorrt.gpu import need_gpu; print(need_gpu().compute_capability)')
build_options=()
[ "$target" = tensorrt-rtx ] && build_options=(--compute-capability "$capability")

step "the runner's tests, on the real library"
python -m pytest tests/runtime -q

for precision in fp32 fp16 int8; do
  bundle=$work/b0-$precision
  calibration=()
  [ -n "$photos" ] && [ "$precision" != fp32 ] && calibration=(--calibration "$photos")
  step "$precision: export, build, predict"
  effnet-edge export b0 --target "$target" --"$precision" "${calibration[@]}" --batch 1:1:8 -o "$bundle" \
    "${build_options[@]}" --quiet
  effnet-edge build "$bundle" "${build_options[@]}"
  effnet-edge predict "$bundle" examples/espresso.jpg --top 1
  step "$precision: parity of the engine with PyTorch"
  images=()
  [ -n "$photos" ] && images=(--images "$photos")
  effnet-edge parity "$bundle" "${images[@]}"
  step "$precision: the engine's layers"
  python tests/gpu/layers.py "$bundle"
done

step "latency against PyTorch in FP16"
python tests/gpu/latency.py "$work/b0-fp16" "$work/b0-int8" "$work/b0-fp32"

step "memory over $limit inferences"
python tests/gpu/leaks.py "$work/b0-fp16" --runs "$limit"
