"""Whether a few steps tell which weights train, so that no search for a rescue is cut short.

    python -m benchmarks.probes.begun --workers 2     # runs what is missing, then prints the table
    python -m benchmarks.probes.begun --report        # only the table

A row is a net of `stuck_nets` under one seed, trained from its owner's weights as in the first trial of a search:
whether `autoinit.judging.worth.trains` says that they have left the constant guess. Which of the nets are stuck is what
`stuck` has found of 200 steps.
"""

from __future__ import annotations

import argparse

from ..common import jobs
from ..common.jobs import Row
from . import stuck, stuck_report
from .stuck_nets import NETS

SEEDS = 2
STEPS = (8, 16)
"""Of the first trial of a search, and of the second look at it."""
PATH = jobs.RESULTS / "begun.jsonl"


def run_one(name: str, seed: int) -> Row:
    """Returns by steps whether a net trains: at all, and so far that it no longer counts as standing still."""
    from autoinit.executors.sequential import Sequential
    from autoinit.judging.budget import Budget, Meter, Schedule, evaluated
    from autoinit.judging.gate import STILL
    from autoinit.judging.trials import Candidate
    from autoinit.judging.worth import Guess, trains
    from autoinit.probing.bench import Bench
    from autoinit.recipes.recipe import OWN
    from autoinit.search.campaign import Campaign
    from autoinit.task.task import make_task
    from autoinit.tracing.tracing import trace_task

    net, steps = NETS[name], 600
    data = net.train_batches(seed)
    task = make_task(net.make_model(seed), data, loss=net.loss, optimizer=net.optimizer, seed=seed)
    graph, seen = trace_task(task), dict[str, tuple[bool, bool]]()
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed)
        campaign = Campaign(bench, Sequential(bench), Meter(budget=Budget(steps=steps)), Schedule.of(steps))
        for length in STEPS:
            (trial,) = campaign.run(campaign.jobs("search", [(Candidate(OWN), "search")], length))
            guess = Guess(task.reference_spread, task.best_constant_on(evaluated(task.probe_eval, length)))
            if trial.curve is not None and campaign.reference is not None:
                known = trial.curve, campaign.reference, guess
                seen[str(length)] = trains(*known), trains(*known, STILL)
    return {"net": name, "seed": seed, "trains": seen, **jobs.provenance()}


def report(rows: list[Row], truth: dict[str, bool]) -> str:
    """Returns how many of the runs of stuck nets, and of others, are seen to train.

    Args:
        rows: of `run_one`.
        truth: by net, whether it is stuck.
    """
    lines = ["| steps | of runs of stuck nets | of runs of others | beyond what counts as standing still |"]
    lines.append("|---|---:|---:|---:|")
    for length in map(str, STEPS):
        seen = [(truth[row["net"]], *row["trains"][length]) for row in rows if length in row["trains"]]
        stuck_ones, others = ([one for one in seen if one[0] == which] for which in (True, False))
        cells = [f"{sum(one[1] for one in group)} of {len(group)}" for group in (stuck_ones, others)]
        lines.append(f"| {length} | {' | '.join(cells)} | {sum(one[2] for one in others)} of {len(others)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["net"], row["seed"]) for row in jobs.read_rows(PATH)}
        pending = [(name, seed) for seed in range(SEEDS) for name in NETS if (name, seed) not in done]
        jobs.run_all(run_one, pending, PATH, arguments.workers, lambda row: f"{row['net']}: {row['trains']}")
    truth = stuck_report.stuck(stuck_report.by_net(jobs.read_rows(stuck.PATH)))
    print(report(jobs.read_rows(PATH), truth))


if __name__ == "__main__":
    main()
