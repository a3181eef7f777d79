"""A copy of a model with repeated blocks left out: the first few of each run of alike ones stay."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import ModelError, described

FEWEST = 2
"""Blocks of a run that stay: of one residual add nothing is scaled."""
_COUNTERS = ("layer", "block", "depth")
"""What names of attributes hold that tell the number of the blocks."""


@dataclass(frozen=True, slots=True)
class Run:
    """Alike blocks, one after the other.

    Attributes:
        path: of the list or the sequence that holds them.
        start: place of the first among its children.
        period: children that make a block.
        count: blocks.
    """

    path: str
    start: int
    period: int
    count: int

    def left_out(self, by: float) -> range:
        """Returns the places of what goes where the number of blocks is divided."""
        kept = min(self.count, max(FEWEST, round(self.count / by)))
        return range(self.start + kept * self.period, self.start + self.count * self.period)


def with_fewer_blocks(model: nn.Module, times: float) -> nn.Module:
    """Returns a copy without most of the repeated blocks; its weights are those of the blocks that stay.

    Lists that are gone through side by side stay as long as each other. Of blocks inside of blocks none is left out.

    Args:
        model: with weights.
        times: how many times fewer blocks each run shall have.

    Raises:
        ModelError: nothing is repeated, the model is on the meta device, or it cannot be copied.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError("it is on the meta device, without weights that could be copied")
    found = list(runs(model))
    if not any(run.count > FEWEST for run in found):
        raise ModelError(f"no ModuleList or Sequential of it holds more than {FEWEST} alike blocks")
    return _copied(model, found, times)


def runs(model: nn.Module) -> Iterator[Run]:
    """Yields the runs of alike blocks in the lists and the sequences of a model, the outermost ones."""
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop(0)
        inside = set[int]()
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            children = _children(module)
            for run in _runs(path, [_looks(child) for child in children]):
                places = range(run.start, run.start + run.count * run.period)
                if _trains([children[place] for place in places]):
                    inside.update(places)
                    yield run
        for place, (name, child) in enumerate(zip(module._modules, _children(module), strict=True)):
            if place not in inside:
                waiting.append((f"{path}.{name}".strip("."), child))


def _runs(path: str, looks: Sequence[Hashable]) -> Iterator[Run]:
    place = 0
    while place < len(looks):
        periods = range(1, (len(looks) - place) // 2 + 1)
        found = [Run(path, place, period, _repeats(looks[place:], period)) for period in periods]
        longest = max((run for run in found if run.count > 1), key=lambda run: run.period * run.count, default=None)
        if longest is not None:
            yield longest
        place += 1 if longest is None else longest.period * longest.count


def _repeats(looks: Sequence[Hashable], period: int) -> int:
    """Returns how many times the first entries, so many, are found one after the other."""
    count = 1
    while looks[count * period : (count + 1) * period] == looks[:period]:
        count += 1
    return count


def _looks(block: nn.Module) -> Hashable:
    """Returns what alike blocks have in common: the classes of their modules, names and shapes of their tensors."""
    tensors = [*block.named_parameters(), *block.named_buffers()]
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in tensors)
    return tuple((name, type(module)) for name, module in block.named_modules()), shapes


def _trains(blocks: Sequence[nn.Module]) -> bool:
    """Whether blocks are layers: they have weights, and are more than tables, of which each has its own column."""
    modules = [module for block in blocks for module in block.modules() if list(module.parameters(recurse=False))]
    return any(not isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in modules)


def _kept(model: nn.Module, found: Sequence[Run], by: float) -> list[nn.Module]:
    """Returns every module that is not left out; one that stands at two places, of which one stays, is kept."""
    gone: dict[int, set[int]] = {}
    for run in found:
        gone.setdefault(id(model.get_submodule(run.path)), set()).update(run.left_out(by))
    reached, waiting = dict[int, nn.Module](), [model]
    while waiting:
        module = waiting.pop()
        if id(module) in reached:
            continue
        reached[id(module)] = module
        out = gone.get(id(module), set())
        waiting += [child for place, child in enumerate(_children(module)) if place not in out]
    return list(reached.values())


def _children(module: nn.Module) -> list[nn.Module]:
    """Returns the children at their places, the same one again where it stands at several."""
    return [child if child is not None else nn.Identity() for child in module._modules.values()]


def _copied(model: nn.Module, found: Sequence[Run], by: float) -> nn.Module:
    """Returns the copy; what is left out is never copied, so that a large model is not held twice."""
    kept = {id(module) for module in _kept(model, found, by)}
    out = {id(module): nn.Identity() for module in model.modules() if id(module) not in kept}
    try:
        made: nn.Module = copy.deepcopy(model, dict(out))  # the copy of each of them is taken to be there already
    except Exception as problem:  # a lock, a file, a tensor that autograd made
        raise ModelError(f"it cannot be copied: {described(problem)}") from None
    for run in reversed(found):  # in one list from its end, so that the places before hold
        _cut(made, run, by)
    for parameter in made.parameters():
        parameter.grad = None
    return made


def _cut(made: nn.Module, run: Run, by: float) -> None:
    """Takes blocks out of a list or a sequence; numbers of what follows close up, and attributes that count blocks."""
    holder = made.get_submodule(run.path)
    gone = run.left_out(by)
    children = [entry for place, entry in enumerate(holder._modules.items()) if place not in gone]
    numbered = all(name.isdigit() for name, _ in children)
    holder._modules = {str(place) if numbered else name: child for place, (name, child) in enumerate(children)}
    for module in (made.get_submodule(run.path.rpartition(".")[0]), made):
        for name, value in vars(module).items():
            if type(value) is int and value == run.count and any(mark in name.lower() for mark in _COUNTERS):
                vars(module)[name] = run.count - len(gone) // run.period
