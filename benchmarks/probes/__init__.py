"""What short probes tell of long trainings: signals, scores, halving, vetoes."""
