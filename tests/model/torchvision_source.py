"""What torchvision's own source says of its EfficientNets; importing it needs a matching torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import util
from pathlib import Path

ATTRIBUTES = {"BICUBIC": "bicubic", "BILINEAR": "bilinear"}


@dataclass(frozen=True)
class Weights:
    """The default weights of a variant."""

    url: str
    top1: float
    crop_size: int
    resize_size: int
    interpolation: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def torchvision_weights() -> dict[str, Weights]:
    """By our name of the variant."""
    spec = util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "models" / "efficientnet.py").read_text()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("_Weights"):
            size = node.name.removeprefix("EfficientNet_").removesuffix("_Weights")
            found[size.lower().replace("_", "-")] = _default(node)
    return found


def _default(enumeration: ast.ClassDef) -> Weights:
    assigned = {
        node.targets[0].id: node.value  # type: ignore[attr-defined]
        for node in enumeration.body
        if isinstance(node, ast.Assign)
    }
    default = assigned["DEFAULT"]
    assert isinstance(default, ast.Name)
    call = assigned[default.id]
    assert isinstance(call, ast.Call)
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    transforms = arguments["transforms"]
    assert isinstance(transforms, ast.Call)
    options = {keyword.arg: _value(keyword.value) for keyword in transforms.keywords}
    accuracy = [
        ast.literal_eval(value)
        for node in ast.walk(arguments["meta"])
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "acc@1"
    ]
    return Weights(
        url=ast.literal_eval(arguments["url"]),
        top1=accuracy[0],
        crop_size=options["crop_size"],
        resize_size=options["resize_size"],
        interpolation=options["interpolation"],
        mean=options.get("mean"),
        std=options.get("std"),
    )


def _value(node: ast.expr):
    if isinstance(node, ast.Attribute):
        return ATTRIBUTES[node.attr]
    return ast.literal_eval(node)
