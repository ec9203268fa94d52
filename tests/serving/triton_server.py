"""A real Triton server on 127.0.0.1 for tests, out of the `nvidia-pytriton` wheel.

The wheel carries Triton's server and its Python backend, no other one. It is installed once in an
environment, under `.venv/triton` of the checkout (or EFFNET_EDGE_TEST_TRITON), with the packages of
`requirements/`, which are pinned by their hashes; nothing of it comes into the tests' own
environment. Models run in the Python of the tests, with its packages and with the project's own.

    with triton(repository) as server:
        urllib.request.urlopen(f"http://{server.http}/v2/models/NAME")
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# The last Python that NumPy 1 has wheels for.
NUMPY1_PYTHON = (3, 12)
_START_SECONDS, _END_SECONDS, _STARTS = 120, 30, 3


@dataclass(frozen=True)
class Server:
    """A running server: "127.0.0.1:PORT" of each protocol, and where it writes what it does."""

    http: str
    grpc: str
    pid: int
    log: Path


@contextmanager
def triton(
    repository: Path, *, numpy: int = 2, path: Sequence[Path] = (), wait: bool = True
) -> Iterator[Server]:
    """Serve a model repository until the block ends; every model in it must load.

    Args:
        numpy: the major version that models import; 1 or 2.
        path: folders that models import from first.
        wait: until every model is loaded; else until the server answers, whatever its models do.
    """
    wheel = installed("server")
    folders = [*path, *([numpy1()] if numpy == 1 else [])]
    for start in range(_STARTS):
        process, server = _started(wheel, repository, folders, exit_on_error=wait)
        try:
            if _is_up(process, server, "ready" if wait else "live"):
                yield server
                return
        finally:
            _end(process)
        text = server.log.read_text(errors="replace")
        if "ddress already in use" not in text or start == _STARTS - 1:
            raise AssertionError(f"Triton did not start:\n{text[-20_000:]}")


def numpy1() -> Path:
    """A folder with NumPy 1 alone; skips the test where this Python has no wheel of it."""
    if sys.version_info[:2] > NUMPY1_PYTHON:
        pytest.skip(f"NumPy 1 has no wheel for Python {PYTHON}")
    return installed("numpy1")


def import_client() -> None:
    """Let this process import `tritonclient`, with gRPC, which the tests' environment lacks.

    It asks for protobuf 6, and runs with 7, too.
    """
    folder = str(installed("client"))
    if folder not in sys.path:
        sys.path.append(folder)


def installed(requirements: str) -> Path:
    """The folder of the packages of a file in `requirements/`, installed by whoever asks first."""
    cache = Path(os.environ.get("EFFNET_EDGE_TEST_TRITON") or ROOT / ".venv" / "triton")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{requirements}-{PYTHON}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _install(REQUIREMENTS / f"{requirements}.txt", partial)
            partial.rename(folder)
    return folder


def _install(requirements: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(folder)]
    subprocess.run([*pip, *options, "-r", str(requirements)], check=True)
    server = folder / "pytriton" / "tritonserver"
    if server.exists():
        stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        shutil.copy(stub, server / "backends" / "python")
        for program in (server / "bin" / "tritonserver", server / "backends/python" / stub.name):
            program.chmod(0o755)


def _started(
    wheel: Path, repository: Path, folders: Sequence[Path], *, exit_on_error: bool
) -> tuple[subprocess.Popen[bytes], Server]:
    http, grpc = _free_ports(2)
    server = wheel / "pytriton" / "tritonserver"
    log = repository.parent / f"triton-{http}.log"
    command = [
        server / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
        "--exit-timeout-secs=10",
        f"--exit-on-error={str(exit_on_error).lower()}",
        # Servers side by side share /dev/shm.
        f"--backend-config=python,shm-region-prefix-name=effnet_edge_{os.getpid()}_{http}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(wheel, folders, repository.parent / f"python-{http}"),
        )
    return process, Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", process.pid, log)


def _environment(wheel: Path, folders: Sequence[Path], home: Path) -> dict[str, str]:
    """What makes the Python of models the tests' own, with `folders` first, by way of `home`.

    The backend's stub ignores PYTHONPATH and PYTHONHOME; it takes the virtual environment of the
    first `python3` in PATH.
    """
    venv.EnvBuilder(symlinks=True).create(home)
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    path = [*folders, ROOT, ROOT / "export", ROOT / "calibration", *packages]
    site = home / "lib" / f"python{PYTHON}" / "site-packages"
    (site / "tests.pth").write_text("".join(f"{each}\n" for each in dict.fromkeys(path)))
    libraries = [str(wheel / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": os.pathsep.join([str(home / "bin"), os.environ.get("PATH", os.defpath)]),
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _is_up(process: subprocess.Popen[bytes], server: Server, health: str) -> bool:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{server.http}/v2/health/{health}", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server that was started here; its models' processes end with it."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Serve the repository that the command line names, until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    with triton(Path(sys.argv[1]).resolve()) as server:
        sys.stdout.write(f"HTTP {server.http}, gRPC {server.grpc}, log {server.log}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
