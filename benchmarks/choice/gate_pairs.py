"""Paired runs as the gate makes them, two dozen for each pair of starts: what rules of the gate are tried on.

    python -m benchmarks.choice.gate_pairs                     # 3 minutes of one core
    python -m benchmarks.choice.gate_pairs --tasks wine,cars   # a part of it

Three starts of each network, the owner's draw, another seed's and an orthogonal one, are trained on the same batches in
up to 24 fresh orders. The networks are those whose short runs differ most from order to order: small tables, post-norm
blocks, spiking neurons, and two others beside. A finished (task, order) is one line in `results/gate_pairs.jsonl`, and
is not run again.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import SPECIALISTS, BenchTask, listed
from .contests import Contest
from .promise_tasks import PROMISES

PAIRS = jobs.RESULTS / "gate_pairs.jsonl"

LONG, SHORT = 96, 48
"""Steps of a run: the fewest that the gate believes a lead of, and twice as many where a step costs next to nothing."""

RUNS = {
    **dict.fromkeys(("wine", "cars", "tabular_class", "tabular_batchnorm", "tabular_residual"), (LONG, 24)),
    **dict.fromkeys(("encoder_post_ln", "spiking_digits", "mlp_residual_ln", "mlp_relu"), (SHORT, 16)),
}
"""Task → steps of a run, and in how many orders."""

_starts: dict[str, tuple[Any, Mapping[str, Mapping[str, Tensor]]]] = {}


def _task(name: str) -> BenchTask:
    return SPECIALISTS[name] if name in SPECIALISTS else PROMISES[name]


def _contest(name: str) -> tuple[Any, Mapping[str, Mapping[str, Tensor]]]:
    """Returns what trains a task's network, and its three starts."""
    import autoinit

    if name not in _starts:
        task = _task(name)
        own, other = task.make_model(0), task.make_model(10_000)
        orthogonal = copy.deepcopy(own)
        autoinit.apply_(orthogonal, "orthogonal", task.train_batches(0)[:1], loss=task.loss)
        starts = {"own": own, "redraw": other, "orthogonal": orthogonal}
        states = {start: copy.deepcopy(model.state_dict()) for start, model in starts.items()}
        _starts[name] = Contest(task, 0, RUNS[name][0]), states
    return _starts[name]


def pair(name: str, order: int) -> Row:
    """Returns the losses, in u, of each start of a task's network in one batch order."""
    from autoinit.judging.score import Reference

    contest, states = _contest(name)
    curves = {start: contest.run(state, 1_000 + order, ()) for start, state in states.items()}
    reference = Reference.of(contest.task.reference, curves["own"].losses)
    losses = {start: [round(reference.u(loss), 4) for loss in curve.losses] for start, curve in curves.items()}
    return {"task": name, "order": order, "losses": losses, **jobs.provenance()}


def main() -> None:
    """Runs what the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, or all")
    arguments = parser.parse_args()
    done = {(row["task"], row["order"]) for row in jobs.read_rows(PAIRS)}
    names = listed(arguments.tasks, RUNS, "tasks")
    # The cheap ones first, the others in turns: an interrupted run has some of each.
    orders = [(steps, order, name) for name in names for steps, count in [RUNS[name]] for order in range(count)]
    wanted = [(name, order) for _, order, name in sorted(orders, key=lambda one: (-one[0], one[1]))]
    pending = [one for one in wanted if one not in done]
    jobs.run_all(pair, pending, PAIRS, 1, lambda row: f"{row['task']} in order {row['order']}")


if __name__ == "__main__":
    main()
