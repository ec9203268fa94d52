"""A way to make a model, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from int8_peers.cost import Cost
from int8_peers.subject import Subject

Engine = Literal["openvino", "onnxruntime"]
Setting = str | int | float | bool


@dataclass(frozen=True)
class Product:
    """What a method wrote into its folder.

    Attributes:
        file: the main file, relative to the folder.
        earlier: what was spent before on parts that several methods share.
    """

    file: str
    earlier: Cost = field(default_factory=Cost)


Make = Callable[[Subject, Path], Product]
"""Writes a model into a folder."""


@dataclass(frozen=True)
class Method:
    """One setting of one tool.

    Attributes:
        group: the table's row; of several methods in a group, the table shows the best.
        settings: everything that was chosen. The tool's own defaults are not repeated.
        tools: distributions whose versions the model depends on.
        hints: what OpenVINO is asked to compute the float parts in, one judgement each.
        in_runner: whether the model lies in a bundle of ours, which `EngineRunner` runs.
    """

    group: str
    settings: Mapping[str, Setting]
    make: Make
    engine: Engine
    tools: tuple[str, ...]
    hints: tuple[str, ...] = ("",)
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What else the model depends on, such as a digest of the code that makes it."""
    in_runner: bool = False

    @property
    def text(self) -> str:
        """The settings as a person reads them."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())
