"""What the owner's data raise while they are read, told as an error about the data, with what to do."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import USER_ERRORS, AutoInitError, DataError, described
from .machine import OUT_OF_MEMORY

_COLLATE = (
    "Rows of one batch must be tensors of the same shapes: make them so in the Dataset, or pass a DataLoader with a "
    "collate_fn, which may pad them (torch.nn.utils.rnn.pad_sequence; transformers.DataCollatorWithPadding(tokenizer))."
)
_ITERATED = "The error comes from the data's own code: run next(iter({name})) to see where."
_GIVEN = "Pass dense tensors, numpy arrays or pandas frames of numbers, or an iterable of batches of them."


@contextlib.contextmanager
def reading(data: Any, name: str) -> Iterator[None]:
    """Turns what is raised inside into a `DataError` that quotes it.

    Args:
        data: that are read.
        name: of the argument, for the message.
    """
    try:
        yield
    except (AutoInitError, *OUT_OF_MEMORY):
        raise
    except USER_ERRORS as error:
        raise DataError(f"{name} could not be read: {_said(error)}. {_remedy(data, name, error)}") from error


def _said(error: BaseException) -> str:
    """Returns what an exception says; of one from a loader's worker process, what it was there."""
    lines = str(error).strip().splitlines()
    worker = len(lines) > 1 and "DataLoader worker" in lines[0]
    return (lines[-1] if worker else described(error)).rstrip(".")


def _remedy(data: Any, name: str, error: BaseException) -> str:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any("collate" in text for text in (*files, str(error))):
        return _COLLATE
    given = isinstance(data, (torch.Tensor, tuple, dict))
    return _GIVEN if given else _ITERATED.format(name=name)
