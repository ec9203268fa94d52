"""HDF5 files, read in another process: the library can be neither interrupted nor limited in ours.

What comes back is parsed as data, too.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, CheckpointError
from effnet_edge.extras import install_hint
from effnet_edge.model.checkpoints.hdf5_child import LENGTH_BYTES
from effnet_edge.processes import places_of_code

if TYPE_CHECKING:
    from effnet_edge.model.checkpoints.hdf5_child import Variables

_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "import effnet_edge.model.checkpoints.hdf5_child as c; c.main(sys.argv[1], int(sys.argv[2]))"
)
# Of the processor: a b7, 256 MB, takes three. A process that only waits is ended, too.
_SECONDS = 10
_BYTES_A_SECOND = 20_000_000
_WAITING = 12


@dataclass(frozen=True)
class Hdf5Content:
    """What a file of Keras has.

    Attributes:
        variables: by the names of their layer and of their own, such as ("stem_conv", "kernel").
        description: the model's own of its layers, JSON; None where there are but weights.
    """

    variables: Variables
    description: str | None


def read_hdf5(name: str, data: bytes) -> Hdf5Content:
    """Read a file of Keras; `name` is what errors call it.

    It may take 10 s of the processor, and 1 GiB beside four times the file.

    Raises:
        CheckpointError: it is damaged, takes more, ends the process that reads it, or has no layer
            names.
        BackendError: h5py is not installed.
    """
    answer = _answer_of_child(name, data)
    try:
        return _content(name, answer)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} is truncated or damaged: copy it again") from error


def _answer_of_child(name: str, data: bytes) -> bytes:
    seconds = _SECONDS + len(data) // _BYTES_A_SECOND
    command = [sys.executable, "-I", "-c", _CHILD, name, str(seconds), *places_of_code()]
    try:
        child = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WAITING * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _endless(name, seconds) from error
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _endless(name, seconds)
    if child.returncode < 0:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again (the HDF5 library crashed on it: "
            f"{signal.strsignal(-child.returncode)})"
        )
    return child.stdout


def _endless(name: str, seconds: int) -> CheckpointError:
    return CheckpointError(
        f"{name} is truncated or damaged: copy it again (the HDF5 library did not come to its "
        f"end in {seconds} s)"
    )


def _content(name: str, answer: bytes) -> Hdf5Content:
    length = int.from_bytes(answer[:LENGTH_BYTES], "little")
    place = LENGTH_BYTES + length
    header = json.loads(answer[LENGTH_BYTES:place])
    if "error" in header:
        if header["error"] is None:
            raise BackendError(
                f"{name} is an HDF5 file, and reading it needs h5py: {install_hint('export')}"
            )
        raise CheckpointError(str(header["error"]))
    variables: Variables = {}
    for layer, leaf, dtype, shape in header["variables"]:
        count = math.prod(shape)
        values = np.frombuffer(answer, np.dtype(dtype), count, place) if count else np.empty(0)
        variables[str(layer), str(leaf)] = values.astype(dtype, copy=False).reshape(shape)
        place += values.nbytes
    return Hdf5Content(variables, header["description"])
