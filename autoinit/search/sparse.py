"""A ticket against dense weights: at equal steps, which the gate judges, and at equal multiply-adds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..judging.trials import Trial
from ..recipes.recipe import OWN
from ..task.task import Start, Task

PARTS = 8
"""A loss is the mean over one part in so many of a run."""


def share_left(task: Task, start: Start) -> float:
    """Returns the share of the multiply-adds of the weights' products that a ticket's masks leave.

    One batch tells how often each weight is used. Products of activations with each other, as in attention, and those
    of weights that no linear layer, convolution or recurrent layer holds are not counted.

    Args:
        task: the model, which is as it was afterwards, and its data.
        start: a ticket.
    """
    whole = left = 0.0
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal whole, left
        for weight in module.parameters(recurse=False):
            if weight.dim() < 2:
                continue
            uses = weight.numel() * _positions(module, inputs, output)
            mask = start.masks.get(names.get(id(weight), ""))
            whole += uses
            left += uses if mask is None else uses * float(mask.float().mean())

    with task.preserved(), torch.no_grad():
        for module in task.model.modules():
            if isinstance(module, (nn.Linear, _ConvNd, nn.RNNBase)):
                module.register_forward_hook(count)  # the snapshot takes it away
        task.loss(task.train[0])
    return left / whole if whole else 1.0


def _positions(module: nn.Module, inputs: Any, output: Any) -> float:
    """Returns how often a module's weights are used in a pass: rows, times, and places of a picture."""
    first = inputs[0]
    if isinstance(module, nn.RNNBase):
        rows: Tensor = first.data if isinstance(first, nn.utils.rnn.PackedSequence) else first
        return rows.numel() / module.input_size
    if isinstance(module, _ConvTransposeNd):
        return float(first.numel() / module.in_channels)
    if isinstance(module, _ConvNd):
        return float(output.numel() / module.out_channels)
    return float(output.numel() / output.shape[-1])


def equal_operations(trials: Sequence[Trial], ticket: str, share: float) -> list[float]:
    """Returns, for each pair of the gate, the log of the ticket's loss after its run over the dense one's earlier.

    Earlier is after as many steps as cost the same: the steps of the run times the share. A pair in which either loss
    is not finite or not positive is left out.

    Args:
        trials: of a search.
        ticket: name of the start.
        share: of the multiply-adds that the masks leave.
    """
    runs: dict[int, dict[str, Sequence[float]]] = {}
    for trial in trials:
        if trial.stage == "gate" and trial.curve is not None and trial.candidate.recipe.start in (ticket, OWN.start):
            runs.setdefault(trial.seed, {})[trial.candidate.recipe.start] = trial.curve.losses
    found = []
    for pair in runs.values():
        if len(pair) == 2:
            mine, dense = _loss(pair[ticket], 1.0), _loss(pair[OWN.start], share)
            if min(mine, dense) > 0 and math.isfinite(mine) and math.isfinite(dense):
                found.append(math.log(mine / dense))
    return found


def _loss(losses: Sequence[float], share: float) -> float:
    """Returns the mean loss of the last steps before a share of a run is over."""
    end = max(1, round(len(losses) * share))
    window = max(1, len(losses) // PARTS)
    return statistics.fmean(losses[max(0, end - window) : end]) if losses else math.nan


def told_of_ticket(task: Task, start: Start, trials: Sequence[Trial], *, worn: bool) -> str:
    """Returns what is to be known of a ticket that met the dense weights in the gate, in words.

    Args:
        task: that it was judged on.
        start: the ticket.
        trials: of the search.
        worn: whether it won, so that its masks are to be kept.
    """
    share = share_left(task, start)
    steps = max((trial.curve.steps for trial in trials if trial.stage == "gate" and trial.curve is not None), default=0)
    pairs = equal_operations(trials, start.name, share)
    said = [f"the gain above is at equal steps; the masks leave {share:.3g} of the weights' multiply-adds"]
    if pairs:
        factor, few, most = (math.exp(value) for value in (statistics.median(pairs), min(pairs), max(pairs)))
        said.append(
            f"at equal multiply-adds (the ticket after {steps} steps, your dense weights after "
            f"{max(1, round(steps * share))}) the loss is × {factor:.3g} ({few:.3g} … {most:.3g}, {len(pairs)} pairs), "
            "which only hardware that skips zeros gets"
        )
    if worn:
        said.append("its masks are kept by Ticket.apply_(model), which is to follow the plan wherever that is applied")
    return "; ".join(said)
