"""A start that was learned from episodes: its tensors, what it was learned for, set into other instances."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SourceError
from ..task.assign import lasting_buffers
from ..task.checks import unwrap
from ..task.snapshot import uninterrupted
from ..text import count, few, number
from . import files

KIND = "a learned start"
_FACTS = {
    "method": str, "inner_steps": int, "inner_lr": float, "outer_lr": float, "meta_batch": int, "rounds": int,
    "seed": int, "head": str, "loss": str, "history": list, "autoinit": str, "torch": str,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class LearnedStart:
    """A start from which a few steps lead far on new tasks of a kind, as `autoinit.meta_learn` has learned it.

    It holds all weights and buffers, those that were frozen too, and what they were learned for: plain gradient descent
    of `inner_steps` steps at `inner_lr`. Print it for a summary. `apply_(model)` sets it into another instance, `save`
    and `LearnedStart.load` keep it in one file of safetensors.

    Attributes:
        parameters: The weights by name, on the CPU.
        buffers: The buffers of the model's state by name; statistics are those of the start, before any adaptation.
        method: The method's name, "reptile", "fomaml", "maml" or "anil".
        inner_steps: So many steps of adaptation it was learned for.
        inner_lr: This is their rate.
        outer_lr: This is the rate that the start was moved by.
        meta_batch: So many episodes are in each round.
        rounds: So many times the start has moved.
        seed: This decided what was random.
        head: This is the path of the part that adapts alone; it is empty where all does.
        loss: This is the name of the loss: "cross_entropy", "mse", "model" or "custom".
        history: For each round there is the loss of the query before and after adaptation, a mean over its episodes.
        autoinit: The version of the package that made it.
        torch: The version of torch that made it.
    """

    parameters: Mapping[str, Tensor] = field(repr=False)
    buffers: Mapping[str, Tensor] = field(repr=False)
    method: str
    inner_steps: int
    inner_lr: float
    outer_lr: float
    meta_batch: int
    rounds: int
    seed: int
    head: str
    loss: str
    history: tuple[tuple[float, float], ...] = field(repr=False)
    autoinit: str
    torch: str

    @property
    def episodes(self) -> int:
        """How many episodes it has seen, the same one several times where there are fewer."""
        return self.rounds * self.meta_batch

    def apply_(self, model: nn.Module) -> None:
        """Sets all weights and buffers of another instance of the model, in place.

        Args:
            model: An instance of the same architecture, on any device and in any dtype.

        Raises:
            SourceError: Layers have other names or shapes; the model is unchanged.
        """
        inner = unwrap(model)
        mine = {**self.parameters, **self.buffers}
        theirs = {**dict(inner.named_parameters()), **dict(lasting_buffers(inner))}
        if differ := differences(inner, mine):
            raise SourceError(
                f"the model has another architecture than the learned start: {few(differ)}. Pass an instance of the "
                "model that it was learned for, or learn a start for this one."
            )
        with torch.no_grad(), uninterrupted():
            for name, value in mine.items():
                theirs[name].copy_(value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to one file of safetensors, whole or not at all; the file has the tensors' very bits.

        Args:
            path: The file, which is replaced where it is there.

        Raises:
            ArgumentError: No file can be written there.
        """
        facts = {name: value for name, value in vars(self).items() if name in _FACTS}
        parts = {"parameters": self.parameters, "buffers": self.buffers}
        files.write(files.check_folder(path, "path"), KIND, facts, parts)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LearnedStart:
        """Returns what `save` wrote.

        Args:
            path: The file.

        Raises:
            SourceError: It cannot be read, is damaged, or holds something else.
        """
        facts, parts = files.read(Path(path), KIND)
        if wrong := [name for name, kind in _FACTS.items() if not _is(facts.get(name), kind)]:
            raise SourceError(f"{path} is damaged: {few(wrong)} in its head are missing or of another kind.")
        held: dict[str, Any] = {name: facts[name] for name in _FACTS}
        held["history"] = tuple((float(before), float(after)) for before, after in held["history"])
        return LearnedStart(parts.get("parameters", {}), parts.get("buffers", {}), **held)

    def __str__(self) -> str:
        values = count(sum(value.numel() for value in self.parameters.values()))
        steps = f"{self.inner_steps} step{'s' * (self.inner_steps > 1)} at rate {number(self.inner_lr)}"
        adapts = f" of {self.head}" if self.head else ""
        lines = [
            f"A start learned by {self.method}, for {steps}{adapts}.",
            f"{count(self.episodes)} episodes in {count(self.rounds)} rounds; {values} weights.",
        ]
        if self.history:
            part = max(1, len(self.history) // 10)
            rows = " on rows that it has adapted to" if self.method == "reptile" else ""
            first, last = _means(self.history[:part]), _means(self.history[-part:])
            lines.append(f"Query loss before → after adaptation{rows}: {last}; in its first rounds {first}.")
        return "\n".join(lines)


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value)
    return isinstance(value, (int, float) if kind is float else kind)


def _means(history: tuple[tuple[float, float], ...]) -> str:
    return " → ".join(number(mean(one[at] for one in history)) for at in range(2))


def differences(model: nn.Module, values: Mapping[str, Tensor]) -> list[str]:
    """Returns how a model differs from what a start is for, in words for each layer; nothing where it fits.

    Args:
        model: the module itself.
        values: of the start, parameters and buffers by name.
    """
    own = {**dict(model.named_parameters()), **dict(lasting_buffers(model))}
    return [said for name in {**own, **values} if (said := _difference(name, own, values))]


def _difference(name: str, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    if name not in own:
        return f"{name} is missing in the model"
    if name not in theirs:
        return f"{name} is missing in the start"
    if own[name].shape != theirs[name].shape:
        return f"{name} is {list(own[name].shape)}, in the start {list(theirs[name].shape)}"
    return ""
