"""The report of a comparison: one document, written as JSON, HTML and JUnit XML."""

from effnet_edge.parity.report.document import build_document, changes
from effnet_edge.parity.report.files import write_report

__all__ = ["build_document", "changes", "write_report"]
