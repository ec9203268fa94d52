#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one run:
#     tests/gpu/run.sh [tensorrt|tensorrt-rtx] [PHOTOS]
# in an environment with 'effnet-edge[dev,tensorrt]' (or [dev,tensorrt-rtx]). PHOTOS is a folder for
# calibration and parity; without it, the embedded photos. A step that fails does not keep the
# others from being run; the last lines name those that failed, and the exit code is then 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
target=${1:-tensorrt}
photos=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limit=${EFFNET_EDGE_LEAK_RUNS:-10000}
failed=()

step() {
  local title=$1
  shift
  printf '\n== %s\n' "$title"
  "$@" || { echo "== failed: $title"; failed+=("$title"); }
}

finish() {
  printf '\n== %s\n' "the end"
  for title in "${failed[@]}"; do echo "failed: $title"; done
  [ ${#failed[@]} -eq 0 ] || exit 1
  echo "all steps passed"
  exit 0
}

make_bundle() {
  local precision=$1 bundle=$2
  local calibration=()
  [ -n "$photos" ] && [ "$precision" != fp32 ] && calibration=(--calibration "$photos")
  effnet-edge export b0 --target "$target" --"$precision" "${calibration[@]}" --batch 1:1:8 \
    -o "$bundle" "${build_options[@]}" --quiet &&
    effnet-edge build "$bundle" "${build_options[@]}" &&
    effnet-edge predict "$bundle" examples/espresso.jpg --top 1
}

printf '== %s\n' "the machine"
nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv || true
effnet-edge doctor
capability=$(python -c 'from effnet_edge.runtime.tensorrt.gpu import need_gpu; print(need_gpu().compute_capability)') || exit 1
build_options=()
if [ "$target" = tensorrt-rtx ]; then
  build_options=(--compute-capability "$capability")
  listed=$(python -c 'import tensorrt_rtx; print(*tensorrt_rtx.ComputeCapability.__members__)') || exit 1
  if [[ " $listed " != *" SM${capability/./} "* ]]; then
    failed+=("TensorRT-RTX lists no compute capability $capability, only $listed")
    step "what TensorRT-RTX runs here nevertheless" python tests/gpu/rtx_generations.py
    finish
  fi
fi

[ -n "${EFFNET_EDGE_NO_TESTS:-}" ] || step "the runner's tests, on the real library" \
  python -m pytest tests/runtime -q -n 0

images=()
[ -n "$photos" ] && images=(--images "$photos")
for precision in fp32 fp16 int8; do
  bundle=$work/b0-$precision
  step "$precision: export, build, predict" make_bundle "$precision" "$bundle"
  step "$precision: parity of the engine with PyTorch" effnet-edge parity "$bundle" "${images[@]}"
  step "$precision: the engine's layers" python tests/gpu/layers.py "$bundle"
done

make_tuned() {
  effnet-edge tune b0 --target "$target" --calibration "$photos" --batch 1:1:8 -o "$work/tuned" --quiet &&
    effnet-edge build "$work/tuned" "${build_options[@]}" &&
    effnet-edge parity "$work/tuned" --images "$photos"
}
[ -n "$photos" ] && step "several graphs: build times them and keeps the fastest" make_tuned

step "latency against PyTorch in FP16" \
  python tests/gpu/latency.py "$work/b0-fp16" "$work/b0-int8" "$work/b0-fp32"

step "memory over $limit inferences" python tests/gpu/leaks.py "$work/b0-fp16" --runs "$limit"
finish
