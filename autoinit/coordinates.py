"""μP's coordinate check: how far a few steps move each layer's outputs, at several widths.

Yang et al. 2022, "Tensor Programs V", arXiv:2203.03466, appendix D.1 and figure 5.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .apply import apply_
from .errors import ArgumentError, OptimizerError
from .graph import Graph
from .jsonfile import finite
from .plans.rates import family_of
from .plans.width import tied_heads, width_of
from .recipes.catalogue import as_recipe, named
from .recipes.names import title
from .recipes.recipe import Recipe
from .screen import chart, markup
from .screen.columns import Column, table, wrapped
from .task.batches import Batch
from .task.products import watch_products
from .task.snapshot import preserved_random
from .task.task import Task, example_task
from .text import few, number
from .tracing.tracing import trace_task

Trend = Literal["flat", "growing", "vanishing"]

FLAT = 0.25
"""Largest exponent of the width that counts as none. In the limit of large widths every exponent of a network's
coordinates is a multiple of ½ (Yang & Hu 2021, arXiv:2011.14522), so this is nearer to 0 than to any other."""

WIDTHS = (64, 128, 256, 512, 1024)
MUP = dataclasses.replace(named("mup"), head="zero")
"""μP with a head that starts at zero, as its authors advise (appendix D.2). The first outputs of a random head shrink
like width^(−½); while they do, narrow networks take other steps than wide ones, and the check shows that instead."""
RATES: dict[str, float] = {"adam": 3e-3, "sgd": 0.1}
"""Learning rates at the smallest width: of size, so that the steps go beyond the classes' mean."""
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


_LINES = 5
"""Weights that the chart of a notebook shows; its table has all."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The outputs of one weight's product at each width.

    Attributes:
        name: of the weight.
        role: what it is for.
        starts: mean |output| before the first step, per width.
        changes: mean |output − output before the first step| after the last one, per width.
        start_slope: exponent of the width in `starts`, fitted on logarithms.
        slope: exponent of the width in `changes`.
    """

    name: str
    role: str
    starts: tuple[float, ...]
    changes: tuple[float, ...]
    start_slope: float
    slope: float

    @property
    def verdict(self) -> Trend:
        """Whether a wider network moves its outputs as far as a narrow one, and does not start with larger ones.

        A start that shrinks with the width is no fault: μP's head starts at width^(−½).
        """
        if self.slope > FLAT or self.start_slope > FLAT:
            return "growing"
        return "vanishing" if self.slope < -FLAT else "flat"


