"""The JSON of a bundle: parsed strictly and held to `data/bundle.schema.json`.

The schema leaves the names of the targets open, as they stand in `effnet_edge.targets`.
"""

from __future__ import annotations

import json
import math
import os
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BundleError
from effnet_edge.targets import TARGETS, built_on_device

if TYPE_CHECKING:
    from collections.abc import Callable


def parse_json(text: str | bytes, source: str | os.PathLike[str]) -> Any:
    """Parse JSON as RFC 8259 has it; `source` names it in errors.

    Raises:
        BundleError: not JSON, a number that is none or too large for a float64, a key given twice,
            or nested too deeply.

    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} appears twice")
            found[key] = value
        return found

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise ValueError("a number is too large")
        return number

    def whole(digits: str) -> int:
        finite(digits)
        return int(digits)

    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=refuse_constant,
            parse_float=finite,
            parse_int=whole,
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{os.fspath(source)}: is not valid JSON ({error}): export the bundle again"
        ) from error


def check_manifest(document: Any, source: str | os.PathLike[str]) -> None:
    """Hold a parsed `manifest.json` to the schema; raises BundleError with the first fault."""
    _check(document, _manifest_validator(), source)


def check_labels(document: Any, source: str | os.PathLike[str]) -> None:
    """Hold a parsed `labels.json` to the schema; raises BundleError with the first fault."""
    _check(document, _labels_validator(), source)


@cache
def _manifest_validator() -> Callable[[Any], Any]:
    import fastjsonschema

    validator: Callable[[Any], Any] = fastjsonschema.compile(_schema())
    return validator


@cache
def _labels_validator() -> Callable[[Any], Any]:
    import fastjsonschema

    definitions = _schema()["definitions"]
    validator: Callable[[Any], Any] = fastjsonschema.compile(
        {"$ref": "#/definitions/labels", "definitions": definitions}
    )
    return validator


def _check(document: Any, validator: Callable[[Any], Any], source: str | os.PathLike[str]) -> None:
    import fastjsonschema

    try:
        validator(document)
    except fastjsonschema.JsonSchemaValueException as error:
        what = " ".join(re.sub(r"^data\.?", "", error.message).split())
        raise BundleError(f"{os.fspath(source)}: {what}: export the bundle again") from error


def _schema() -> dict[str, Any]:
    text = resources.files("effnet_edge").joinpath("data", "bundle.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    schema["properties"]["target"] = {"enum": list(TARGETS)}
    schema["definitions"]["engine"]["properties"]["library"] = {"enum": built_on_device()}
    return schema
