"""What a node does with a bundle: build its engine, compare it with recorded answers, time it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.bench import bench_models
from effnet_edge.bundle import Bundle
from effnet_edge.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from effnet_edge.bundle.signing import TrustedKey
from effnet_edge.errors import BundleError, EffnetEdgeError
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.question import LABELS, PIXELS, REFERENCE, SentPictures
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, BatchSizeCheck
from effnet_edge.parity.measures.gate_file import gate_of
from effnet_edge.parity.measures.gates import unfit_labels
from effnet_edge.parity.models.answer_file import AnswerFile
from effnet_edge.parity.models.recorded import RecordedClassifier
from effnet_edge.parity.report.document import Circumstances, Examined, build_document
from effnet_edge.parity.study import study
from effnet_edge.runtime import EngineRunner
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.parity.report.document import Document

BUNDLE, ANSWERS, TRUSTED = "bundle", "answers", "trusted"
KEY_FILE = "key.pem"
SIZE_PICTURES = 16


def check(order: Package) -> Package:
    """Do the job: nothing of it stays on this machine.

    Args:
        order: as `effnet_edge.fleet.orders.check_order` makes it.

    Returns:
        A package with the manifest as it is after the build, the document of a parity report, and
        the times.

    Raises:
        BundleError: a file of the bundle is not what its manifest says, or the manifest is another.
        BackendError, UsageError: the engine cannot be built, loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="effnet-edge-fleet-") as room:
        try:
            return _checked(order, Path(room))
        except EffnetEdgeError as error:
            # The folder is gone when a person reads this.
            raise type(error)(str(error).replace(f"{room}/", "")) from error


def node_name() -> str:
    """What the node calls itself."""
    return platform.node() or "unnamed"


def _checked(order: Package, room: Path) -> Package:
    bench = order.document["bench"]
    bundle = _placed(order, room / order.document["bundle"])
    started = time.perf_counter()
    with EngineRunner.of(bundle, rebuild=True) as runner:
        built = time.perf_counter() - started
        parity = _compare(order, runner, room)
        manifest = runner.manifest
    timing = bench_models([bundle.path], batch=bench["batch"], runs=bench["runs"])[0]
    return Package(
        {
            "manifest": json.loads(manifest.to_json()),
            "parity": parity,
            "timing": nonfinite.encode(asdict(replace(timing, seconds=()))),
            "seconds_to_load": built,
        }
    )


def _placed(order: Package, place: Path) -> Bundle:
    """The bundle that came, on disk and checked against the hashes of its manifest."""
    files = order.folder(BUNDLE)
    manifest = files.get(MANIFEST_FILE, b"")
    if hashlib.sha256(manifest).hexdigest() != order.document["manifest_sha256"]:
        raise BundleError(
            f"{place.name}/{MANIFEST_FILE}: is not the one that was sent (SHA-256 differs): "
            "send the bundle again"
        )
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    key = order.folder(TRUSTED).get(KEY_FILE)
    bundle = Bundle.load(place, trusted=None if key is None else TrustedKey(key))
    if TARGETS[bundle.manifest.target].built_on_device:
        # The engine changes the manifest. What was signed has been checked, and the copy is ours.
        (place / SIGNATURE_FILE).unlink(missing_ok=True)
    return bundle


def _compare(order: Package, runner: EngineRunner, room: Path) -> Document:
    asked, files = order.document, order.folder(ANSWERS)
    path = room / REFERENCE
    path.write_bytes(files[REFERENCE])
    answers = AnswerFile(path)
    reference = RecordedClassifier(answers, None)
    pixels, labels = _array(files[PIXELS]), files.get(LABELS)
    pictures = SentPictures(
        pixels, None if labels is None else _array(labels), asked["image_source"], asked["skipped"]
    )
    manifest = runner.manifest
    output, as_probabilities = manifest.output.kind, answers.answerer.as_probabilities
    studied = study(
        reference,
        [runner],
        pictures,
        manifest.preprocessing,
        batch_size=asked["batch_size"],
        output=output,
        as_probabilities=as_probabilities,
    )[0]
    few = pixels[:SIZE_PICTURES]
    gate = gate_of(asked["limits"])
    sizes = BatchSizeCheck(
        few, reference.infer(few), output, as_probabilities=as_probabilities
    ).run(
        runner,
        sorted({*manifest.batch.sizes_to_check, asked["batch_size"]}),
        OWN_ANSWERS_DB[manifest.precision],
        limits=gate,
    )
    wrong_sizes = [failure for each in sizes for failure in each.failures]
    verdict = gate.judge(studied.result)
    verdict = verdict.with_faults([*unfit_labels(gate, studied.result), *wrong_sizes])
    examined = Examined(studied, verdict, batch_sizes=sizes, calibration=manifest.calibration)
    names = [label.name for label in runner.labels or ()]
    circumstances = Circumstances("effnet-edge fleet", gate.describe(output), names)
    return build_document([examined], circumstances)


def _array(content: bytes) -> Any:
    return np.load(io.BytesIO(content), allow_pickle=False)
