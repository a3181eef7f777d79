"""What the funnel costs, and how good its choice is, beside training every candidate long.

    python -m benchmarks.choice.funnel --workers 2     # runs what is missing, then prints the table
    python -m benchmarks.choice.funnel --report

The candidates are those of `rank_agreement`, whose long trainings are the exhaustive run: every candidate for all of
the task's steps. `select` has the same candidates as `recipes` and a budget of which search and finals take at most an
eighth of the exhaustive run's steps; its champion's long-run loss, the mean of two seeds that no search saw, is set
against the best candidate's. Which one that is, is luck in part: the best of 24 noisy numbers. So it is also set
against what an exhaustive run of one seed would choose, both judged by the other seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import TASKS, chosen, log_ratio
from ..probes import halving_replay, rank_agreement
from ..probes.agreement import by_task
from ..probes.candidates import candidates

PATH = jobs.RESULTS / "funnel.jsonl"
SEEDS = (0, 1, 2, 3)
SHARE = 1 / 8
"""Of the exhaustive run's steps: what search and finals may take together."""
CLOSE = math.log(1.05)


def run_one(name: str, seed: int) -> Row:
    """Returns what one search over the listed candidates chose, and what it spent until then."""
    import autoinit
    from autoinit.task.task import make_task
    from autoinit.tracing.tracing import trace_task

    task = TASKS[name]
    model = task.make_model(seed)
    batches = task.train_batches(seed)
    # As the rank benchmark reads it: with the labels' frequencies, which add a choice to the space.
    graph = trace_task(make_task(model, batches, loss=task.loss, optimizer=task.optimizer, seed=seed))
    listed = candidates(graph)
    selection = autoinit.select(
        model,
        batches,
        loss=task.loss,
        optimizer=task.optimizer,
        budget=autoinit.Budget(steps=budget(len(listed) * task.steps)),
        recipes=listed,
        seed=seed,
        concurrency=1,
    )
    trials = selection.trials
    gate = trials[trials.stage == "gate"]
    champion = gate.recipe.iloc[1] if len(gate) else listed[0].key
    return {
        "task": name,
        "seed": seed,
        "champion": champion,
        "spent": float(trials[trials.stage != "gate"].spent.sum()),
        "exhaustive": len(listed) * task.steps,
        "states": trials.state.value_counts().to_dict(),
        **jobs.provenance(),
    }


def budget(exhaustive: int) -> int:
    """Returns the steps of the largest budget of which search and finals get `SHARE` of the exhaustive run's."""
    from autoinit.judging.budget import WORTH_FINALS, Schedule

    with_finals = int(SHARE * exhaustive / Schedule.of(WORTH_FINALS).finals_until)
    return with_finals if with_finals >= WORTH_FINALS else WORTH_FINALS - 1


def long_losses(name: str, rows: Sequence[Row], against: str) -> dict[str, float]:
    """Returns each candidate's long-run loss: geometric mean of its seeds, of training and validation or of one."""
    sides = ("train", "val") if against == "both" else (against,)
    mine = [row for row in rows if row["task"] == name]
    return {row["recipe"]: _geometric([loss for side in sides for loss in row["long"][side]]) for row in mine}


def _geometric(losses: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(max(loss, 1e-12)) for loss in losses))


def noise(name: str, rows: Sequence[Row]) -> float:
    """Returns the median log ratio between the two long trainings of one candidate: what a seed alone does."""
    mine = [row["long"]["train"] for row in rows if row["task"] == name]
    return statistics.median(abs(log_ratio(one, other)) for one, other in mine)


def _beside_a_choice(rows: Sequence[Row], champion: str) -> float:
    place = next(place for place, row in enumerate(rows) if row["recipe"] == champion)
    return halving_replay.fair(rows, place, "both")


def report() -> str:
    """Returns a row per task, and the medians."""
    long = jobs.read_rows(rank_agreement.PATH)
    found = {(row["task"], row["seed"]): row for row in jobs.read_rows(PATH)}
    lines = [
        "| task | champion | training and validation loss / the best's | training loss / the best's "
        "| training and validation loss / an exhaustive choice's | a seed alone | share of the exhaustive steps |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    candidates_of, fair = by_task(long), list[float]()
    regrets: dict[str, list[float]] = {"both": [], "train": []}
    shares = []
    for name in TASKS:
        mine = [found[key] for key in sorted(found) if key[0] == name]
        if not mine:
            continue
        for against, values in regrets.items():
            losses = long_losses(name, long, against)
            values.append(statistics.fmean(log_ratio(losses[row["champion"]], min(losses.values())) for row in mine))
        fair.append(statistics.fmean(_beside_a_choice(candidates_of[name], row["champion"]) for row in mine))
        shares.append(statistics.fmean(row["spent"] / row["exhaustive"] for row in mine))
        cells = [" · ".join(row["champion"] for row in mine)]
        cells += [f"{math.exp(values[-1]):.2f}" for values in (*regrets.values(), fair)]
        lines.append(
            f"| {name} | " + " | ".join([*cells, f"{math.exp(noise(name, long)):.2f}", f"{shares[-1]:.3f}"]) + " |"
        )
    if not shares:
        return f"{PATH} holds no run yet."
    lines.append("")
    for against, words in (("both", "training and validation loss"), ("train", "training loss alone")):
        values = regrets[against]
        lines.append(
            f"By {words}: the champion's is {math.exp(statistics.median(values)):.3f} of the best candidate's on the "
            f"median of {len(values)} tasks, within 5 % on {sum(value <= CLOSE for value in values)} of them."
        )
    lines.append(
        "Beside what an exhaustive run of one seed chooses, judged by the other: "
        f"{math.exp(statistics.median(fair)):.3f} on the median task, within 5 % on "
        f"{sum(value <= CLOSE for value in fair)} of {len(fair)}."
    )
    lines.append(
        f"Steps: {statistics.median(shares):.3f} of the exhaustive run's (0.125 at most are wanted, for 1.05)."
    )
    return "\n".join(lines)


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, all, or plain_deep")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(PATH)}
        pending = [(task.name, seed) for seed in SEEDS[: arguments.seeds] for task in chosen(arguments.tasks)]
        pending = [job for job in pending if job not in done]
        jobs.run_all(run_one, pending, PATH, arguments.workers, lambda row: f"{row['task']}: {row['champion']}")
    print(report())


if __name__ == "__main__":
    main()
