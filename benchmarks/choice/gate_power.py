"""How often the gate errs and how often it finds, replayed from real pairs: what the levels of its looks come from.

    python -m benchmarks.choice.gate_power            # the tables, from `results/gate_pairs.jsonl`: half a minute
    python -m benchmarks.choice.gate_power --levels   # the levels of each look, worked out anew

What the gate asks beyond its test refuses more of both, false wins and effects, and is left out but in one table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, special

from autoinit.judging.gate import planned

from ..common import jobs
from ..common.jobs import Row
from .gate_cases import FEWEST, Array, Case, Draw, Gates, cases
from .gate_pairs import PAIRS

TABLES = jobs.RESULTS / "gate_power.md"

Levels = Mapping[int, float]
Outcome = tuple[float, float]

BEFORE: dict[int, Levels] = {
    3: {3: 0.05},
    4: {3: 0.05},
    5: {3: 0.03, 5: 0.02},
    6: {3: 0.03, 5: 0.02},
    7: {3: 0.03, 5: 0.02},
    8: {3: 0.02, 5: 0.015, 8: 0.015},
}
"""Pairs that a budget pays for → the looks taken and their levels, as they were: shares of 5 % that are added up."""

TOTALS = {1: 0.05, 2: 0.04, 3: 0.035}
"""Number of looks → probability that one of them passes where leads are normal and there is none.

Of several it is the most, in half percents, at which no case here has more false wins than before. The sums of 5 % came
to 4.3 and 4.0 %, since looks at the same pairs say much the same."""

EFFECTS = (1.0, 1.5, 3.0)


def _moderated(draw: Draw, kind: str, fitted: tuple[float, float]) -> Gates:
    """Returns gates with a prior of so much scale and so many degrees of freedom, measured in the first pairs."""
    scale, freedom = fitted
    measured = _measured(draw.case, kind, draw.orders[:, :FEWEST]) / draw.deviation**2
    return Gates(draw.leads, freedom * scale * measured, freedom)


def _measured(case: Case, kind: str, orders: Array) -> Array:
    """Returns what tells the variance of leads beforehand: nothing, the curves' roughness, or the spread halfway."""
    if kind == "one scale":
        return np.ones(len(orders))
    if kind == "roughness":
        return case.roughness[orders].mean(1)
    return np.maximum(case.halfway[orders].var(1, ddof=1), 1e-8)


def prior(known: Sequence[Case], kind: str) -> tuple[float, float]:
    """Returns scale and degrees of freedom of the prior of a variance, in units of what tells it, by moments.

    Smyth 2004 (Linear models and empirical Bayes methods for assessing differential expression, 6.2), with the variance
    over all orders of each case in the place of a gene's.
    """
    logs, noise = [], []
    for case in known:
        freedom = len(case.leads) - 1
        measured = _measured(case, kind, np.arange(len(case.leads))[None, :])
        level = special.digamma(freedom / 2) - math.log(freedom / 2)
        logs.append(math.log(case.leads.var(ddof=1) / float(measured[0])) - level)
        noise.append(float(special.polygamma(1, freedom / 2)))
    rest = max(1e-3, float(np.var(logs, ddof=1) - np.mean(noise)))
    half = optimize.brentq(lambda x: float(special.polygamma(1, x)) - rest, 1e-2, 1e4)
    return math.exp(float(np.mean(logs)) + float(special.digamma(half)) - math.log(half)), 2 * half


def outcome(p: Mapping[int, Array], levels: Levels) -> Outcome:
    """Returns the share of gates that end in a win, and the mean number of pairs that they take.

    A gate ends with its last look, or at one without any lead: there the p-value is a half or more.
    """
    size = len(p[FEWEST])
    won, over, taken = np.zeros(size, bool), np.zeros(size, bool), np.full(size, float(max(levels)))
    for look, level in levels.items():
        wins = ~over & (p[look] < level)
        ends = wins | (~over & (p[look] >= 0.5))
        taken[ends] = look
        won |= wins
        over |= ends
    return float(won.mean()), float(taken.mean())


# The levels


def levels(looks: Sequence[int], draws: int = 500_000) -> Levels:
    """Returns the levels that are proportional to the pairs of a look and come to one of `TOTALS` together."""
    p = Gates(np.random.default_rng(0).standard_normal((draws, max(looks)))).p_values(0.0)
    unit = float(np.quantile(np.min([p[look] / look for look in looks], 0), TOTALS[len(looks)]))
    return {look: unit * look for look in looks}


# The tables


def report(found: Sequence[Case], rows: Sequence[Row]) -> str:
    """Returns all tables."""
    tasks = list(dict.fromkeys(case.task for case in found))
    orders = ", ".join(f"{task} {sum(row['task'] == task for row in rows)}" for task in tasks)
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    head = (
        f"{len(found)} cases of {len(tasks)} tasks, orders: {orders}. {', '.join(dates)}, commit {', '.join(commits)}."
    )
    parts = [head, _looks_table(found, pooled=False), _looks_table(found, pooled=True)]
    return "\n\n".join([*parts, _asked_table(found), _prior_table(found), _early_table(found)])


