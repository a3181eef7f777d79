"""The methods that are compared side by side: each sets the weights of a freshly drawn model in place.

All of them are given the same: the model as its owner draws it, the task with its optimizer, and a seed; all of them
look at training rows only, in the batches that `select` is given. What each costs is counted in training steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...common.tasks import BenchTask, listed
from ..equal_cost import SHARES
from . import gradinit_peer, lsuv_peer, metainit, one_size, ours, random_search
from .cost import FREE, Start

Prepare = Callable[[nn.Module, BenchTask, int], Start]

EVERYWHERE = tuple(SHARES)
SEARCH_BUDGET = "middle"
"""Of the random search."""
RECOMMEND = "recommend"
"""The key of the best that is ours and needs no probe."""
QUICK = "select_quick"
"""The key of our shortest search, which every allowance pays for."""


@dataclass(frozen=True)
class Method:
    """One way to initialize.

    Attributes:
        title: in tables.
        words: what exactly is done.
        prepare: sets the weights of a model in place, from torch's global random state and a seed.
        places: the allowances that it is compared under; a search under none that is smaller than its own budget.
        budget: of `select`; empty for all others.
        chooses: whether it looks at the task before it takes a recipe, and may leave the owner's weights.
    """

    title: str
    words: str
    prepare: Prepare
    places: tuple[str, ...] = EVERYWHERE
    budget: str = ""
    chooses: bool = False


def _default(model: nn.Module, task: BenchTask, seed: int) -> Start:
    return FREE


def _from(budget: str) -> tuple[str, ...]:
    return EVERYWHERE[EVERYWHERE.index(budget) :]


def _select(budget: str) -> Method:
    words = f"`autoinit.select` with the {budget} budget in steps, at the rate that is trained with"
    prepare = functools.partial(ours.selected, budget=budget)
    return Method(f"select, {budget}", words, prepare, _from(budget), budget, chooses=True)


def _recipe(name: str) -> Method:
    prepare = functools.partial(ours.single, name=name)
    return Method(f"our {name}", f"`autoinit.apply_(model, {name!r}, data)`, no search", prepare)


_HALF = "of every parameter with two axes or more, biases zero"

METHODS: dict[str, Method] = {
    "default": Method("default", "the owner's own draws, nothing done", _default),
    "he": Method("He", f"`kaiming_normal_` {_HALF}", one_size.he),
    "xavier": Method("Xavier", f"`xavier_uniform_` {_HALF}", one_size.xavier),
    "orthogonal": Method("orthogonal", f"`orthogonal_` {_HALF}", one_size.orthogonal),
    "lsuv_package": Method("pip lsuv", "`lsuv_with_singlebatch` as it comes, on one batch", lsuv_peer.prepare),
    "gradinit_package": Method(
        "pip gradinit",
        f"as its README says, {gradinit_peer.ITERATIONS} batches, Adam at {gradinit_peer.LR:g}, the paper's bound "
        "on the gradient; with attention that can be differentiated twice, without which it raises",
        gradinit_peer.prepare,
    ),
    "metainit": Method(
        "MetaInit",
        f"from the paper, {metainit.ITERATIONS} iterations (the paper: 500), its rate {metainit.LR:g} and momentum "
        f"{metainit.MOMENTUM:g}, on the task's batches",
        metainit.prepare,
    ),
    # The best three of the catalogue's table by the median over its tasks.
    "recipe_lsuv_centred": _recipe("lsuv_centred"),
    "recipe_edge_of_chaos": _recipe("edge_of_chaos"),
    "recipe_lsuv": _recipe("lsuv"),
    RECOMMEND: Method(
        "our recommend, family unseen",
        "`autoinit.apply_(model, autoinit.recommend(model, data, optimizer=…).best, data)`, or nothing where it "
        "abstains; no probe. The recommender is fitted to the shipped knowledge without the task's own kind of "
        "architecture; the seconds of fitting it are in the first row of each kind, and no steps",
        ours.recommended,
        chooses=True,
    ),
    QUICK: Method(
        "select, quick",
        f"`autoinit.select` with {ours.QUICK_STEPS} steps, about the least that it searches with, in every allowance",
        ours.quickly_selected,
        chooses=True,
    ),
    "random_search": Method(
        "random search",
        f"random points of `select`'s space, each probed for {random_search.PROBE_STEPS} steps with the library's "
        f"probe and score, the best one taken; no halving, no gate; the {SEARCH_BUDGET} budget",
        functools.partial(random_search.prepare, budget=SEARCH_BUDGET),
        _from(SEARCH_BUDGET),
    ),
    **{f"select_{budget}": _select(budget) for budget in SHARES},
}
"""All methods, the default first."""


def chosen(names: str) -> list[str]:
    """Returns the keys of a comma-separated list of methods; "all" names all.

    Raises:
        SystemExit: for a name that is not in the table.
    """
    return listed(names, METHODS, "methods")
