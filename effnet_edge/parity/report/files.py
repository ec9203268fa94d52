"""The report as files: HTML, and JSON and JUnit XML beside it for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from effnet_edge import nonfinite
from effnet_edge.errors import UsageError
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.parity.measures.gates import tell_verdict
from effnet_edge.parity.measures.table import measures_of
from effnet_edge.parity.report.destination import GENERATOR, ReportFiles, write_text
from effnet_edge.parity.report.document import SCHEMA_VERSION, changes
from effnet_edge.parity.report.page import render_html
from effnet_edge.text import plain_lines

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from effnet_edge.parity.report.document import Document


def write_report(
    document: Document, html: str | os.PathLike[str], changed: Sequence[str] = ()
) -> list[Path]:
    """Write FILE.html, FILE.parity.json and FILE.junit.xml; each appears whole or not at all.

    Args:
        changed: lines about an earlier report; see `changes`.

    Raises:
        BackendError: the libraries of the extra [report] are not installed.
        UsageError: see `ReportFiles`: one of them is no older report, or in no place for one.
        WriteError: the disk refuses.
    """
    files = ReportFiles.of(html)
    files.check()
    texts = {
        files.html: render_html(document, changed),
        files.json: nonfinite.dumps(document, indent=1),
        files.junit: junit_xml(document),
    }
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def read_document(path: str | os.PathLike[str]) -> Document:
    """A report's JSON.

    Raises:
        UsageError: there is no such file, or it is no report.
    """
    file = Path(path)
    try:
        document = json.loads(file.read_bytes())
        known = document["schema"] == SCHEMA_VERSION and bool(document["candidates"])
        if known:
            _compare_with_itself(document)
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever an access to a wrong value raises
        raise UsageError(f"{str(file)!r} is no parity report in JSON") from error
    if not known:
        raise UsageError(f"{str(file)!r} is a parity report of another version")
    return dict(document)


def _compare_with_itself(document: Document) -> None:
    """Touch all that a comparison will, whatever the other report's kind of output is."""
    for kind in OUTPUT_NAMES:
        changes(document, {**document, "output": kind})


def junit_xml(document: Document) -> str:
    """A test suite with a test case a candidate, as CI servers read it.

    A candidate that no limit was set for is a skipped one.
    """
    candidates = document["candidates"]
    verdicts = [each["passed"] for each in candidates]
    suite = ElementTree.Element(
        "testsuite",
        name=GENERATOR,
        tests=str(len(candidates)),
        failures=str(verdicts.count(False)),
        skipped=str(verdicts.count(None)),
    )
    for each in candidates:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"parity with {document['reference']}",
            name=f"{each['candidate']} ({each['candidate_precision']})",
        )
        if each["passed"] is None:
            ElementTree.SubElement(case, "skipped", message=tell_verdict(None))
        elif not each["passed"]:
            faults = [f"{fault['node']}: {fault['problem']}" for fault in each["faults"] or []]
            failure = ElementTree.SubElement(case, "failure", message="; ".join(each["failures"]))
            failure.text = "\n".join([*each["failures"], *faults])
        output = ElementTree.SubElement(case, "system-out")
        output.text = "\n".join(_told_measures(document, each))
    return plain_lines(ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def _told_measures(document: Document, candidate: Document) -> list[str]:
    held = [check["text"] for check in candidate["checks"] if check["passed"]]
    output = document["output"]
    told = document["as_probabilities"]
    return held + [
        f"{measure.title(output, as_probabilities=told)}: {measure.tell_result(candidate)}"
        for measure in measures_of(output)
    ]
