"""What the constants of an OpenVINO model hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def constant_of(port: Any) -> NDArray[np.float32] | None:
    """The values of a constant, through conversions; None for anything that is computed.

    Asked for as float32: without that, OpenVINO gives the bits of types that numpy lacks (BF16,
    4-bit integers, 8-bit floats) as if they were numbers of another type.
    """
    node = _source(port)
    if node.get_type_name() != "Constant":
        return None
    values: NDArray[np.float32] = node.get_data(dtype=np.float32)
    return values


def is_constant(port: Any) -> bool:
    """Whether `constant_of` has values, without reading them."""
    return bool(_source(port).get_type_name() == "Constant")


def _source(port: Any) -> Any:
    node = port.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node
