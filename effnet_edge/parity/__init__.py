"""Is the candidate still the same model as the reference? Measures, accuracy drop, and gates."""

from effnet_edge.parity.comparison import Classifier, Comparison, ParityResult, compare
from effnet_edge.parity.measures.accuracy import AccuracyDrop, Drop
from effnet_edge.parity.measures.gates import EXACT, EXACT_GATES, Gate

__all__ = [
    "EXACT",
    "EXACT_GATES",
    "AccuracyDrop",
    "Classifier",
    "Comparison",
    "Drop",
    "Gate",
    "ParityResult",
    "compare",
]
