"""Real data for the benchmarks, all of it shipped inside installed packages; the studies have the same."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from studies.real_data import (
    VOCABULARY,
    Split,
    breast_cancer,
    diabetes,
    digits_rows,
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
    "digits_rows",
    "digits_to_themselves",
    "japanese_vowels",
    "mnist_images",
    "mnist_rows",
    "mnist_sequences",
    "photo",
    "prose",
]


@functools.cache
def japanese_vowels() -> tuple[Tensor, Tensor]:
    """Returns 640 utterances of nine men as [640, 12, 29], zeros behind the shorter ones, and who spoke, from 0.

    Kudo, Toyama and Shimbo 1999, Pattern Recognition Letters 20; of the UCI archive, in the package aeon.
    """
    found = importlib.util.find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("These series are in the package aeon: pip install --no-deps aeon.")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "JapaneseVowels"
    lines = [line for part in ("TRAIN", "TEST") for line in series_lines(folder / f"JapaneseVowels_{part}.ts")]
    series = [torch.tensor([[float(value) for value in one.split(",")] for one in line[:-1]]) for line in lines]
    x = pad_sequence([one.T for one in series], batch_first=True).transpose(1, 2).contiguous()
    return x, torch.tensor([int(line[-1]) - 1 for line in lines])


def series_lines(path: Path) -> list[list[str]]:
    """Returns the series of a `.ts` file: the text of each dimension, and the class at the end."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(place for place, line in enumerate(lines) if line.strip().lower() == "@data")
    return [line.strip().split(":") for line in lines[start + 1 :] if line.strip()]
