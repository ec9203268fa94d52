"""Models for Triton: the engine's file for its own backends, or EngineRunner in its Python one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from effnet_edge.deploy.configurations import OVMS_CONFIG, TRITON_CONFIG
from effnet_edge.deploy.openvino_batches import check_int8_batch
from effnet_edge.deploy.pbtxt import (
    numbers,
    parameter,
    quoted,
    with_manifest,
)
from effnet_edge.errors import UsageError
from effnet_edge.serving.description import MANIFEST_PARAMETER
from effnet_edge.targets import TARGETS
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from effnet_edge.bundle import BatchRange, Manifest
    from effnet_edge.deploy.source import Source

LABELS_FILE = "labels.txt"
MODEL_FILE, WRAPPED_BUNDLE = "model.py", "bundle"
OPTION_PARAMETER = "effnet_edge_"
"""What the parameters begin with that tell a wrapped model how to run its engine."""

_HEAD = "# Written by effnet-edge deploy; yours to edit. A new version changes the hash alone.\n"
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_WRAPPED_MODEL = """\
\"\"\"Runs the bundle beside it with effnet_edge.EngineRunner.\"\"\"

from effnet_edge.deploy.triton_model import TritonPythonModel
"""
# Images that one call of a wrapped model takes; EngineRunner splits them for its engine.
_WRAPPED_IMAGES = 32
_WITHOUT_BACKEND = ("tensorrt-rtx", "litert")
_PRECISION = "precision"
_CHOOSES = ("single-label", "multi-label")


class Triton:
    """A model repository of Triton.

    Args:
        wrapped: run bundles with EngineRunner in Triton's Python backend, instead of giving the
            engine's file to Triton's own backend for it.
        options: of `EngineRunner.load`, for wrapped models.
    """

    title = "Triton"

    def __init__(self, *, wrapped: bool = False, options: Mapping[str, str] | None = None) -> None:
        self._wrapped = wrapped
        self._options = dict(options or {})

    def check(self, manifest: Manifest) -> None:
        """Raise UsageError for a bundle that would not be answered as it was proven."""
        check = _check_wrapped if self._wrapped else _check_own_backend
        check(manifest)
        row = TARGETS[manifest.target]
        if _PRECISION in self._options and not row.chooses_precision:
            raise UsageError(
                f"--{_PRECISION} {self._options[_PRECISION]}: {row.title} runs a model as it was "
                "exported, and would not load it so on the server: leave it out"
            )

    def check_repository(self, repository: Path) -> None:
        """Raise UsageError for a repository of another server."""
        if (repository / OVMS_CONFIG).exists():
            raise UsageError(
                f"{repository}: has a {OVMS_CONFIG}, as OpenVINO Model Server reads it: choose "
                "another -o"
            )

    def backend(self, manifest: Manifest) -> str:
        """What runs the model, in words."""
        return "EngineRunner" if self._wrapped else f"its {TARGETS[manifest.target].title} backend"

    def manifest_place(self, version: Path) -> Path:
        """Where a version's manifest is."""
        return version / WRAPPED_BUNDLE if self._wrapped else version

    def shared(self, name: str, manifest: Manifest) -> str:
        """What every version of a model has in common, the hash left out."""
        return _config(name, manifest, "", self._wrapped, {})

    def model_files(self, name: str, source: Source) -> dict[str, str]:
        """The files of the model's folder, which its versions share."""
        text = _config(name, source.manifest, source.sha256, self._wrapped, self._options)
        labels = _labels(source)
        return (
            {TRITON_CONFIG: text} if labels is None else {TRITON_CONFIG: text, LABELS_FILE: labels}
        )

    def changed_files(self, model: Path, source: Source) -> dict[str, str]:
        """Those that a new version changes: the hash in config.pbtxt, and nothing else of it.

        Raises:
            UsageError: engine options are given, or the config tells no hash, or the labels are
                others.
        """
        if self._options:
            raise UsageError(
                f"{model / TRITON_CONFIG}: has the options of the engine, as parameters: change "
                "them there"
            )
        labels = _text(model / LABELS_FILE)
        if labels != _labels(source):
            raise UsageError(
                f"{model / LABELS_FILE}: has other labels, and versions share them: give the model "
                "another --name"
            )
        config = _text(model / TRITON_CONFIG) or ""
        changed = with_manifest(config, source.sha256)
        if changed is None:
            raise UsageError(
                f"{model / TRITON_CONFIG}: has no parameter {MANIFEST_PARAMETER} with a hash: put "
                "it back, or give the model another --name"
            )
        return {TRITON_CONFIG: changed}

    def missing_changes(self, model: Path, source: Source) -> dict[str, str]:
        """The config.pbtxt, where it tells the hash of another version than the newest."""
        config = _text(model / TRITON_CONFIG) or ""
        changed = with_manifest(config, source.sha256)
        return {} if changed in (None, config) else {TRITON_CONFIG: str(changed)}

    def repository_files(
        self, _repository: Path, _models: Sequence[tuple[str, Manifest]]
    ) -> dict[str, str]:
        """Those beside the models: none."""
        return {}

    def start(self, repository: Path) -> str:
        """The command that serves the repository."""
        return f"tritonserver --model-repository={shlex.quote(str(repository))}"

    def write_version(self, source: Source, folder: Path) -> None:
        """Fill a version's folder; raises BundleError where the bundle has changed."""
        if self._wrapped:
            _write_wrapped(source, folder)
        else:
            _write_engine(source, folder)


