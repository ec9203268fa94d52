"""What the options of a comparison say of its model files: of one by its name, or of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from effnet_edge.errors import UsageError
from effnet_edge.parity.models.reading import LAYOUTS, PIXEL_RANGES, SAID_ENDINGS, Reading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Value = TypeVar("Value", bound=str)


@dataclass(frozen=True)
class Said:
    """The values of --layout, --pixels, --output and --ending, each "VALUE" or "MODEL=VALUE"."""

    layouts: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    def readings(self, files: Collection[str]) -> dict[str, Reading]:
        """What is said of each model file.

        Raises:
            UsageError: two things are said of one, something of none, or what is none of the
                choices.
        """
        by_option = {
            "--layout": self.layouts,
            "--pixels": self.pixels,
            "--output": self.outputs,
            "--ending": self.endings,
        }
        for option, values in by_option.items():
            if values and not files:
                raise UsageError(f"{option} {values[0]} goes with model files: there is none")
        outputs = [_parted(value, files) for value in self.outputs]
        return {
            file: Reading(
                _choice("--layout", self.layouts, file, files, LAYOUTS),
                _choice("--pixels", self.pixels, file, files, PIXEL_RANGES),
                _only("--output", [value for model, value in outputs if model == file], file),
                tuple(value for model, value in outputs if model is None),
                _choice("--ending", self.endings, file, files, SAID_ENDINGS),
            )
            for file in files
        }

    def check_outputs(self, chosen: Collection[str], files: Collection[str]) -> None:
        """Raise UsageError for an output that was named for all models and that none has."""
        for model, value in (_parted(each, files) for each in self.outputs):
            if model is None and value not in chosen:
                raise UsageError(
                    f"--output {value}: no model has an output of this name; those that are "
                    f"compared are {', '.join(map(repr, chosen))}"
                )


def _choice(
    option: str,
    said: Iterable[str],
    file: str,
    files: Collection[str],
    choices: tuple[Value, ...],
) -> Value | None:
    parted = [_parted(each, files) for each in said]
    for _, value in parted:
        if value not in choices:
            raise UsageError(
                f"{option} {value}: choose {' or '.join(choices)}, or MODEL={choices[0]} for one "
                f"of {', '.join(files)}"
            )
    of_this = [value for model, value in parted if model == file]
    only = _only(option, of_this or [value for model, value in parted if model is None], file)
    return next((each for each in choices if each == only), None)


def _only(option: str, values: list[str], file: str) -> str | None:
    if len(set(values)) > 1:
        raise UsageError(f"{option} says {' and '.join(values)} of {file}: give one of them")
    return values[0] if values else None


def _parted(said: str, files: Collection[str]) -> tuple[str | None, str]:
    """The model that is spoken of, None for all, and what is said: "MODEL=VALUE" or "VALUE"."""
    for called in (str, _name):
        meant = [file for file in files if said.startswith(f"{called(file)}=")]
        if len(meant) > 1:
            raise UsageError(f"{said}: that may be {' or '.join(meant)}: give the whole path")
        if meant:
            return meant[0], said[len(called(meant[0])) + 1 :]
    return None, said


def _name(file: str) -> str:
    return Path(file).name