@dataclass(frozen=True, slots=True, repr=False)
class CoordinateCheck:
    """How the outputs of each layer follow the width, before and after a few steps.

    `autoinit.coordinate_check` returns it. Print it for a line of each layer: how far its outputs moved at each width,
    the exponent of the width in that, and the verdict, flat, growing or vanishing. `flat` tells whether all are flat,
    so that one learning rate serves all widths, which a test of your own may assert.

    Attributes:
        recipe: the recipe that each model was initialized with.
        optimizer: the optimizer's name.
        lr: learning rate at the smallest width.
        steps: number of training steps.
        widths: the widths, the smallest first.
        seeds: seeds that the numbers are means over.
        layers: what was measured of each weight, in the order of the model.
        unseen: names of the weights whose products could not be watched.
    """

    recipe: Recipe
    optimizer: str
    lr: float
    steps: int
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    layers: tuple[Coordinates, ...]
    unseen: tuple[str, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether one learning rate serves all widths: every layer is flat."""
        return all(layer.verdict == "flat" for layer in self.layers)

    def to_json(self) -> str:
        """Returns the check as JSON; what is not finite is null."""
        layers = [{**dataclasses.asdict(layer), "verdict": layer.verdict} for layer in self.layers]
        data = {**dataclasses.asdict(self), "layers": layers, "recipe": self.recipe.key, "flat": self.flat}
        return json.dumps(finite(data), ensure_ascii=False, indent=2)

    def __str__(self) -> str:
        return _render(self)

    def __repr__(self) -> str:
        return f"<CoordinateCheck: {_meaning(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        return _page(self)


def coordinate_check(
    make_model: Callable[[int], nn.Module],
    data: Any,
    *,
    recipe: str | Recipe = MUP,
    widths: Sequence[int] = WIDTHS,
    steps: int = 3,
    lr: float | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    loss: Callable[[Any, Any], Tensor] | None = None,
    optimizer: str | type[torch.optim.Optimizer] = "adam",
) -> CoordinateCheck:
    """Returns how far a few training steps move each layer's outputs at several widths.

    Under μP these changes depend on the width in no layer, so that a learning rate that was tuned at one width serves
    all. Under one learning rate for all parameters they do: with Adam, hidden layers' and the head's grow like the
    width; with SGD, the head's grow like the width, hidden ones' like its root, and the first layer's shrink. So this
    tells whether a model of yours follows μP before a long training relies on it.

    For each width and seed a model is made, initialized and trained for a few steps, which takes seconds for small
    networks. The models are its own, and the global random state is left as it was. Narrow networks and one seed are
    noisy: take widths from 64 on and several seeds.

    Args:
        make_model: This callable takes a width, a whole number, and returns a new model of it. All have parameters of
            the same names and differ in width alone.
        data: The models are trained on this: batches, one batch, a Dataset, or (X, y) with X of shape (rows, …) and y
            of shape (rows,) or (rows, …). `steps` batches of it are used.
        recipe: Each model is initialized with this, a name or a `Recipe`. Where it has μP, the base width becomes that
            of the smallest model. The default is `MUP`, which says why its head starts at zero.
        widths: Models of these widths are compared, two different ones at least.
        steps: Each model is trained for so many steps, one at least.
        lr: This is the learning rate at the smallest width. None means one of `RATES`, by the optimizer.
        seeds: These seed the draws and the order of batches; the numbers are means over them.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        optimizer: The models are trained with this, a name in `OPTIMIZERS` or a class of torch.optim.

    Returns:
        A `CoordinateCheck`. Print it for a line of each layer with the exponent of the width; `flat` tells whether one
        learning rate serves all widths.

    Raises:
        ArgumentError: There are fewer than two widths, no step or no seed, the models have parameters of other names or
            one width, or the learning rate is no positive number.
        RecipeError: The recipe is unknown, or for other architectures.
        OptimizerError: The optimizer is unknown, or it is not known how its learning rate follows the width.
        DataError: A model cannot take the data.

    Reference:
        Yang et al. 2022, "Tensor Programs V", arXiv:2203.03466, appendix D.1 and figure 5.

    Example:
        >>> import autoinit
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> def make_model(width):
        ...     inner = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        ...     return nn.Sequential(*inner, nn.Linear(width, 10))
        >>> data, widths = (pixels / 16, labels), (64, 128, 256)
        >>> autoinit.coordinate_check(make_model, data, widths=widths).flat
        True
        >>> check = autoinit.coordinate_check(make_model, data, widths=widths, recipe="he_normal")
        >>> {layer.name: layer.verdict for layer in check.layers}
        {'0.weight': 'flat', '2.weight': 'growing', '4.weight': 'growing'}
    """
    if isinstance(make_model, nn.Module):
        raise ArgumentError("make_model is called with each width and returns a new model of it. Got a model.")
    sizes = _sizes(widths, steps, seeds)
    build = _builder(optimizer)
    rate = RATES[family_of(optimizer)] if lr is None else lr
    with preserved_random():
        first = _Sample(make_model, data, sizes[0], seeds[0], loss)
        chosen = as_recipe(recipe)
        if chosen.widths == "mup":
            chosen = dataclasses.replace(chosen, base_width=width_of(first.graph))
        measured: list[list[Moved]] = []
        reached: list[int] = []
        for width in sizes:
            measured.append([])
            for seed in seeds:
                sample = _Sample(make_model, first.batches, width, seed, loss)
                measured[-1].append(sample.moved(chosen, build, rate, steps))
                reached.append(width_of(sample.graph))
    _check_names(measured, sizes)
    if reached[-1] == reached[0]:
        raise ArgumentError(
            f"make_model({sizes[0]}) and make_model({sizes[-1]}) are of one width; the argument must set it."
        )
    seen = [name for name in first.graph if name in measured[0][0]]
    roles = {name: first.graph[name].role for name in seen}
    roles |= {name: "output" for name in measured[0][0] if name not in roles}
    layers = tuple(_coordinates(name, role, measured, sizes) for name, role in roles.items())
    unseen = tuple(layer.name for layer in first.graph.weights if layer.name not in seen)
    called = optimizer if isinstance(optimizer, str) else optimizer.__name__
    return CoordinateCheck(chosen, called, rate, steps, sizes, tuple(seeds), layers, unseen)


Moved = dict[str, tuple[float, float]]
"""Name of a weight → mean |output| at the start, mean |change| after the steps."""


class _Sample:
    """One model of one width and seed, and what it is trained on."""

    def __init__(
        self,
        make_model: Callable[[int], nn.Module],
        data: Any,
        width: int,
        seed: int,
        loss: Callable[[Any, Any], Tensor] | None,
    ) -> None:
        torch.manual_seed(seed)  # for what the owner draws and the recipe keeps
        self.task: Task = example_task(make_model(width), data, loss=loss, whole=True)
        self.batches: list[Batch] = list(self.task.train)
        self.graph: Graph = trace_task(self.task)
        self._seed, self._loss = seed, loss

    def moved(
        self,
        recipe: Recipe,
        build: type[torch.optim.Optimizer],
        lr: float,
        steps: int,
    ) -> Moved:
        """Returns the sizes of outputs and of their changes by a short training."""
        model = self.task.model.train()
        plan = apply_(model, recipe, self.batches, seed=self._seed, loss=self._loss)
        before = self._outputs()
        groups = plan.param_groups(model, lr, optimizer=build)
        optimizer = build(groups, lr=lr)  # type: ignore[call-arg]  # of every group its own; a few ask for one
        for batch in self.task.order(self._seed, steps):
            optimizer.zero_grad()
            self.task.backward(batch)
            optimizer.step()
        after = self._outputs()
        return {name: (_size(before[name]), _size(_differences(after[name], before[name]))) for name in before}

    def _outputs(self) -> dict[str, list[Tensor]]:
        """Returns the outputs of each weight's products on the first batch, by the weight's name."""
        found: dict[str, list[Tensor]] = {}

        def keep(name: str, output: Tensor) -> None:
            found.setdefault(name, []).append(output.detach().double())

        torch.manual_seed(self._seed)  # dropout draws the same masks before and after
        watching: AbstractContextManager[None] = watch_products(self.task.model, keep)
        with torch.set_grad_enabled(self.task.differentiates), watching:
            self.task.loss(self.batches[0])
        for layer in tied_heads(self.graph):
            if len(found.get(layer.name, ())) > 1:
                found[layer.tied_to[-1]] = [found[layer.name].pop()]  # the head, whose outputs are the last
        return found


def _differences(after: list[Tensor], before: list[Tensor]) -> list[Tensor]:
    return [new - old for new, old in zip(after, before, strict=True)]


def _size(tensors: Iterable[Tensor]) -> float:
    """Returns the mean absolute value of all entries."""
    return torch.cat([tensor.abs().flatten() for tensor in tensors]).mean().item()


def _coordinates(name: str, role: str, measured: list[list[Moved]], widths: tuple[int, ...]) -> Coordinates:
    starts, changes = (
        tuple(math.fsum(moved[name][side] for moved in runs) / len(runs) for runs in measured) for side in (0, 1)
    )
    return Coordinates(name, role, starts, changes, slope(widths, starts), slope(widths, changes))


def slope(widths: Sequence[int], values: Sequence[float]) -> float:
    """Returns the exponent p of values ∝ width^p, by least squares on logarithms.

    Infinite where a value is infinite or NaN, 0 where all are 0, −infinite where only some are.
    """
    if not all(map(math.isfinite, values)):
        return math.inf
    if not all(values):
        return -math.inf if any(values) else 0.0
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def _sizes(widths: Sequence[int], steps: int, seeds: Sequence[int]) -> tuple[int, ...]:
    """Returns the widths in order."""
    sizes = tuple(sorted(set(widths)))
    if len(sizes) < 2 or sizes[0] < 1:
        raise ArgumentError(f"widths must be two or more different whole numbers from 1. Got {tuple(widths)}.")
    if steps < 1 or not seeds:
        raise ArgumentError(f"One step and one seed are the least. Got steps = {steps} and seeds = {tuple(seeds)}.")
    return sizes


def _builder(optimizer: str | type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Returns the class of an optimizer."""
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        return optimizer
    if isinstance(optimizer, str) and optimizer.lower() in OPTIMIZERS:
        return OPTIMIZERS[optimizer.lower()]
    raise OptimizerError(f"optimizer is one of {', '.join(OPTIMIZERS)}, or a class of torch.optim. Got {optimizer!r}.")


def _check_names(measured: list[list[Moved]], widths: tuple[int, ...]) -> None:
    for width, runs in zip(widths, measured, strict=True):
        if other := measured[0][0].keys() ^ runs[0].keys():
            raise ArgumentError(
                f"make_model({width}) and make_model({widths[0]}) must differ in width alone, but only one of them has "
                f"the weights {few(sorted(other))}."
            )


def _columns(check: CoordinateCheck) -> list[Column]:
    return [
        Column("weight", least=20, cut="middle"),
        Column("role", rank=2),
        *(
            Column(str(width), ">", rank=3 if 0 < place < len(check.widths) - 1 else 1)
            for place, width in enumerate(check.widths)
        ),
        Column("width^", ">"),
        Column("start", ">", rank=4),
        Column("verdict"),
    ]


def _rows(check: CoordinateCheck) -> list[tuple[str, ...]]:
    return [
        (
            layer.name,
            layer.role,
            *(number(change, 2) for change in layer.changes),
            f"{layer.slope:+.2f}",
            f"{layer.start_slope:+.2f}",
            layer.verdict,
        )
        for layer in check.layers
    ]


def _head(check: CoordinateCheck) -> str:
    plural = "s" * (check.steps > 1)
    return (
        f"Mean change of each layer's outputs after {check.steps} step{plural} of {check.optimizer}, "
        f"lr {number(check.lr)}, by width ({title(check.recipe)})"
    )


def _render(check: CoordinateCheck) -> str:
    """Returns a table, one line a layer, and what it means."""
    unseen = f"\n{wrapped(f'Not measured: outputs of {few(check.unseen)}.')}" if check.unseen else ""
    meaning = "\n".join(wrapped(line, "    ") for line in _meaning(check).splitlines())
    return f"{wrapped(_head(check))}\n\n{table(_columns(check), _rows(check))}\n\n{meaning}{unseen}"


def _page(check: CoordinateCheck) -> str:
    """Returns the same for a notebook."""
    series = [
        chart.Series(
            layer.name, [(math.log2(width), change) for width, change in zip(check.widths, layer.changes, strict=True)]
        )
        for layer in check.layers[:_LINES]
    ]
    return markup.page(
        _meaning(check).splitlines()[0],
        markup.facts([("", line) for line in (_head(check), *_meaning(check).splitlines()[1:])]),
        chart.lines(series, "log2 of the width", "change", logarithmic=True),
        markup.folded("Every weight", markup.table(_columns(check), _rows(check))),
    )


def _meaning(check: CoordinateCheck) -> str:
    if check.flat:
        return "Flat: no layer's change depends on the width, so one learning rate serves them all."
    bad = [f"{layer.name} ({layer.verdict})" for layer in check.layers if layer.verdict != "flat"]
    remedy = (
        "a part of this model does not follow μP; look for sizes that do not grow with the width, and for tied heads"
        if check.recipe.widths == "mup"
        else 'autoinit.apply_(model, "mup", data) with plan.param_groups(model, lr)'
    )
    return f"Not flat: {few(bad)}. A learning rate tuned at one width will not serve another.\n    → {remedy}"
