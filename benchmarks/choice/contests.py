"""Contests in the gate alone: between two given starts of one model, so that what is true of them is known.

**Redraws**: the best of eight draws of the owner's own model under other seeds, of which none is better but by luck.
**Effects**: a start that is better or worse by a known cause: weights at half and at twice the scale of the owner's,
GPT-2's position table at a standard deviation of 0.01 in the place of 0.02.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import BenchTask, log_ratio
from ..common.training import train
from .promise_tasks import POSITIONS, PROMISES

State = Mapping[str, Tensor]

DRAWS = 8
"""Redraws among which the champion is chosen."""
REDRAW_STEPS = 48
REDRAW_TASKS = ("wine", "tabular_class", "mlp_residual_ln", "char_transformer", "cnn_batchnorm", "mlp_relu")

GATES = {12: "160 steps", 50: "600 steps", 125: "1,500 steps", 256: "6,000 steps, or a minute at 10 ms a step"}
"""Steps of the gate's runs, and a budget that pays for them."""
SCALED_TASKS = ("mlp_residual_ln", "tabular_class", "char_lstm", "cnn_batchnorm", "encoder_pre_ln")


@dataclass(frozen=True)
class Effect:
    """Two starts of one model.

    Attributes:
        task: to train.
        name: of the owner's start.
        owner: changes the model as its library draws it, which is the champion, into what the owner brings.
    """

    task: BenchTask
    name: str
    owner: Callable[[nn.Module], None]


def _scaled(factor: float) -> Callable[[nn.Module], None]:
    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= factor

    return change


@torch.no_grad()
def _large_positions(model: nn.Module) -> None:
    """Gives back the standard deviation of 0.02 to a table that was drawn at 0.01."""
    dict(model.named_parameters())["inner.transformer.wpe.weight"].mul_(2.0)


EFFECTS: dict[str, Effect] = {
    **{
        f"{task} {name}": Effect(PROMISES[task], name, _scaled(factor))
        for task in SCALED_TASKS
        for name, factor in (("halved", 0.5), ("doubled", 2.0))
    },
    POSITIONS.name: Effect(POSITIONS, "positions at 0.02", _large_positions),
}


class Contest:
    """Trains starts of one task's model as `select` does, and asks the gate.

    Args:
        task: of the benchmark.
        seed: of the batches, the split and the batch orders.
        steps: of each run.
    """

    def __init__(self, task: BenchTask, seed: int, steps: int) -> None:
        from autoinit.search.costs import evaluations
        from autoinit.task.task import make_task

        self._model = task.make_model(seed)
        self.task = make_task(
            self._model, task.train_batches(seed), loss=task.loss, optimizer=task.optimizer, seed=seed
        )
        self._seed, self._steps, self._length = seed, steps, task.steps / steps
        early, late = evaluations(steps)
        self._early, self._rungs = len(early), [int(part * steps) for part in (*early, *late)]

    def run(self, state: State, order: int, held_back: Sequence[Any]) -> Any:
        """Returns the curve of a training from these weights in this batch order."""
        from autoinit.probing.probe import probe

        with self.task.preserved():
            self._model.load_state_dict(dict(state))
            return probe(self.task, steps=self._steps, seed=order, held_back=held_back, rungs=self._rungs)

    def verdict(self, champion: State, own: State, length: float | None = None) -> Any:
        """Returns the gate's verdict after all the looks that it needs.

        Args:
            champion: the start that would be taken.
            own: the owner's.
            length: of the training, in that of these runs; None for the task's own.
        """
        from autoinit.judging.budget import evaluated
        from autoinit.judging.gate import LOOKS, judge, planned
        from autoinit.judging.score import Reference
        from autoinit.search.duel import pair_of
        from autoinit.task.batches import rows

        held_back = evaluated(self.task.gate_eval, self._steps)
        groups = [rows(group) for group in held_back]
        pairs: list[Any] = []
        for look, level in planned(max(LOOKS)).items():
            for order in range(len(pairs), look):
                arms = [self.run(state, 1_000 + 100 * self._seed + order, held_back) for state in (champion, own)]
                reference = Reference.of(self.task.reference, arms[1].losses)
                pairs.append(pair_of(*arms, reference, self._early, groups))
            found = judge(pairs, level, length=max(1.0, length or self._length))
            if found.state != "undecided" or found.longer is not None:
                break
        return found


def redraw(name: str, seed: int) -> Row:
    """Returns whether the best of some redraws of a task's own model wins the gate against the owner's draw."""
    from autoinit.judging.gate import USUAL_LENGTH
    from autoinit.judging.score import Reference, score

    task = PROMISES[name]
    states = [task.make_model(seed).state_dict()]
    states += [task.make_model(10_000 * (seed + 1) + place).state_dict() for place in range(DRAWS)]
    contest = Contest(task, seed, REDRAW_STEPS)
    curves = [contest.run(state, seed, contest.task.probe_eval) for state in states]
    reference = Reference.of(contest.task.reference, curves[0].losses)
    totals = [score(curve, reference, REDRAW_STEPS).total for curve in curves[1:]]
    champion = states[1 + totals.index(min(totals))]
    verdict = contest.verdict(champion, states[0], USUAL_LENGTH)
    return {"task": name, "seed": seed, "won": verdict.state == "win", "why": verdict.why, **jobs.provenance()}


def effect(name: str, seed: int) -> Row:
    """Returns what an effect is after the task's own length, and whether gates of several lengths find it."""
    found = EFFECTS[name]
    better = found.task.make_model(seed)
    own = copy.deepcopy(better)
    found.owner(own)
    ends = [train(model, found.task, seed) for model in (better, own)]
    gates: dict[str, list[Any]] = {}
    for steps in GATES:
        verdict = Contest(found.task, seed, steps).verdict(better.state_dict(), own.state_dict())
        gates[str(steps)] = [verdict.state, verdict.why]
    return {
        "task": name,
        "seed": seed,
        "training": log_ratio(ends[0].final_train, ends[1].final_train),
        "validation": log_ratio(ends[0].final_val, ends[1].final_val),
        "gates": gates,
        **jobs.provenance(),
    }
