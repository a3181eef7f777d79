"""Plan → weights: each parameter drawn from random streams of its own, where it lies."""
