"""What theory says about a growth: where outputs stay, where a scale makes up for what changes, where nothing does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from ..graph import Graph
from ..text import few
from .mapping import Axis, factors
from .methods import METHODS
from .norms import Norms
from .units import Units
from .wider import is_even

_ADDED_TO = frozenset({"embedding", "position", "input", "other"})
"""Roles of what a stream starts with."""


class Theory:
    """What is known of one growth before anything is computed.

    Attributes:
        tied: the table that is the head's weight, too, and is wider than in the source; empty for none.
        final: the scale (and shift) of the normalization before a tied head, which take the share of each copy; empty
            where there is no such head, or no such normalization.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        units: Units,
        axes: Mapping[str, Sequence[Axis]],
        method: str,
        norms: Norms,
        multipliers: Mapping[str, float],
    ) -> None:
        """Looks at a growth.

        Args:
            model: to be filled.
            graph: of it.
            units: what is counted.
            axes: of every tensor that is filled.
            method: its name.
            norms: the model's normalizations.
            multipliers: the constant that a weight of the source meets on its way, in that of the model's, by name.
        """
        self._model, self._graph, self._units, self._axes, self._method = model, graph, units, axes, method
        self.norms = norms
        self._normalized = {_lengths(axis) for name in self.norms.whole if name in axes for axis in axes[name]}
        self._multipliers = multipliers
        self.tied = self._tied_head()
        self.final = self._last_norm() if self.tied and not METHODS[method].narrower else frozenset()

    def is_silent(self, name: str) -> bool:
        """Whether new units must be zero: what adds to a stream that is normalized as a whole."""
        layer = self._graph.get(name)
        if layer is not None and layer.role == "bias":
            layer = self._graph.get(layer.of or "")
        if layer is None or not (layer.closes_branch or layer.role in _ADDED_TO):
            return False
        return any(_lengths(axis) in self._normalized for axis in self._axes[name] if axis.kind == "out")

    def stretch(self, name: str) -> float:
        """Returns what an RMSNorm's scale is multiplied by where zeros are added to its input: √(before / after)."""
        if self._method != "zero_pad" or name not in self.norms.rms or len(self._axes[name]) > 1:
            return 1.0
        (axis,) = self._axes[name]
        return math.sqrt(axis.before / axis.after)

    def constant(self, name: str) -> float:
        """Returns what makes up for another constant on a weight's way, as √width of some embeddings."""
        return self._multipliers.get(name, 1.0)

    def breaks(self) -> Iterator[str]:
        """Yields why outputs change, in whole sentences; nothing where theory keeps them."""
        if METHODS[self._method].narrower:
            yield "A part of a network has other outputs than the whole."
            return
        yield from self._of_norms()
        yield from self._of_attention()
        yield from self._of_streams()
        if self.tied and not self.final and self._method != "zero_pad":
            yield (
                f"{self.tied} is embedding and head in one, and no normalization before the head can take the share "
                "of each copy: the logits are as many times as large as there are copies."
            )

    def _of_norms(self) -> Iterator[str]:
        found: dict[str, list[str]] = {}
        for name in sorted((self.norms.whole | set(self.norms.grouped)) & set(self._axes)):
            reason = self._of_norm(name)
            if reason:
                found.setdefault(reason, []).append(name)
        for reason, names in found.items():
            yield f"{few(names)}: {reason}."

    def _of_norm(self, name: str) -> str:
        """Returns how a normalization changes outputs; empty where it does not."""
        changed = [factor for factor in factors(self._axes[name]) if factor.before != factor.after]
        before, after = (math.prod(lengths) for lengths in zip(*map(_lengths, self._axes[name]), strict=True))
        sizes = f"{after} units are normalized in place of {before}"
        if self._method == "zero_pad":
            if not changed or (name in self.norms.grouped and all(one.of == "groups" for one in changed)):
                return ""
            if name in self.norms.rms and len(self._axes[name]) == 1:
                return f"{sizes}; the scale makes up for the zeros, but for the norm's ε, which counts for more"
            return f"{sizes}, and zeros change their mean and variance"
        return "" if all(map(is_even, changed)) else f"{sizes}, no multiple: some count more often than others"

    def _of_attention(self) -> Iterator[str]:
        rotary = next((name for name, _ in self._model.named_buffers() if name.endswith("inv_freq")), "")
        found: dict[str, list[str]] = {}
        for name, attention in self._units.attention.items():
            size = attention.size
            if attention.regroups and self._method in ("net2net", "zero_pad"):
                reason = (
                    "fewer queries share a head of keys than in the source, which only copies in turn ('clone') follow"
                )
                found.setdefault(reason, []).append(name)
            if size.before == size.after:
                continue
            if rotary:
                reason = f"{rotary} turns heads of {size.after} units by other angles than heads of {size.before}"
                found.setdefault(reason, []).append(name)
            elif self._graph[name].normalized:
                reason = f"queries are normalized, so that the scale for heads of {size.after} units is lost"
                found.setdefault(reason, []).append(name)
        for reason, names in found.items():
            yield f"{few(names)}: {reason}."

    def _of_streams(self) -> Iterator[str]:
        even = all(is_even(factor) for some in self._axes.values() for factor in factors(some))
        for name in dict.fromkeys(self._units.joined):
            if self._method in ("net2net", "zero_pad") or not even:
                yield f"{name} reads several streams, or the data, side by side: its copies are not known one by one."
        for name in self._units.clashes:
            yield f"{name}: its groups of units are others than those of another layer on a stream of this width."

    def _tied_head(self) -> str:
        """Returns the table that is the head's weight, too, and is wider than in the source; empty for none."""
        heads = self._graph.has_role("output")
        linear = {f"{path}.weight" for path, module in self._model.named_modules() if isinstance(module, nn.Linear)}
        for layer in self._graph.layers:
            wider = any(one.before != one.after for one in factors(self._axes.get(layer.name, ())))
            if layer.role == "embedding" and wider and (not heads or linear & set(layer.tied_to)):
                return layer.name
        return ""

    def _last_norm(self) -> frozenset[str]:
        """Returns scale and shift of a normalization that comes after all weights, on a stream as wide as the table."""
        deepest = max((layer.depth for layer in self._graph.layers if layer.is_matrix), default=-1)
        width = next(_lengths(axis) for axis in self._axes[self.tied] if axis.kind == "out")
        last = [
            self._graph[name]
            for name in self._axes
            if name in self.norms.whole
            and self._graph[name].depth > deepest
            and [*map(_lengths, self._axes[name])] == [width]
        ]
        if not last:
            return frozenset()
        name = max(last, key=lambda layer: layer.residual_depth).name  # a branch may end with one, too
        return frozenset({name, *(one.name for one in self._graph.layers if one.of == name)})


def _lengths(axis: Axis) -> tuple[int, int]:
    """Returns how long an axis is, in the source and in the model."""
    return axis.before, axis.after
