"""One export of a sweep, as a node does it."""

from __future__ import annotations

import pytest

from effnet_edge.errors import BackendError
from effnet_edge.fleet.exporting import export
from effnet_edge.fleet.package import Package


def order(*arguments: str) -> Package:
    return Package({"bundle": "b0", "arguments": ["b0", *arguments]})


def test_an_export_that_makes_no_bundle_is_told() -> None:
    with pytest.raises(BackendError, match="made no bundle: leave out of the options"):
        export(order("--help"))


def test_an_export_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(BackendError, match=r"no\.pth: no such file"):
        export(order("--weights", "no.pth"))
