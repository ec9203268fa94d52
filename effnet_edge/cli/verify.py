"""`effnet-edge verify`: whether a bundle is what was exported, file by file."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import common_options, console, print_json, settings
from effnet_edge.cli.signatures import trusted_key, trusted_option
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.signing import TrustedKey
    from effnet_edge.runtime import EngineRunner

SOUND = "as exported"
AGREES = "as the manifest says"
ANSWERS = "answers"
SIGNATURE = "signature"
NOT_CHECKED = "not checked: give --trusted KEY.pem"


@dataclass
class _Findings:
    """What was looked at, in order, and what was found: `SOUND`, or the fault."""

    rows: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def look(
        self, what: str, check: Callable[..., object], *given: object, sound: str = SOUND
    ) -> None:
        from effnet_edge.errors import EffnetEdgeError

        try:
            check(*given)
        except EffnetEdgeError as error:
            self.rows[what] = str(error)
            self.faults.append(str(error))
        else:
            self.rows[what] = sound


@click.command("verify", short_help="Check a bundle's files, and what its engine answers here.")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@trusted_option
@common_options
@click.pass_context
def command(context: click.Context, bundle: Path, trusted: Path | None) -> None:
    """Check that BUNDLE is what was exported, and computes here what it did there.

    Its manifest is held to the schema, each file to its size and SHA-256, and the engine, where its
    library is installed, to the input and output that the manifest tells and to the original's
    answers to pictures that are a formula. The exit code is 1 where anything is wrong. Who made the
    bundle only --trusted tells: then nothing of it is parsed unless that key signed its manifest.
    """
    findings = _Findings()
    _look_at_all(bundle, trusted_key(trusted), findings)
    if settings().json:
        print_json({"path": str(bundle), "sound": not findings.faults, "checks": findings.rows})
    else:
        _print(bundle, findings)
    context.exit(1 if findings.faults else 0)


def _look_at_all(folder: Path, trusted: TrustedKey | None, findings: _Findings) -> None:
    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.content import check_recorded
    from effnet_edge.bundle.manifest import MANIFEST_FILE
    from effnet_edge.bundle.reading import read_labels, read_manifest, refuse_foreign_files

    if trusted is not None:
        _look_at_signature(folder, trusted, findings)
    if findings.faults:
        return
    findings.look(MANIFEST_FILE, read_manifest, folder, trusted, sound="valid")
    if findings.faults:
        return
    manifest = read_manifest(folder, trusted)
    if trusted is None:
        _look_for_signature(folder, findings)
    findings.look("folder", refuse_foreign_files, folder, manifest, sound="nothing else")
    whole = partial(check_recorded, hashed=True)
    for name, record in manifest.files.items():
        findings.look(name, whole, folder / name, record)
    if findings.faults:
        return
    findings.look("labels", read_labels, folder, manifest, sound="one for each class")
    if not findings.faults:
        _look_at_engine(Bundle.load(folder, trusted=trusted), findings)


def _look_at_signature(folder: Path, trusted: TrustedKey, findings: _Findings) -> None:
    from effnet_edge.bundle.reading import read_manifest_bytes

    def check() -> None:
        trusted.check(folder, read_manifest_bytes(folder))

    findings.look(SIGNATURE, check, sound=f"of {trusted.name}, {trusted.fingerprint}")


def _look_for_signature(folder: Path, findings: _Findings) -> None:
    from effnet_edge.bundle.signing import is_signed, read_signature

    if is_signed(folder):
        findings.look(SIGNATURE, read_signature, folder, sound=NOT_CHECKED)
    else:
        findings.rows[SIGNATURE] = "none"


def _look_at_engine(bundle: Bundle, findings: _Findings) -> None:
    from effnet_edge.runtime import EngineRunner

    missing = _why_not_tried(bundle)
    if missing is not None:
        findings.rows["engine"] = f"not tried: {missing}"
        return
    loaded: list[EngineRunner] = []
    findings.look("engine", lambda: loaded.append(EngineRunner.of(bundle)), sound=AGREES)
    for runner in loaded:
        with runner:
            _look_at_answers(bundle, runner, findings)


def _look_at_answers(bundle: Bundle, runner: EngineRunner, findings: _Findings) -> None:
    from effnet_edge.runtime.known_answers import check_engine

    def check() -> None:
        found = check_engine(bundle, runner.manifest, runner.infer)
        if found is not None:
            told.append(str(found))

    told: list[str] = []
    findings.look(ANSWERS, check)
    if not findings.faults:
        findings.rows[ANSWERS] = told[0] if told else "not compared: the bundle tells none"


def _why_not_tried(bundle: Bundle) -> str | None:
    from effnet_edge.targets import TARGETS

    target = TARGETS[bundle.manifest.target]
    if bundle.manifest.is_open:
        return "effnet-edge build makes it on the device, of the fastest graph"
    if not target.built_on_device:
        found = importlib.util.find_spec(target.library)
        return None if found else f"{target.title} is not installed"
    from effnet_edge.runtime.tensorrt.fitting import runs_here

    if any(runs_here(each) for each in bundle.manifest.engines):
        return None
    return "this machine can run no engine of it"


def _print(bundle: Path, findings: _Findings) -> None:
    from rich.table import Table

    verdict = "damaged" if findings.faults else "sound"
    if findings.faults == [findings.rows.get(ANSWERS)]:
        verdict = "answers otherwise here"
    table = Table(title=plain(f"{bundle}: {verdict}"), title_justify="left", show_header=False)
    for what, found in findings.rows.items():
        table.add_row(plain(what), plain(found))
    console().print(table)
