"""Which batches a server may give to OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from effnet_edge.bundle import Manifest


def check_int8_batch(manifest: Manifest, remedy: str) -> None:
    """Raise UsageError for an INT8 model whose batch is dynamic.

    OpenVINO's CPU plugin answers nonsense to one image there, so that the exported file takes two
    or more, and EngineRunner compiles it once more for single ones. A server does not.
    """
    if manifest.precision == "int8" and manifest.batch.minimum != manifest.batch.maximum:
        raise UsageError(
            "an INT8 model of OpenVINO whose batch is dynamic cannot answer single images, which "
            f"EngineRunner runs in another way and the server would not: {remedy}"
        )
