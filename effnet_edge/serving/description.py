"""What a server says of a model: its inputs, its outputs, how many pictures it takes at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError, ServerError
from effnet_edge.serving.tensors import numpy_name

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_PARAMETER = "effnet_edge_manifest_sha256"
"""The model's parameter that has the SHA-256 of its bundle's manifest.json, in hexadecimal."""

_MOST_BATCH = 65536
_MOST_AXES = 8
_MOST_TEXT = 200


@dataclass(frozen=True)
class ServedTensor:
    """An input or an output; `shape` has None for what is left open, its first axis is the batch.

    Attributes:
        datatype: the protocol's name, such as "FP32".
        channels_last: where the server says it; None where not.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]
    channels_last: bool | None = None

    @property
    def dtype(self) -> str:
        """NumPy's name of the type, or the protocol's in lower case where NumPy has none."""
        return numpy_name(self.datatype)


@dataclass(frozen=True)
class Description:
    """A served model.

    Attributes:
        server: its name and version, such as "triton 2.51.0".
        platform: what runs the model there; "" where the server does not say.
        least, most: pictures of a request; None for any number.
        parameters: of the model, as text.
    """

    server: str
    platform: str
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    least: int = 1
    most: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def manifest_sha256(self) -> str | None:
        """Of the bundle that the model was deployed from, where the server tells."""
        return self.parameters.get(MANIFEST_PARAMETER)


def description_of(
    server: Mapping[str, Any], model: Mapping[str, Any], config: Mapping[str, Any]
) -> Description:
    """Read the metadata of server and model, and Triton's configuration ({} where there is none).

    Raises:
        ServerError: they are no such documents.
        BackendError: its input leaves no batch of pictures.
    """
    formats = {
        _text(each.get("name")): {"FORMAT_NHWC": True, "FORMAT_NCHW": False}.get(
            _text(each.get("format", ""))
        )
        for each in _objects(config, "input")
    }
    inputs = tuple(_tensor(each, formats) for each in _objects(model, "inputs"))
    outputs = tuple(_tensor(each, {}) for each in _objects(model, "outputs"))
    least, most = _batch(inputs, config)
    return Description(
        f"{_text(server.get('name'))} {_text(server.get('version', ''))}".strip(),
        _text(model.get("platform") or config.get("backend") or ""),
        inputs,
        outputs,
        least,
        most,
        _parameters(model) | _parameters(config),
    )


def _batch(inputs: tuple[ServedTensor, ...], config: Mapping[str, Any]) -> tuple[int, int | None]:
    """The least and the most pictures of a request: by the configuration, then by the input."""
    told = _integer(config.get("max_batch_size", 0))
    if not 0 <= told <= _MOST_BATCH:
        raise ServerError(f"its configuration has a max_batch_size of {told}")
    size = inputs[0].shape[0] if inputs and inputs[0].shape else None
    if size is None:
        return 1, told or None
    if size > _MOST_BATCH:
        raise BackendError(
            f"its input takes {size} pictures at once, and {_MOST_BATCH} is the most"
        )
    return size, size


def _tensor(told: Mapping[str, Any], formats: Mapping[str, bool | None]) -> ServedTensor:
    name, shape = _text(told.get("name")), told.get("shape")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        raise ServerError(f"its metadata has no shape of {name!r}")
    sizes = tuple(_size(each) for each in shape)
    return ServedTensor(name, _text(told.get("datatype")), sizes, formats.get(name))


def _size(value: object) -> int | None:
    size = _integer(value)
    if size == 0 or size < -1 or size > 1 << 24:
        raise ServerError(f"its metadata has an axis of {size}")
    return None if size == -1 else size


def _objects(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ServerError(f"its metadata has no list of {key}")
    return found


def _parameters(document: Mapping[str, Any]) -> dict[str, str]:
    """Triton's {"key": {"string_value": "text"}} and plain {"key": "text"}; others are passed."""
    found = document.get("parameters")
    values = {
        key: each.get("string_value") if isinstance(each, dict) else each
        for key, each in (found.items() if isinstance(found, dict) else ())
    }
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ServerError("its metadata lacks a name or a type")
    return value[:_MOST_TEXT]


def _integer(value: object) -> int:
    """Of a number, or of the text that gRPC's JSON has for long ones."""
    digits = value.lstrip("-") if isinstance(value, str) else ""
    if type(value) is int or (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return int(value)  # type: ignore[call-overload, no-any-return]
    raise ServerError("its metadata has a size that is no number")
