"""The tables of the benchmark of stuck nets: which are stuck, what rules say of them, and what thresholds would."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoinit.findings.told_apart import ALIKE, SAME

from ..common.jobs import Row
from .stuck_nets import CHOOSING, NETS

LEFT = 0.05
"""Share of the way from the best constant's loss to the lowest that any net reaches on the same data in as many steps.
Below it a net is stuck: its loss has hardly left a constant guess's. A noisy end of a training that did nothing lies
within a hundredth of the way; a net that begins to move leaves within some dozen steps."""
LAST = 2
"""Kept means at a training's end, of 10 steps each, that are its final loss."""
TOLD = "inputs are hardly told apart"
VANISH = "gradients vanish"

Rule = Callable[[Row], bool]
Rows = Mapping[str, Sequence[Row]]


def final(row: Row) -> float:
    """Returns the mean loss of the last 20 steps; inf where it diverged."""
    return math.inf if row["losses"] is None else statistics.fmean(row["losses"][-LAST:])


def by_net(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each net that is still in the tables, a seed each."""
    found: dict[str, list[Row]] = {name: [] for name in NETS}
    for row in rows:
        if row["net"] in found:
            found[row["net"]].append(row)
    return {name: mine for name, mine in found.items() if mine}


def ways(nets: Rows) -> dict[str, list[float]]:
    """Returns by net and seed the share of the way that the loss went from the best constant guess's."""
    lowest: defaultdict[object, float] = defaultdict(lambda: math.inf)
    for name, mine in nets.items():
        lowest[NETS[name].load] = min(lowest[NETS[name].load], *map(final, mine))
    return {
        name: [(row["reference"] - final(row)) / (row["reference"] - lowest[NETS[name].load]) for row in mine]
        for name, mine in nets.items()
    }


def stuck(nets: Rows, left: float = LEFT) -> dict[str, bool]:
    """Returns by net whether it is stuck under most seeds."""
    return {name: most([way < left for way in mine]) for name, mine in ways(nets).items()}


def most(votes: Sequence[bool]) -> bool:
    """Whether more than half are true."""
    return sum(votes) * 2 > len(votes)


def lost(row: Row, threshold: float) -> bool:
    """Whether rows are told apart less than a threshold says."""
    return row["share"] is not None and row["share"] < threshold


def alike(row: Row) -> bool:
    """Whether the finding that inputs are hardly told apart is more than a note, the optimizer being known."""
    return lost(row, SAME if row["adapts"] else ALIKE)


def before(row: Row) -> bool:
    """Whether anything else is found, as without this finding: the rule that it is compared with."""
    return any(severity != "note" and not text.startswith(TOLD) for severity, text in row["found_untold"])


def untold(row: Row) -> bool:
    """Whether `diagnose(model, data)` calls a net unhealthy."""
    return before(row) or lost(row, ALIKE)


def told(row: Row) -> bool:
    """Whether `diagnose(model, data, optimizer=…)` does."""
    others = any(severity != "note" and not text.startswith(TOLD) for severity, text in row["found"])
    return others or alike(row)


RULES: dict[str, Rule] = {
    "without the finding": before,
    "`diagnose(model, data)`": untold,
    "`diagnose(model, data, optimizer=…)`": told,
    "the finding alone, optimizer told": alike,
}


@dataclass(frozen=True)
class Verdicts:
    """What a rule says of some nets.

    Attributes:
        caught: stuck nets that it tells.
        stuck: all that are.
        spared: the other nets that it does not call stuck.
        others: all of them.
    """

    caught: int
    stuck: int
    spared: int
    others: int

    def cells(self) -> tuple[str, str]:
        """Returns sensitivity and specificity, with counts."""
        return _share(self.caught, self.stuck), _share(self.spared, self.others)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f} ({part} of {whole})" if whole else "-"


