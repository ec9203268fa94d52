"""Models for OpenVINO Model Server: the IR, and the entry of config.json that serves it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from effnet_edge.deploy.configurations import OVMS_CONFIG, TRITON_CONFIG
from effnet_edge.deploy.openvino_batches import check_int8_batch
from effnet_edge.errors import UsageError
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from effnet_edge.bundle import Manifest
    from effnet_edge.deploy.source import Source

_LIST = "model_config_list"


class Ovms:
    """A model repository of OpenVINO Model Server."""

    title = "OpenVINO Model Server"

    def check(self, manifest: Manifest) -> None:
        """Raise UsageError for a bundle that would not be answered as it was proven."""
        if manifest.target != "openvino":
            raise UsageError(
                f"it was proven in {TARGETS[manifest.target].title}, and {self.title} would run it "
                "in OpenVINO: export it with --target openvino"
            )
        check_int8_batch(manifest, "export it with --batch 1")

    def check_repository(self, repository: Path) -> None:
        """Raise UsageError for another server's repository, or one whose config.json is none."""
        for config in sorted(repository.glob(f"*/{TRITON_CONFIG}")):
            raise UsageError(
                f"{config.parent}: has a {TRITON_CONFIG}, as Triton reads it: choose another -o"
            )
        _read(repository / OVMS_CONFIG)

    def backend(self, _manifest: Manifest) -> str:
        """What runs the model, in words."""
        return "OpenVINO on the processor"

    def manifest_place(self, version: Path) -> Path:
        """Where a version's manifest is."""
        return version

    def shared(self, name: str, manifest: Manifest) -> object:
        """What every version of a model has in common."""
        return (_entry(name, manifest), manifest.input, manifest.output, manifest.batch)

    def model_files(self, _name: str, _source: Source) -> dict[str, str]:
        """The files of the model's folder beside its versions: none."""
        return {}

    def changed_files(self, _model: Path, _source: Source) -> dict[str, str]:
        """Those that a new version changes: none."""
        return {}

    def missing_changes(self, _model: Path, _source: Source) -> dict[str, str]:
        """Those that a version which is there should have changed: none."""
        return {}

    def repository_files(
        self, repository: Path, models: Sequence[tuple[str, Manifest]]
    ) -> dict[str, str]:
        """The server's configuration with an entry for each model that has none yet."""
        path = repository / OVMS_CONFIG
        document = _read(path)
        known = {each["config"]["name"] for each in document[_LIST]}
        for name, _ in models:
            if name in known and not (repository / name).exists():
                raise UsageError(
                    f"{path}: has an entry of that name already, {name}: give another --name"
                )
        new = [_entry(name, manifest) for name, manifest in models if name not in known]
        whole = {**document, _LIST: [*document[_LIST], *new]}
        return {OVMS_CONFIG: json.dumps(whole, indent=2) + "\n"} if new else {}

    def start(self, repository: Path) -> str:
        """The command that serves the repository."""
        return f"ovms --config_path {shlex.quote(str(repository / OVMS_CONFIG))} --rest_port 8000"

    def write_version(self, source: Source, folder: Path) -> None:
        """Fill a version's folder; raises BundleError where the bundle has changed."""
        source.write_ir(folder)
        source.write_proof(folder)


def _entry(name: str, manifest: Manifest) -> dict[str, Any]:
    """What config.json says of a model; its path is relative to that file.

    The device is the processor, where the server would take a GPU if there is one. A bundle in FP32
    runs in FP32, where a processor with BF16 would take that.
    """
    config = {"name": name, "base_path": name, "target_device": "CPU"}
    if manifest.precision == "fp32":
        return {"config": {**config, "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"}}}
    return {"config": config}


def _read(path: Path) -> dict[str, Any]:
    """The server's configuration, or an empty one where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {_LIST: []}
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UsageError(f"{path}: is not JSON: correct it, or choose another -o") from error
    entries = document.get(_LIST) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UsageError(
            f"{path}: has no {_LIST} as OpenVINO Model Server reads it: correct it, or choose "
            "another -o"
        )
    return dict(document)


def _is_entry(each: object) -> bool:
    config = each.get("config") if isinstance(each, dict) else None
    return isinstance(config, dict) and isinstance(config.get("name"), str)
