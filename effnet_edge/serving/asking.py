"""How the served models of a command are asked, as its options say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.serving.model import TIMEOUT_SECONDS, ServedModel

if TYPE_CHECKING:
    from collections.abc import Collection

    from effnet_edge.serving.http_protocol import TensorForm


@dataclass(frozen=True)
class Asking:
    """What was said of --timeout and --tensors; None for what was not."""

    timeout: float | None = None
    form: TensorForm | None = None

    def connect(self, address: str) -> ServedModel:
        """Ask for a model; raises as `ServedModel.connect`."""
        timeout = self.timeout or TIMEOUT_SECONDS
        return ServedModel.connect(address, timeout=timeout, form=self.form)

    def check(self, addresses: Collection[str]) -> None:
        """Raise UsageError where something was said and there is no model that it goes with."""
        for option, value in {"--timeout": self.timeout, "--tensors": self.form}.items():
            if value is not None and not addresses:
                raise UsageError(f"{option} {value} goes with a served model: there is none")
        if self.form is not None and not any(each.startswith("http:") for each in addresses):
            raise UsageError(f"--tensors {self.form} goes with a model that is served by http://")
