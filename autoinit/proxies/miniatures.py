"""`smaller`: a proxy that makes itself, of the same architecture with fewer layers or narrower ones."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import nn

from ..errors import ArgumentError, ModelError
from ..seeds import check_seed
from ..task.checks import unwrap
from .configs import from_smaller_config, is_from_config
from .repeats import with_fewer_blocks

OWN_PROXY = "Make one yourself: the same class with fewer layers or narrower ones, select(model, data, proxy=small)."


def smaller(model: nn.Module, *, times: float = 4.0, seed: int = 0) -> nn.Module:
    """Returns a smaller model of the same architecture, on which short trainings cost less.

    It stands for the large one in `select(model, data, proxy=small)`; `proxy="auto"` makes it with this function. A
    model of transformers is made anew from its config: fewer layers and narrower ones, with heads as wide as they were,
    as many tokens and the same inputs, and its own code draws the weights. Of any other model the blocks that are
    repeated in an nn.ModuleList or nn.Sequential are copied without most of them: the first few of each run stay, with
    the weights that they have. What is tied or frozen is so in the proxy. The model and all random states stay as they
    are.

    Args:
        model: The proxy stands for this module. Wrappers of torch.compile and of data parallelism are looked through.
            It may be on the meta device where it comes from a config; the proxy is on the CPU then, else where the
            model is.
        times: The proxy has so many times fewer blocks of each run, or, from a config, parameters beside those of the
            vocabulary, as nearly as whole layers and heads allow. Two blocks stay at the least, however many times.
        seed: This whole number decides the weights that are drawn anew.

    Returns:
        The small model, a torch.nn.Module to train or to give to `select`. Of trained weights nothing is in one from a
        config: what wins there is said of weights that were never trained. A deep net without skips wants a proxy that
        is as deep and narrower, which only its owner can make: few of its layers hide what ails many.

    Raises:
        ModelError: There is nothing to make smaller, or what comes of it is as large as the model. The message says
            why, and how to give a proxy of one's own.
        ArgumentError: The number of times is not above 1, or the seed is none.

    Example:
        >>> import autoinit, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(64, 32), *[nn.Linear(32, 32) for _ in range(16)], nn.Linear(32, 10))
        >>> small = autoinit.smaller(model, times=4)
        >>> len(model), len(small)
        (18, 6)
        >>> torch.equal(model[0].weight, small[0].weight)
        True
    """
    _check_times(times)
    check_seed(seed)
    inner = unwrap(model)
    refusals, size = [], _size(inner)
    if is_from_config(inner):
        try:
            return _checked(from_smaller_config(inner, times, seed), size)
        except ModelError as problem:
            refusals.append(f"from its config: {problem}")
    try:
        return _checked(with_fewer_blocks(inner, times), size)
    except ModelError as problem:
        refusals.append(f"from its blocks: {problem}")
    raise ModelError(f"No smaller {type(inner).__name__} can be made of this one ({'; '.join(refusals)}). {OWN_PROXY}")


def proxy_for(model: nn.Module, proxy: nn.Module | str | None, seed: int) -> nn.Module | None:
    """Returns the proxy that stands for a model: the given one, or one that is made where it is "auto".

    Raises:
        ArgumentError: it is another text.
        ModelError: none can be made.
    """
    if not isinstance(proxy, str):
        return proxy
    if proxy != "auto":
        raise ArgumentError(f'proxy is {proxy!r}. Allowed: "auto", a smaller torch.nn.Module, or None.')
    return smaller(model, seed=seed)


def _check_times(times: Any) -> None:
    if isinstance(times, bool) or not isinstance(times, Real) or not 1 < float(times) < math.inf:
        raise ArgumentError(f"times must be a number above 1, by which the size is divided. Got {times!r}.")


def _checked(made: nn.Module, size: int) -> nn.Module:
    """Returns a model that is smaller than another.

    Raises:
        ModelError: it is not.
    """
    if _size(made) >= size:
        raise ModelError(f"the smallest one has {_size(made):,} parameters, and the model {size:,}")
    return made


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
