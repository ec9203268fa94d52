"""Is the candidate still the same model as the reference? Measures, accuracy drop, and gates."""

from effnet_edge.parity.comparison import Classifier, Comparison, compare
from effnet_edge.parity.measures.accuracy import AccuracyDrop, Drop
from effnet_edge.parity.measures.gates import EXACT, EXACT_GATES, Gate, Verdict
from effnet_edge.parity.measures.result import ParityResult

__all__ = [
    "EXACT",
    "EXACT_GATES",
    "AccuracyDrop",
    "Classifier",
    "Comparison",
    "Drop",
    "Gate",
    "ParityResult",
    "Verdict",
    "compare",
]
