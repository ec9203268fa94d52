#!/usr/bin/env bash
# Install the package on an emulated aarch64 processor, and hold its answers to 16 pictures to those
# that the same bundles give here.
#
#   tools/aarch64.sh FOLDER [RESOLUTION]     RESOLUTION: of the network's input, 224 if not said
#
# It needs an x86 Debian or Ubuntu with apt, Debian's keyring (debian-archive-keyring), and this
# package with [all,litert] on the PATH; no root. FOLDER, about 2 GB, may be deleted afterwards, and
# what is in it already is used again. EFFNET_EDGE_ARM_PROCESSORS names other processors of qemu's.
#
# qemu 10 and Debian 13 on purpose: qemu 7.2 of Debian 12 crashes on onnxruntime. No program is
# started from an emulated one, so that the kernel need not know about qemu (binfmt_misc).
set -euo pipefail
[ $# -ge 1 ] || { sed -n "/FOLDER \[/s/^# *//p" "$0" >&2; exit 2; }
source=$(cd "$(dirname "$0")/.." && pwd)
resolution=${2:-224}
processors=${EFFNET_EDGE_ARM_PROCESSORS:-cortex-a72 neoverse-n1}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$1"
cd "$1"
here=$PWD
failed=0

apt_of_its_own() {
  mkdir -p apt/lists/partial apt/cache/archives/partial
  touch apt/status
  echo "deb [signed-by=$keyring] $mirror trixie main" >apt/sources.list
  cat >apt/apt.conf <<END
Dir::State "$here/apt";
Dir::State::status "$here/apt/status";
Dir::Cache "$here/apt/cache";
Dir::Etc::SourceList "$here/apt/sources.list";
Dir::Etc::SourceParts "-";
APT::Architecture "arm64";
APT::Architectures { "arm64"; "amd64"; };
APT::Install-Recommends "false";
Debug::NoLocking "true";
END
  export APT_CONFIG=$here/apt/apt.conf
  apt-get -qq update
  apt-get -qq -y -d install python3-venv ca-certificates libgomp1 libstdc++6 qemu-user:amd64
}

unpack() {
  rm -rf root qemu
  mkdir root qemu
  for package in apt/cache/archives/*.deb; do
    case $package in
      *qemu-user*) dpkg-deb --fsys-tarfile "$package" | tar -xC qemu ./usr/bin/qemu-aarch64 ;;
      *) dpkg-deb -x "$package" root ;;
    esac
  done
  for folder in bin lib sbin; do
    [ -e "root/$folder" ] || ln -s "usr/$folder" "root/$folder"
  done
}

# arm PROCESSOR ARGUMENT…: runs Python on an emulated processor.
arm() {
  local processor=$1 python=root/usr/bin/python3
  shift
  [ ! -e venv/bin/python ] || python=venv/bin/python
  qemu/usr/bin/qemu-aarch64 -cpu "$processor" -L "$here/root" "$here/$python" "$@"
}

install_package() {
  rm -rf venv wheel
  python -m pip wheel -q --no-deps -w wheel "$source"
  arm max -m venv --without-pip venv
  arm max "$(echo root/usr/share/python-wheels/pip-*.whl)/pip" install -q --no-compile \
    -c "$source/constraints.txt" "$(echo "$here"/wheel/*.whl)[openvino,onnxruntime,litert]"
  touch venv/installed
}

write_photos() {
  python - <<'END'
import shutil
from importlib import resources
from pathlib import Path

from effnet_edge.pictures.embedded import PHOTOGRAPHS

Path("photos").mkdir(exist_ok=True)
for package, (folder, names) in PHOTOGRAPHS.items():
    for name in names:
        with resources.as_file(resources.files(package).joinpath(folder, name)) as photo:
            shutil.copy(photo, "photos")
END
}

# answers_here BUNDLE OTHER OPTION…: BUNDLE's answers on this machine, kept for the emulated one.
answers_here() {
  local bundle=$1 other=$2
  shift 2
  effnet-edge parity "$other" --reference "$bundle" --images photos --answers answers --quiet "$@" >/dev/null
}

export_bundles() {
  for target in openvino onnxruntime litert; do
    for precision in fp32 int8; do
      [ -e "$target-$precision" ] || effnet-edge export b0 --target "$target" "--$precision" \
        --resolution "$resolution" -o "$target-$precision" --quiet
    done
  done
  rm -rf answers
  answers_here openvino-fp32 onnxruntime-fp32 --precision fp32
  answers_here onnxruntime-fp32 openvino-fp32 --precision fp32
  answers_here litert-fp32 onnxruntime-fp32 --precision fp32
  answers_here openvino-int8 openvino-fp32
  answers_here onnxruntime-int8 openvino-fp32
  answers_here litert-int8 openvino-fp32
}

# compare PROCESSOR BUNDLE GATE…: equal pixels are what finds a picture's recorded answer.
compare() {
  local processor=$1 bundle=$2
  shift 2
  arm "$processor" venv/bin/effnet-edge parity "$bundle" --reference answers/"$bundle"-*.answers \
    --images photos --quiet "$@"
}

told() {
  echo "== $(date +%T) $*"
}

told "Debian 13 for arm64, and qemu"
[ -e root/usr/bin/python3 ] || { apt_of_its_own && unpack; }
told "pip install on aarch64"
[ -e venv/installed ] || install_package
told "bundles of B0 at $resolution pixels, made here"
[ -e photos ] || write_photos
export_bundles
for processor in $processors; do
  told "$processor: effnet-edge doctor"
  arm "$processor" venv/bin/effnet-edge doctor || failed=1
  for target in openvino onnxruntime litert; do
    told "$processor: $target in FP32"
    compare "$processor" "$target-fp32" --precision fp32 --min-sqnr 110 --min-agreement 100 || failed=1
  done
  for target in openvino onnxruntime; do
    told "$processor: $target in INT8, as its plugin runs it (exit code 1: not at all)"
    compare "$processor" "$target-int8" || echo "exit code $?"
  done
  told "$processor: LiteRT's INT8 is the same but for gates, which it computes in FP32"
  compare "$processor" litert-int8 --min-sqnr 25 || failed=1
done
told "done; failed: $failed"
exit "$failed"