def verdicts(nets: Rows, truth: Mapping[str, bool], rule: Rule) -> Verdicts:
    """Returns how often a rule is right; it calls a net stuck that it calls so under most seeds.

    Args:
        nets: to judge on.
        truth: whether each is stuck.
        rule: row → whether it is called stuck.
    """
    said = {name: most([rule(row) for row in mine]) for name, mine in nets.items()}
    ill = [name for name in nets if truth[name]]
    well = [name for name in nets if not truth[name]]
    return Verdicts(sum(said[name] for name in ill), len(ill), sum(not said[name] for name in well), len(well))


def halves(nets: Rows) -> dict[str, Rows]:
    """Returns the nets that thresholds are chosen on, and those that they are judged on."""
    chosen = {name: mine for name, mine in nets.items() if name in CHOOSING}
    return {"chosen on": chosen, "held out": {name: mine for name, mine in nets.items() if name not in CHOOSING}}


def report(rows: Sequence[Row]) -> str:
    """Returns sensitivity and specificity of each rule on both halves, and the held-out nets where one is wrong."""
    nets = by_net(rows)
    lines = ["| nets | rule | sensitivity | specificity |", "|---|---|---|---|"]
    for left in (LEFT, 2 * LEFT):
        truth = stuck(nets, left)
        for half, mine in halves(nets).items():
            for kind, some in (("", mine), *_by_optimizer(mine)) if left == LEFT else (("", mine),):
                where = f"{half}{kind}" + ("" if left == LEFT else f", stuck below {left:.2f}")
                lines += [_line(where, name, verdicts(some, truth, rule)) for name, rule in RULES.items()]
    return "\n".join(
        [*lines, "", "Held-out nets where `diagnose(model, data, optimizer=…)` is wrong:", "", *_wrong(nets)]
    )


def _line(where: str, name: str, found: Verdicts) -> str:
    return "| " + " | ".join((where, name, *found.cells())) + " |"


def _by_optimizer(nets: Rows) -> list[tuple[str, Rows]]:
    found = []
    for kind, adapts in ((", SGD", False), (", Adam and AdamW", True)):
        found.append((kind, {name: mine for name, mine in nets.items() if mine[0]["adapts"] == adapts}))
    return found


def _wrong(nets: Rows) -> list[str]:
    truth, went = stuck(nets), ways(nets)
    lines = ["| net | way, by seed | share told apart | found, seed 0 |", "|---|---|---|---|"]
    for name, mine in halves(nets)["held out"].items():
        if most([told(row) for row in mine]) != truth[name]:
            shown = " ".join(f"{way:.2f}" for way in went[name])
            found = "; ".join(text for severity, text in mine[0]["found"] if severity != "note")
            lines.append(f"| {name} | {shown} | {_shares(mine)} | {found or 'nothing'} |")
    return lines


def _shares(rows: Sequence[Row]) -> str:
    return " ".join("-" if row["share"] is None else f"{row['share']:.2g}" for row in rows)


def thresholds(rows: Sequence[Row]) -> str:
    """Returns what each threshold of the share would tell of the nets that it is chosen on, by kind of optimizer."""
    nets = by_net(rows)
    truth, went = stuck(nets), ways(nets)
    lines = []
    for kind, mine in _by_optimizer(halves(nets)["chosen on"]):
        seen = {name: some for name, some in mine.items() if all(row["share"] is not None for row in some)}
        shares = {name: statistics.median(row["share"] for row in some) for name, some in seen.items()}
        lines += [
            f"| net{kind} | stuck | way | share | sensitivity up to here | specificity |",
            "|---|---|---|---|---|---|",
        ]
        for name in sorted(shares, key=lambda name: shares[name]):
            found = verdicts(seen, truth, lambda row, at=shares[name]: lost(row, at * 1.0001))
            way = statistics.median(went[name])
            cells = (name, "stuck" if truth[name] else "", f"{way:.2f}", f"{shares[name]:.2g}", *found.cells())
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)
