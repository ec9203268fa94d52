#!/usr/bin/env bash
# Make constraints.txt anew: the newest versions that fit pyproject.toml and the pins below.
# torch stays at the version whose CPU build the project is tested with; the CUDA libraries that
# its PyPI build asks for are torch's own business.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
echo "torch==2.13.0" >"$pins"
{
  echo "# What the README and .ci/run install: exact versions for Python 3.10 to 3.13. Made with tools/lock.sh."
  uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 -c "$pins" \
    --no-header --no-annotate --quiet | grep -vE '^(nvidia-|cuda-toolkit|triton)'
} >constraints.txt.new
mv constraints.txt.new constraints.txt
