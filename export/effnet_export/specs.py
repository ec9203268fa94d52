"""How the models of a comparison are given on the command line, and what kind each one is."""

from __future__ import annotations

from pathlib import Path

from effnet_edge.bundle.manifest import MANIFEST_FILE
from effnet_edge.errors import UsageError
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.models.answer_file import ANSWERS
from effnet_edge.serving.address import is_address
from effnet_export.model_files import FILE_ENDINGS, kind_of

TORCH = "torch"
DEFAULT_VARIANT = "b0"
"""Where no model, bundle or option names one."""
CHECKPOINTS = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".index")


def is_network(spec: str) -> bool:
    """Whether it is a PyTorch network: "torch", a checkpoint, or a variant."""
    return spec == TORCH or checkpoint_of(spec) is not None or is_variant(spec)


def is_served(spec: str) -> bool:
    """Whether it is the address of a model behind a server."""
    return is_address(spec)


def is_variant(spec: str) -> bool:
    """Whether it is a variant's name, and no file or folder of that name is there."""
    return spec.lower() in VARIANTS and not _is_there(Path(spec))


def is_model_file(spec: str) -> bool:
    """Whether it is an ONNX file, an OpenVINO IR or a LiteRT file, by its ending."""
    if is_served(spec) or is_network(spec):
        return False
    return kind_of(Path(spec)) is not None and not _is_bundle_folder(spec)


def is_recorded(spec: str) -> bool:
    """Whether it is a file of a model's answers, by its ending."""
    return spec.endswith(ANSWERS)


def is_bundle(spec: str) -> bool:
    """Whether it is to be a bundle's folder.

    Raises:
        UsageError: it is a file of a kind that no comparison reads.
    """
    if is_served(spec) or is_network(spec) or is_model_file(spec) or is_recorded(spec):
        return False
    if _is_there(Path(spec)) and not Path(spec).is_dir():
        raise UsageError(
            f"{spec} is no model that can be compared: give a bundle's folder, a model file "
            f"({', '.join(FILE_ENDINGS)}), a checkpoint ({', '.join(CHECKPOINTS)}), a variant, "
            f"'{TORCH}', or a served model's address (http://HOST:PORT/MODEL)"
        )
    return True


def checkpoint_of(spec: str) -> str | None:
    """The file of a network; None for the one that --weights names."""
    return spec if spec.endswith(CHECKPOINTS) and not is_served(spec) else None


def named_variant(specs: tuple[str, ...], option: str | None) -> str | None:
    """The variant that the models and --variant name; None where none does.

    Raises:
        UsageError: they name several.
    """
    named = [spec.lower() for spec in specs if is_variant(spec)]
    if option is not None:
        named.append(option.lower())
    if len(set(named)) > 1:
        raise UsageError(
            f"{' and '.join(dict.fromkeys(named))}: name one variant, or give the others as bundles"
        )
    return named[0] if named else None


def _is_bundle_folder(spec: str) -> bool:
    return _is_there(Path(spec) / MANIFEST_FILE)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False
