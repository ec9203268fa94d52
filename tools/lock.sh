#!/usr/bin/env bash
# Make constraints.txt and requirements/ anew: the newest versions that fit pyproject.toml and the
# pins below. With hashes, for pip install --require-hashes:
#
#   requirements/EXTRA.txt   what effnet-edge[EXTRA] needs, and hatchling, which builds it
#   requirements/cuda.txt    what PyPI's torch asks for beside it on Linux
#   requirements/torch-cpu.txt   torch without CUDA, of the wheels that are given
#
# torch stays at the version whose CPU build the project is tested with; the CUDA libraries that
# its PyPI build asks for are torch's own business.
#
#   tools/lock.sh WHEEL…     torch's CPU wheels, which are not on PyPI, to be accepted as well
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n "/WHEEL…/s/^# *//p" "$0" >&2; exit 2; }
extras=(all dev openvino onnxruntime litert)
cuda='^(nvidia-|cuda-toolkit|triton)'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
torch=2.13.0
echo "torch==$torch" >"$work/pins.in"
echo "hatchling>=1.24" >"$work/build.in"
compile() {
  uv pip compile pyproject.toml --universal --python-version 3.10 --no-header --no-annotate --quiet "$@"
}

{
  echo "# What the README and .ci/run install: exact versions for Python 3.10 to 3.13. Made with tools/lock.sh."
  compile --extra dev -c "$work/pins.in" | grep -vE "$cuda"
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt

for wheel in "$@"; do
  echo "    --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1) \\"
done >"$work/wheels"
mkdir -p requirements
{
  echo "torch==$torch+cpu \\"
  sed '$ s/ \\$//' "$work/wheels"
} >requirements/torch-cpu.txt
for extra in "${extras[@]}"; do
  compile "$work/build.in" --extra "$extra" -c constraints.txt -c "$work/pins.in" --generate-hashes \
    | awk -v wheels="$work/wheels" '{print} /^torch==/ {while ((getline line < wheels) > 0) print line}' \
      >"$work/hashed"
  # A requirement goes on in indented lines, its hashes.
  awk -v cuda="$cuda" '/^[^ ]/ {skip = $0 ~ cuda} !skip' "$work/hashed" >"requirements/$extra.txt"
  if [ "$extra" = all ]; then
    awk -v cuda="$cuda" '/^[^ ]/ {skip = $0 !~ cuda} !skip' "$work/hashed" >requirements/cuda.txt
  fi
done
