"""On paper: a curve to its score, screening, halving, the gate, and what a budget pays for; no torch."""