def _looks_table(found: Sequence[Case], pooled: bool) -> str:
    title = "with the spread of two finalists" if pooled else "by themselves"
    lines = [
        f"**Looks**, gates {title}: before / now. False wins: mean over the cases (worst case).",
        "",
        "| pairs paid for | false wins | at 1 SD found | at 1.5 SD found | after pairs | at 3 SD found | after pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    results = _replayed(found, pooled)
    for count in BEFORE:
        false = " / ".join(f"{one.mean():.1%} ({one.max():.1%})" for one in (r[..., 0] for r in results[count, 0.0]))
        cells = [
            " / ".join(f"{one[:, part].mean():{form}}" for one in results[count, effect])
            for effect in EFFECTS
            for part, form in ((0, ".0%"), (1, ".1f"))
        ]
        lines.append(f"| {count} | {false} | {' | '.join([cells[0], *cells[2:]])} |")
    more = max((now[:, 0] - then[:, 0]).max() for (count, effect), (then, now) in results.items() if effect == 0)
    return "\n".join([*lines, "", f"No case has more than {100 * more:.1f} points of false wins more than before."])


def _replayed(found: Sequence[Case], pooled: bool) -> dict[tuple[int, float], tuple[Array, Array]]:
    """Returns (pairs paid for, effect) → [cases, (share of wins, mean pairs)] before and now."""
    results: dict[tuple[int, float], tuple[list[Outcome], list[Outcome]]] = {}
    for place, case in enumerate(found):
        draw = Draw(case, np.random.default_rng(place))
        gates = draw.with_finals() if pooled else draw.alone()
        for effect in (0.0, *EFFECTS):
            p = gates.p_values(effect)
            for count, before in BEFORE.items():
                rules = results.setdefault((count, effect), ([], []))
                for rule, used in zip(rules, (before, planned(count)), strict=True):
                    rule.append(outcome(p, used))
    return {key: (np.array(then), np.array(now)) for key, (then, now) in results.items()}


def _asked_table(found: Sequence[Case]) -> str:
    """Returns how often a lead that is none wins where it has to be as large as the gate asks, by task."""
    lines = [
        "**False wins with the lead that the gate asks**, eight pairs paid for: before / now, each task's worst case.",
        "",
        "| task | of the test alone | with the lead that is asked |",
        "|---|---|---|",
    ]
    for task in dict.fromkeys(case.task for case in found):
        draws = [Draw(case, np.random.default_rng(n)) for n, case in enumerate(found) if case.task == task]
        cells = []
        for gates in ([draw.alone() for draw in draws], [draw.that_ask() for draw in draws]):
            ps = [one.p_values(0.0) for one in gates]
            cells.append(" / ".join(f"{max(outcome(p, rule)[0] for p in ps):.1%}" for rule in (BEFORE[8], planned(8))))
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _prior_table(found: Sequence[Case]) -> str:
    lines = [
        "**A prior for the variance**, three pairs, level 5 %, fitted without the task judged.",
        "",
        "| told by | degrees of freedom | false wins: mean, worst case | cases above 6 % | found at 1 SD | at 1.5 SD |",
        "|---|---|---|---|---|---|",
    ]
    tasks = dict.fromkeys(case.task for case in found)
    for kind in ("no prior", "one scale", "roughness", "halfway"):
        results, freedoms = [], []
        for task in tasks:
            fitted = (1.0, 0.0) if kind == "no prior" else prior([one for one in found if one.task != task], kind)
            freedoms.append(fitted[1])
            for place, case in enumerate(found):
                if case.task == task:
                    gates = _moderated(Draw(case, np.random.default_rng(place)), kind, fitted)
                    results.append([outcome(gates.p_values(size), {3: 0.05})[0] for size in (0.0, *EFFECTS[:2])])
        false, *power = np.array(results).T
        lines.append(
            f"| {kind} | {min(freedoms):.1f} to {max(freedoms):.1f} | {false.mean():.1%}, {false.max():.1%} | "
            f"{(false > 0.06).sum()} of {len(false)} | {' | '.join(f'{one.mean():.0%}' for one in power)} |"
        )
    return "\n".join(lines)


def _early_table(found: Sequence[Case]) -> str:
    """Returns what the early part of a pair tells of its end, and where noise is what refuses."""
    reach = -float(special.stdtrit(FEWEST - 1, 0.05)) / math.sqrt(FEWEST)
    lines = [
        "**Noise beside what is asked anyway**: the lead that three pairs need, and the least that the gate believes.",
        "",
        "| task | SD of a lead | needed beyond noise | asked anyway | correlation of lead and halfway |",
        "|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(case.task for case in found):
        mine = [case for case in found if case.task == task]
        deviations = np.array([case.leads.std(ddof=1) for case in mine])
        asked = np.array([case.asked for case in mine])
        related = [float(np.corrcoef(case.leads, case.halfway)[0, 1]) for case in mine if case.halfway.std() > 0]
        lines.append(
            f"| {task} | {deviations.min():.3f} to {deviations.max():.3f} | {reach * deviations.min():.2f} to "
            f"{reach * deviations.max():.2f} | {asked.min():.2f} to {asked.max():.2f} | {np.median(related):+.2f} "
            f"({min(related):+.2f} to {max(related):+.2f}) |"
        )
    binds = sum(reach * case.leads.std(ddof=1) > case.asked for case in found)
    lines += ["", f"Noise asks for the larger lead in {binds} of {len(found)} cases."]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, and keeps them; or the levels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", action="store_true", help="only work out the levels of each look")
    if parser.parse_args().levels:
        for count in BEFORE:
            print(count, {look: round(level, 4) for look, level in levels(tuple(planned(count))).items()})
        return
    rows = jobs.read_rows(PAIRS)
    text = report(cases(rows), rows)
    TABLES.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
