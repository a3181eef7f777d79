"""Dormant units (ReDo): found on some batches, drawn anew, and their part of an optimizer's state cleared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ArgumentError, did_you_mean
from ..graph import Graph
from ..inheritance.given import Given
from ..task.assign import read
from ..task.batches import Batch
from ..task.evaluation import eval_mode, uncompiled
from ..task.losses import split
from ..task.snapshot import Traces
from .hidden_units import JOINT, LINEAR, Measured, Pass, Unit, layers_of
from .unit_paths import UnitPaths

Forward = Callable[[nn.Module, Any], object]
"""(model, batch) → what the model puts out for it, or a loss."""


@dataclass(frozen=True)
class Dormancy:
    """How active the units of a model are.

    Attributes:
        layers: names of the weights that feed a layer's units, joined by " · " → those units.
        threshold: the score up to which a unit is dormant.
        left: weights whose units were not looked at → why.
        notes: of those, the ones that an activation function follows, in sentences.
    """

    layers: Mapping[str, tuple[Unit, ...]]
    threshold: float
    left: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def dormant(self) -> Mapping[str, tuple[int, ...]]:
        """The places of dormant units in each layer; layers without any are left out."""
        found = {name: self._in(units) for name, units in self.layers.items()}
        return {name: places for name, places in found.items() if places}

    @property
    def share(self) -> float:
        """Share of the units that are dormant; 0 where none could be looked at."""
        return sum(map(len, self.dormant.values())) / max(1, sum(map(len, self.layers.values())))

    def _in(self, units: tuple[Unit, ...]) -> tuple[int, ...]:
        return tuple(place for place, unit in enumerate(units) if unit.score <= self.threshold)


def find_dormant(
    model: nn.Module, graph: Graph, batches: Iterable[Batch], *, threshold: float, forward: Forward | None = None
) -> Dormancy:
    """Returns the units of every hidden layer with their scores, and which of them are dormant.

    The score of a unit is the mean magnitude of its activation over rows and positions, divided by the mean of that
    over the layer; a unit is dormant up to a threshold (0.025 in the paper). Units are features of linear layers,
    channels of convolutions and products of gated pairs; they are looked at after their last activation function, in
    evaluation mode and without gradients. Which weights read a unit is seen in the pass: through functions that act
    unit by unit, batch normalization, pooling, reshaping, chunks and concatenation. Where units are used in any other
    way (residual streams, layer normalization, attention) the layer is left, and `left` says why. Only functions of
    torch are seen: what TorchScript or a torch.autograd.Function reads beside other weights is not. Source: Sokar et
    al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", arXiv:2302.12902.

    The model is left as it was, bit for bit; all activations of one pass are in memory at the same time.

    Args:
        model: whose units they are.
        graph: of this model.
        batches: at least one, on the model's device.
        threshold: 0 or more.
        forward: how a batch is passed; None calls the model with the inputs of (inputs, target), of a dict or of
            inputs alone.

    Raises:
        ArgumentError: the threshold is out of range, or there is no batch.
    """
    if not threshold >= 0.0:
        raise ArgumentError(f"The threshold is {threshold!r}, but a unit's share of its layer's mean is 0 or more.")
    passes = [_seen(model, graph, batch, forward or _plain) for batch in batches]
    if not passes:
        raise ArgumentError("There is no batch on which units could be measured. Give at least one.")
    layers, left = dict[str, tuple[Unit, ...]](), dict(passes[0].left)
    for name, first in passes[0].layers.items():
        same = [one.layers[name] for one in passes if name in one.layers and one.layers[name].units == first.units]
        if len(same) == len(passes):
            layers[name] = _scored(first, same)
        else:
            left |= dict.fromkeys(name.split(JOINT), "the ways of its units are not the same in all batches")
    return Dormancy(layers, threshold, left, _notes(graph, left))


@dataclass(frozen=True, slots=True)
class Renewed:
    """Entries of one parameter or buffer that a renewal sets.

    Attributes:
        name: of the parameter or the buffer.
        axis: along which the units lie.
        indices: their places along it.
        what: "incoming", "outgoing" or "own" (biases and entries of normalizations).
    """

    name: str
    axis: int
    indices: tuple[int, ...]
    what: Literal["incoming", "outgoing", "own"]


@dataclass(frozen=True)
class Renewal:
    """What has been done to weights that had become stale.

    `autoinit.renew_` makes one. It says what each parameter got, and which entries of it, where only those of dormant
    units were drawn anew; an optimizer that goes on remembers the old ones, which `clear_state` makes it forget.

    Attributes:
        given: the values.
        entries: which entries these values set; all others are what they were, bit for bit.
    """

    given: Given
    entries: tuple[Renewed, ...]
    _parameters: Mapping[str, nn.Parameter] = field(repr=False)

    def clear_state(self, optimizer: Optimizer) -> None:
        """Sets what an optimizer remembers of the renewed entries to zero, and nothing else.

        That is every tensor of its state with the parameter's shape: Adam's averages, SGD's momentum, the sums of
        Adagrad. What it remembers of a whole parameter stays (the number of steps; Adafactor's sums of rows). So Adam,
        which corrects its averages by the number of steps, moves these entries up to 6.6 times as far in the next
        dozen of steps as in later ones, with its usual 0.9 and 0.999; whoever warms a rate up does so here, too.

        Args:
            optimizer: of this model, before or after the values are set.

        Raises:
            ArgumentError: it trains none of the renewed parameters.
        """
        trained = {id(one) for group in optimizer.param_groups for one in group["params"]}
        mine = [one for one in self.entries if one.name in self._parameters]
        held = [one for one in mine if id(self._parameters[one.name]) in trained]
        if mine and not held:
            raise ArgumentError("The optimizer trains none of the renewed parameters. Pass the one of this very model.")
        with torch.no_grad():
            for entry in held:
                parameter = self._parameters[entry.name]
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.index_fill_(entry.axis, torch.tensor(entry.indices, device=value.device), 0)


def renew_dormant(model: nn.Module, graph: Graph, found: Dormancy, fresh: Mapping[str, Tensor]) -> Renewal:
    """Returns values with which every dormant unit starts anew, and adds nothing to what the model puts out.

    What feeds such a unit comes from a fresh draw, its biases are zero and its normalization as at the start; what
    reads it is zero. So the output loses what the unit gave so far, which is nothing of a unit that is zero on all
    rows. Its outgoing weights get gradients at once, its incoming ones after the next step. Source: Sokar et al. 2023,
    arXiv:2302.12902 (ReDo).

    Args:
        model: as it was when the units were found; it is only read.
        graph: of this model.
        found: which units are dormant.
        fresh: a fresh draw of each weight that feeds dormant units, as whole values under the graph's names.

    Raises:
        ArgumentError: the draw of a weight is missing or has another shape.
    """
    entries = _entries(graph, [found.layers[name][place] for name, places in found.dormant.items() for place in places])
    values: dict[str, Tensor] = {}
    why: dict[str, list[str]] = {}
    starts = _starts(found)
    with torch.no_grad():
        for entry in entries:
            value = values.setdefault(entry.name, _tensor(model, entry.name).detach().clone())
            places = torch.tensor(entry.indices, device=value.device)
            if entry.what == "incoming":
                value.index_copy_(entry.axis, places, _draw(fresh, entry.name, value).index_select(entry.axis, places))
            else:
                value.index_fill_(entry.axis, places, starts.get(entry.name, 0.0) if entry.what == "own" else 0.0)
            why.setdefault(entry.name, []).append(_WHY[entry.what].format(count=len(entry.indices)))
    reasons = {name: "; ".join(parts) for name, parts in why.items()}
    parameters = {name: one for name, one in model.named_parameters() if name in values}
    return Renewal(Given(values, reasons, found.notes), entries, parameters)


_WHY = {
    "incoming": "what feeds {count} dormant units drawn anew",
    "outgoing": "what reads {count} entries of dormant units set to zero",
    "own": "{count} entries of dormant units as at the start",
}


def _entries(graph: Graph, units: Iterable[Unit]) -> tuple[Renewed, ...]:
    """Returns the entries that belong to some units; what is set to zero comes last, as one entry can be both."""
    found: dict[tuple[str, int, Literal["incoming", "outgoing", "own"]], set[int]] = {}
    for unit in units:
        for name, row in unit.incoming:
            found.setdefault((name, graph[name].out_axes[0], "incoming"), set()).add(row)
        for name, place, _ in unit.own:
            found.setdefault((name, _longest(graph, name), "own"), set()).add(place)
        for name, column in unit.outgoing:
            found.setdefault((name, graph[name].in_axes[0], "outgoing"), set()).add(column)
    entries = [Renewed(name, axis, tuple(sorted(places)), what) for (name, axis, what), places in found.items()]
    return tuple(sorted(entries, key=lambda one: one.what == "outgoing"))


def _longest(graph: Graph, name: str) -> int:
    """Returns the axis of what has one entry for each unit, such as a bias of shape [1, channels, 1, 1]."""
    shape = graph[name].shape if name in graph else (1,)
    return shape.index(max(shape))


def _starts(found: Dormancy) -> dict[str, float]:
    return {name: start for units in found.layers.values() for unit in units for name, _, start in unit.own}


def _tensor(model: nn.Module, name: str) -> Tensor:
    buffers = dict(model.named_buffers())
    return buffers[name] if name in buffers else read(model, name)


def _draw(fresh: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Returns the fresh draw of a weight, on its device and in its dtype."""
    if name not in fresh:
        raise ArgumentError(f"There is no fresh draw of {name}, which feeds dormant units. {did_you_mean(name, fresh)}")
    draw = fresh[name].detach()
    if draw.shape != like.shape:
        raise ArgumentError(f"The fresh draw of {name} has shape {tuple(draw.shape)}, the model {tuple(like.shape)}.")
    return draw.to(like)


def _plain(model: nn.Module, batch: Any) -> object:
    args, kwargs, _ = split(batch)
    return model(*args, **kwargs)


def _seen(model: nn.Module, graph: Graph, batch: Any, forward: Forward) -> Pass:
    """Returns what one pass tells, and leaves nothing of it in the model."""
    paths, traces = UnitPaths(model, graph), Traces(model)
    try:
        with eval_mode(model), torch.no_grad(), uncompiled(), paths:
            output = forward(model, batch)
        paths.finish(output)
    finally:
        traces.wipe()
    return layers_of(graph, paths)


def _scored(first: Measured, passes: list[Measured]) -> tuple[Unit, ...]:
    """Returns the units with their scores, each the largest of its measurements."""
    sums = torch.stack([one.sums for one in passes]).sum(0)  # over as many entries for every unit of a layer
    scores = sums / sums.nanmean(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    highest = scores.nan_to_num(0.0).amax(dim=1).tolist()
    return tuple(
        Unit(unit.incoming, unit.outgoing, unit.own, score) for unit, score in zip(first.units, highest, strict=True)
    )


def _notes(graph: Graph, left: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a sentence for each reason why the units of weights with an activation function are left."""
    reasons: dict[str, list[str]] = {}
    for name, why in left.items():
        layer = graph.get(name)
        if layer is not None and (layer.kind == "recurrent" or layer.activation.name != "linear") and why != LINEAR:
            reasons.setdefault(why, []).append(name)
    return tuple(f"The units of {', '.join(names)} are left: {why}." for why, names in reasons.items())