def _check_own_backend(manifest: Manifest) -> None:
    title = TARGETS[manifest.target].title
    if manifest.target in _WITHOUT_BACKEND:
        raise UsageError(f"Triton has no backend for {title}: --wrapped runs it with EngineRunner")
    if manifest.target == "tensorrt":
        _check_engines(manifest)
    elif manifest.target == "openvino":
        _check_openvino(manifest)
    batch = _batch(manifest)
    if batch.minimum > 1 and batch.minimum != batch.maximum:
        raise UsageError(
            f"its engine takes {batch}, and Triton would give it fewer: export it from a batch of "
            "1 on (--batch), or --wrapped fills batches up"
        )


def _check_wrapped(manifest: Manifest) -> None:
    if TARGETS[manifest.target].built_on_device and not manifest.engines:
        raise UsageError("it has no engine yet: effnet-edge build BUNDLE on the device first")


def _config(
    name: str, manifest: Manifest, sha256: str, wrapped: bool, options: Mapping[str, str]
) -> str:
    """The text of config.pbtxt: a function of nothing else, so that versions can be compared.

    Args:
        sha256: of the manifest.
        options: of `EngineRunner.load`, for a wrapped model.
    """
    batch, largest = _batch(manifest), 0
    if wrapped:
        largest = max(batch.maximum, _WRAPPED_IMAGES)
    elif batch.minimum != batch.maximum:
        largest = batch.maximum
    on_gpu = TARGETS[manifest.target].on_gpu and not wrapped
    return "".join(
        (
            _HEAD,
            f"name: {quoted(name)}\n",
            f"backend: {quoted('python' if wrapped else manifest.target)}\n",
            f"max_batch_size: {largest}\n",
            _input(manifest, [] if largest else [batch.maximum]),
            _output(manifest, [] if largest else [batch.maximum]),
            _batching(batch) if largest else "",
            f"instance_group [ {{ kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} count: 1 }} ]\n",
            _engine_files(manifest) if on_gpu else "",
            parameter(MANIFEST_PARAMETER, sha256),
            _padding() if largest and manifest.target == "openvino" and not wrapped else "",
            *(parameter(OPTION_PARAMETER + key, options[key]) for key in sorted(options)),
        )
    )


def _labels(source: Source) -> str | None:
    """A name a line, in the order of the output; None where there is no choice between them."""
    if source.bundle.labels is None or source.manifest.output.kind not in _CHOOSES:
        return None
    return "".join(f"{plain(label.name)}\n" for label in source.bundle.labels)


