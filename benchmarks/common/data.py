"""Real data for the benchmarks, all of it shipped inside installed packages; the studies have the same."""

from __future__ import annotations

from studies.real_data import (
    VOCABULARY,
    Split,
    breast_cancer,
    diabetes,
    digits_to_themselves,
    mnist_images,
    mnist_rows,
    mnist_sequences,
    photo,
    prose,
)

__all__ = [
    "VOCABULARY",
    "Split",
    "breast_cancer",
    "diabetes",
    "digits_to_themselves",
    "mnist_images",
    "mnist_rows",
    "mnist_sequences",
    "photo",
    "prose",
]
