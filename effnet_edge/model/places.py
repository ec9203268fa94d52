"""Where a checkpoint is, by what a person gave; nothing is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.model.remote.hub import SYNTAX as HUB_SYNTAX
from effnet_edge.model.remote.hub import is_hub_address
from effnet_edge.model.remote.registry import weight_names
from effnet_edge.model.request import RANDOM_WEIGHTS

if TYPE_CHECKING:
    import os

_INDEX = ".index"
_TF_DATA_FILE = re.compile(r"(?P<name>.+)\.data-\d{5}-of-\d{5}")


def check_weights(variant: str, weights: str) -> None:
    """Raise UsageError where `weights` is none of the variant's names, no address and no file."""
    if weights == RANDOM_WEIGHTS or weights in weight_names(variant) or is_hub_address(weights):
        return
    find_named_file(variant, weights)


def find_named_file(variant: str, weights: str) -> tuple[Path, str | None]:
    """The file of FILE or FILE#PREFIX, and the prefix, if any; raises UsageError without one."""
    path, part = find_file(weights)
    if path is None:
        raise UsageError(
            f"--weights {weights}: no such file, and the weights of {variant} that have a "
            f"name are {', '.join(weight_names(variant))}: give one of them, a checkpoint file (of "
            f"several networks in a file FILE#PREFIX), or {HUB_SYNTAX}"
        )
    return path, part


def find_file(weights: str) -> tuple[Path | None, str | None]:
    """Split FILE or FILE#PREFIX into the file, None where there is none, and the prefix, if any."""
    path = find_checkpoint(weights)
    if path is not None or "#" not in weights:
        return path, None
    file, _, part = weights.rpartition("#")
    return find_checkpoint(file), part


def find_checkpoint(weights: str | os.PathLike[str]) -> Path | None:
    """The file to read for what a person gave; None where there is none.

    A TensorFlow checkpoint is several files: any of them, their common name or the directory that
    they are in stands for its `.index`.

    Raises:
        UsageError: a directory that does not hold one TensorFlow checkpoint.
    """
    path = Path(weights)
    if path.is_dir():
        found = sorted(path.glob(f"*{_INDEX}"))
        if len(found) != 1:
            raise UsageError(f"--weights {path} is a directory: give the checkpoint file in it")
        return found[0]
    data_file = _TF_DATA_FILE.fullmatch(path.name)
    index = path.with_name(f"{data_file['name'] if data_file else path.name}{_INDEX}")
    if index.is_file() and (data_file or not path.is_file()):
        return index
    return path if path.is_file() else None
