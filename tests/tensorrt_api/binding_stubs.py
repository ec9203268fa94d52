"""Type stubs of TensorRT's Python binding, made from its binary; no GPU and no library is needed.

NVIDIA's wheels carry no stubs. The binding's module imports where the libraries that it links to
are found, and of those it needs nothing but that nine symbols exist: a stand-in has them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "tensorrt-cu12-bindings"
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)

# The module calls one of its data types "bool", which hides Python's own from its annotations.
_PYTHON_BOOL = re.compile(r"(?<![\w.])bool(?=[\s,\])=:]|$)(?!\s*:\s*DataType)", re.MULTILINE)
_FUNCTION = re.compile(r"^(\s*def \w+\()(.*?)(\)\s*(?:->.*)?: *\.\.\.)", re.MULTILINE)
_PARAMETERS = re.compile(r",\s*(?![^\[]*\])")


def of_tensorrt(version: str, folder: Path) -> Path:
    """Download a binding and write its stubs as the module `tensorrt` into the folder given back.

    Raises `subprocess.CalledProcessError` where pip, the C compiler or stubgen fails.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _run([*pip, "--dest", str(folder), f"{WHEEL}=={version}"])
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    libraries = _stand_ins(version.split(".", maxsplit=1)[0], folder / "libraries")
    paths = {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder / "tensorrt_bindings")}
    return _stubs("tensorrt", folder / "stubs", "tensorrt", paths)


def of_tensorrt_rtx(folder: Path, name: str = "tensorrt_rtx") -> Path:
    """Write the stubs of the TensorRT-RTX that is installed here, as the module called `name`."""
    return _stubs("tensorrt_rtx_bindings.tensorrt_rtx", folder, name, {"PYTHONPATH": ""})


def _stand_ins(major: str, folder: Path) -> Path:
    """Shared libraries with the symbols that the binding links to, all of which do nothing."""
    folder.mkdir()
    source = folder / "stand_in.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in SYMBOLS))
    for library in LIBRARIES:
        file = f"{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{file}", str(source)]
        _run([*command, "-o", str(folder / file)])
    return folder


def _stubs(module: str, folder: Path, name: str, paths: dict[str, str]) -> Path:
    made = folder / "made"
    # The module is compiled, and -m runs no such.
    stubgen = [sys.executable, "-c", "from mypy.stubgen import main; main()"]
    _run([*stubgen, "--inspect-mode", "--module", module, "--output", str(made)], paths)
    text = (made / Path(*module.split("."))).with_suffix(".pyi").read_text()
    shutil.rmtree(made)
    target = folder / name
    target.mkdir(parents=True)
    (target / "__init__.pyi").write_text(_corrected(text))
    return folder


def _corrected(text: str) -> str:
    """What stubgen cannot know of this binding, or writes as no type checker reads it."""
    text = _FUNCTION.sub(_with_defaults, text)
    text = _PYTHON_BOOL.sub("builtins.bool", text)
    # Tuples and lists become Dims on their own, and host memory gives a buffer: NVIDIA TensorRT
    # Python API, "Dims" and "IHostMemory".
    text = re.sub(r": Dims(?=[,)\]=\s])", ": Dims | collections.abc.Sequence[int]", text)
    buffer = "    def __buffer__(self, flags: int, /) -> memoryview: ...\n"
    text = text.replace("class IHostMemory:\n", f"class IHostMemory:\n{buffer}")
    return f"import builtins\nimport collections.abc\n{text}"


def _with_defaults(function: re.Match[str]) -> str:
    """pybind11 has parameters without a default after some with one; Python has not."""
    parameters, optional = [], False
    for parameter in _PARAMETERS.split(function.group(2)):
        optional = optional or "=" in parameter
        lacks = optional and "=" not in parameter and not parameter.startswith("*")
        parameters.append(f"{parameter} = ..." if lacks else parameter)
    return function.group(1) + ", ".join(parameters) + function.group(3)


def _run(command: list[str], paths: dict[str, str] | None = None) -> None:
    environment = {**os.environ, **(paths or {})}
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
