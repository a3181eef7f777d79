"""A larger or a smaller network filled from a trained one: the values that it gets, computed and not set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, SourceError
from ..graph import Graph
from ..inheritance.given import Given
from ..recipes.growths import GROWTH_ROWS
from ..seeds import check_seed, seed_of_parameter
from ..task.assign import derived_name
from ..text import few
from . import deeper
from .exactness import Theory
from .fitting import check_architecture, check_direction, check_method, misfits, new_parts
from .mapping import Axis, Choice, copies, index
from .methods import METHODS
from .norms import constants, norms, resizing
from .pairing import pairs, tensors_of
from .units import Units
from .wider import Filling


def growth(
    model: nn.Module,
    source: nn.Module | Mapping[str, Tensor],
    method: str,
    graph: Graph,
    *,
    seed: int = 0,
    source_graph: Graph | None = None,
    noise: float = 0.0,
    exact: bool = False,
) -> Given:
    """Returns what a model gets from a trained network of the same kind and another width or depth.

    Nothing is set, and neither the model nor the source is changed.

    Args:
        model: to be filled, larger or smaller.
        source: a trained module, or its state dict; other prefixes of its names are no difference.
        method: a key of `METHODS`.
        graph: of the model, read from a step (`autoinit.trace`).
        seed: of random choices and of noise.
        source_graph: of the source, which tells how many heads it has. Without it, heads of the model's size.
        noise: standard deviation of the noise on copies, relative to each tensor's own: it parts them in training. Over
            all copies of a unit it adds up to zero, so that outputs stay.
        exact: whether a growth that changes outputs is refused.

    Raises:
        SourceError: no such method; a source of another architecture, or in the wrong direction; a growth that is asked
            to be exact and cannot be.
        ArgumentError: a seed or a noise that is none.
    """
    check_method(method)
    check_seed(seed)
    if not 0 <= noise < float("inf"):
        raise ArgumentError(f"noise must be 0 or a positive number, relative to the weights' spread. Got {noise!r}.")
    work = _Work(model, source, method, graph, source_graph)
    return work.given(seed, noise, exact=exact)


class _Told(NamedTuple):
    """What a source tells that is a module, by names of the model.

    Attributes:
        groups: of its group normalizations.
        multipliers: the constant that a weight meets on its way there, in that of the model's.
    """

    groups: dict[str, int]
    multipliers: dict[str, float]


def _told(
    model: nn.Module,
    graph: Graph,
    source: nn.Module | Mapping[str, Tensor],
    source_graph: Graph | None,
    twin: Mapping[str, str],
) -> _Told:
    if not isinstance(source, nn.Module) or source_graph is None:
        return _Told({}, {})
    grouped = norms(source, source_graph).grouped
    groups = {name: grouped[other] for name, other in twin.items() if other in grouped}
    before, after = constants(source, source_graph), constants(model, graph)
    both = {name: other for name, other in twin.items() if other in before and name in after}
    return _Told(groups, {name: before[other] / after[name] for name, other in both.items()})


class _Work:
    """One growth: what takes after what, and what the axes count."""

    def __init__(
        self,
        model: nn.Module,
        source: nn.Module | Mapping[str, Tensor],
        method: str,
        graph: Graph,
        source_graph: Graph | None,
    ) -> None:
        self._graph, self._method = graph, METHODS[method]
        self._own, self._trained = _targets(model, graph), tensors_of(source)
        mine = {name: tuple(value.shape) for name, value in self._own.items()}
        theirs = {name: tuple(value.shape) for name, value in self._trained.items()}
        every = pairs(mine, theirs)
        self._kept = new_parts(graph, every, mine, theirs)
        met = [pair for pair in every if pair.name not in self._kept]
        check_architecture(misfits(graph, met, mine, theirs), len(mine))
        self._blocks: dict[str, list[str]] = {}
        for pair in met:
            if pair.block:
                self._blocks.setdefault(pair.block, []).append(pair.name)
        self._pairs = {pair.name: pair for pair in met if pair.source is not None}
        self._twin = twin = {name: pair.source for name, pair in self._pairs.items() if pair.source is not None}
        shapes = {name: (theirs[other], mine[name]) for name, other in twin.items()}
        found, told = norms(model, graph), _told(model, graph, source, source_graph, twin)
        self._units = Units(graph, shapes, twin, source_graph, found, told.groups)
        self._axes = {name: self._units.axes(name) for name in twin if self._is_taken(name)}
        check_direction(method, self._axes, every, theirs)
        self._theory = Theory(model, graph, self._units, self._axes, method, found, told.multipliers)
        self._name, self._resizing = method, resizing(model)

    def given(self, seed: int, noise: float, *, exact: bool) -> Given:
        """Returns all values; see `growth`."""
        matrices = (name for name in self._axes if self._is_matrix(name))
        weights = ((self._trained[self._twin[name]], self._axes[name]) for name in matrices)
        choose = self._method.choose(seed, weights)
        values = {name: self._value(name, choose, noise, seed) for name in self._axes}
        why = {name: self._reason(name) for name in values}
        changes = [*self._theory.breaks(), *self._fill_new_blocks(values, why)]
        changes += self._untied()
        if self._kept:
            changes.append(
                f"As the model has it: {few([f'{name} ({reason})' for name, reason in self._kept.items()])}."
            )
        if exact and changes:
            raise SourceError(
                f"{self._name!r} was asked to keep the outputs exactly and cannot: {' '.join(changes[:5])} Take "
                "another width, depth or method, or exact=False for nearly the same outputs."
            )
        return Given(values, why, (*changes, *self._other_notes()))

    def _is_taken(self, name: str) -> bool:
        """Whether a tensor is taken: parameters, and buffers that count a stream's units or are of the same shape."""
        if name in self._graph:
            return True
        return self._trained[self._twin[name]].shape == self._own[name].shape or self._units.counts(name)

    def _is_matrix(self, name: str) -> bool:
        return name in self._graph and self._graph[name].is_matrix

    def _value(self, name: str, choose: Choice, noise: float, seed: int) -> Tensor:
        source, own, axes = self._trained[self._twin[name]], self._own[name], self._axes[name]
        if source.shape == own.shape and not source.is_floating_point() and not source.is_complex():
            return source.to(device=own.device, dtype=own.dtype, copy=True)
        filling = Filling(
            axes,
            choose,
            silent=self._theory.is_silent(name),
            divides=not self._method.narrower,
            noise=noise,
            seed=seed_of_parameter(seed, name),
        )
        value = filling.of(source, own)
        return self._rescaled(name, value * self._theory.constant(name), axes, choose)

    def _rescaled(self, name: str, value: Tensor, axes: Sequence[Axis], choose: Choice) -> Tensor:
        """Returns a normalization's scale or shift with what makes up for a new width."""
        stretch = self._theory.stretch(name)
        if stretch == 1.0 and name not in self._theory.final:
            return value
        offset = self._graph[name].offset
        chosen = index(axes[0], choose)
        factor = torch.where(chosen < 0, 1.0, stretch).to(value)
        if name in self._theory.final:
            factor = factor / copies(chosen, axes[0].before).to(value) / self._theory.constant(self._theory.tied)
        return (value + offset) * factor - offset

    def _fill_new_blocks(self, values: dict[str, Tensor], why: dict[str, str]) -> list[str]:
        """Sets what new blocks get in the place of copies of their neighbours; returns why outputs change."""
        reasons: dict[str, list[str]] = {}
        for block, names in self._blocks.items():
            if self._method.deeper == "stack":
                reasons.setdefault("what has a neighbour's weights does its work twice", []).append(block)
                continue
            now = {name: values.get(name, self._own[name]) for name in names}
            found, reason = deeper.identity(self._graph, names, now, self._theory.norms.eps, self._resizing)
            values.update(found)
            why.update(dict.fromkeys(found, "a new block that passes on what it gets"))
            if reason:
                reasons.setdefault(reason, []).append(block)
        return [f"New blocks ({few(blocks)}): {reason}." for reason, blocks in reasons.items()]

    def _reason(self, name: str) -> str:
        twin, block = self._twin[name], self._pairs[name].block
        before, after = (tuple(value.shape) for value in (self._trained[twin], self._own[name]))
        sizes = "" if before == after else f", {'×'.join(map(str, before))} → {'×'.join(map(str, after))}"
        title = GROWTH_ROWS[self._name].about.title
        return f"{'new block, after its neighbour' if block else 'from'} {twin}{sizes} ({title})"

    def _other_notes(self) -> Iterator[str]:
        """Yields what is to be known and changes no output."""
        unknown = [name for name, attention in self._units.attention.items() if not attention.known]
        if unknown:
            one = self._units.attention[unknown[0]]
            yield (
                f"The source does not say how many heads it has; {one.kv.before * one.group.before} of "
                f"{one.size.before} units are taken for {few(unknown)}. Pass the trained module to be sure."
            )
        left = self._left()
        if left:
            yield f"Not used of the source: {few(left)}."

    def _left(self) -> list[str]:
        """Returns the source's tensors that nothing takes after, under whatever name."""
        used = {self._trained[name].data_ptr() for name in self._twin.values()}
        return [name for name, value in self._trained.items() if value.data_ptr() not in used and value.dim()]

    def _untied(self) -> Iterator[str]:
        """Yields what the source has two tensors for, and the model one."""
        left = self._left()
        for layer in self._graph.layers:
            for alias in layer.tied_to:
                if any(alias == name or alias.endswith(f".{name}") or name.endswith(f".{alias}") for name in left):
                    yield f"The source has {alias} of its own, which the model ties to {layer.name}: it is not used."


def _targets(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Returns the model's parameters, each under its first name, and its lasting buffers."""
    state = tensors_of(model)
    others = {derived_name(name) for name, _ in model.named_parameters(remove_duplicate=False)} - set(graph)
    return {name: value for name, value in state.items() if name not in others}
