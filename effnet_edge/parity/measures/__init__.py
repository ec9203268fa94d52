"""How far a candidate is from its reference: formulas, accuracy drop, statistics, gates."""