def _text(path: Path) -> str | None:
    """The text of a file; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no UTF-8 text: correct it") from error


def _write_wrapped(source: Source, folder: Path) -> None:
    (folder / MODEL_FILE).write_text(_WRAPPED_MODEL, encoding="utf-8")
    bundle = folder / WRAPPED_BUNDLE
    bundle.mkdir()
    for name in source.manifest.files:
        source.write(name, bundle / name)
    source.write_proof(bundle)


def _write_engine(source: Source, folder: Path) -> None:
    manifest = source.manifest
    if manifest.target == "tensorrt":
        for name, file in _engine_names(manifest).items():
            source.write(file, folder / name)
    elif manifest.target == "openvino":
        source.write_ir(folder)
    else:
        source.write(manifest.model, folder / "model.onnx")
    source.write_proof(folder)


def _check_engines(manifest: Manifest) -> None:
    _check_wrapped(manifest)
    if any(record.dla_core is not None for record in manifest.engines):
        raise UsageError("its engine runs on a DLA core: --wrapped runs it with EngineRunner")
    generations = [each for record in manifest.engines for each in record.compute_capability]
    if len(set(generations)) < len(generations):
        raise UsageError(
            "it has several engines for GPUs of one compute capability, and Triton cannot choose "
            "between them: --wrapped does, or deploy a bundle with one of them"
        )
    if len({record.batch for record in manifest.engines}) > 1:
        raise UsageError(
            "its engines take different batches: effnet-edge build them with one --batch, or "
            "--wrapped"
        )


def _check_openvino(manifest: Manifest) -> None:
    if manifest.precision == "fp32":
        raise UsageError(
            "Triton's OpenVINO backend cannot be told to keep FP32, and processors with BF16 "
            "would run it in that: --wrapped keeps it, or deploy one of --fp16, which leaves the "
            "choice to the device"
        )
    check_int8_batch(manifest, "--wrapped runs it with EngineRunner, or export it with --batch 1")


def _batch(manifest: Manifest) -> BatchRange:
    """What the engine takes that Triton would load; of a TensorRT bundle what was built."""
    engines = manifest.engines
    return engines[0].batch if manifest.target == "tensorrt" and engines else manifest.batch


def _input(manifest: Manifest, batch: list[int]) -> str:
    spec = manifest.input
    sides = [spec.height, spec.width]
    image = [*sides, spec.channels] if spec.layout == "NHWC" else [spec.channels, *sides]
    return (
        f"input [ {{ name: {quoted(spec.name)} data_type: {_TYPES[spec.dtype]} "
        f"dims: {numbers([*batch, *image])} }} ]\n"
    )


def _output(manifest: Manifest, batch: list[int]) -> str:
    output = manifest.output
    named = manifest.labels is not None and output.kind in _CHOOSES
    labels = f" label_filename: {quoted(LABELS_FILE)}" if named else ""
    return (
        f"output [ {{ name: {quoted(output.name)} data_type: TYPE_FP32 "
        f"dims: {numbers([*batch, output.classes])}{labels} }} ]\n"
    )


def _batching(batch: BatchRange) -> str:
    preferred = f" preferred_batch_size: {numbers([batch.optimum])}" if batch.optimum > 1 else ""
    return f"dynamic_batching {{{preferred} }}\n"


def _padding() -> str:
    """Without it the OpenVINO backend refuses every batch but the largest."""
    return parameter("ENABLE_BATCH_PADDING", "YES")


def _engine_names(manifest: Manifest) -> dict[str, str]:
    """What each engine's file is called in the repository, and in the bundle."""
    if len(manifest.engines) == 1:
        return {"model.plan": manifest.engines[0].file}
    return {
        f"model-{'-'.join(record.compute_capability)}.plan": record.file
        for record in manifest.engines
    }


def _engine_files(manifest: Manifest) -> str:
    """Which engine is for GPUs of which compute capability, where there are several."""
    if len(manifest.engines) == 1:
        return ""
    pairs = zip(manifest.engines, _engine_names(manifest), strict=True)
    return "".join(
        f"cc_model_filenames [ {{ key: {quoted(generation)} value: {quoted(name)} }} ]\n"
        for record, name in pairs
        for generation in record.compute_capability
    )
