"""Rounds over listed candidates: all of them for a few steps, the better half for twice as many, until three are left.

Each round trains from the start, so that every candidate is looked at however small the budget is. Judged one after the
other, as a search judges what it does not know yet, the first ones pass by chance where all stand still at first, each
takes a full probe, and the last are never tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .campaign import Campaign
from .contest import FINALISTS, final_cost
from .records import Candidate, Record


def worth_rounds(campaign: Campaign, count: int) -> bool:
    """Whether so many candidates are worth rounds, and the search's share of the budget pays for the first.

    Args:
        campaign: with nothing tried yet.
        count: the owner's weights included.
    """
    one = final_cost(campaign, campaign.schedule.rungs[0])
    return count > 1 + FINALISTS and count * one <= campaign.meter.left(campaign.schedule.search_until)


def try_in_rounds(campaign: Campaign, candidates: Sequence[Candidate]) -> None:
    """Runs the rounds; who came to the last one is complete in `campaign.records`, and all others are pruned.

    Args:
        campaign: with nothing tried yet.
        candidates: the owner's weights first.
    """
    own, *standing = candidates
    rungs = campaign.schedule.rungs
    for steps, longer in zip(rungs, [*rungs[1:], 0], strict=True):
        records = _round(campaign, own, standing, steps)
        alive = sorted((one for one in records[1:] if one.state == "complete"), key=lambda one: one.total)
        most = max(FINALISTS, math.ceil(len(alive) / 2))
        spent = sum(one.spent for one in records) / len(records)
        costs = (1 + min(most, len(alive))) * spent * longer / steps
        left = campaign.meter.left(campaign.schedule.search_until)
        if records[0].state != "complete" or not longer or len(alive) <= FINALISTS or costs > left:
            return
        for place, record in enumerate(alive, 1):
            worse = f"in the worse half at step {steps}: number {place} of {len(alive)}"
            campaign.prune(record, _goes_on(longer) if place <= most else worse)
        campaign.prune(records[0], _goes_on(longer))
        standing = [record.candidate for record in alive[:most]]


def _goes_on(steps: int) -> str:
    return f"among the better half: trained again, for {steps} steps"


def _round(campaign: Campaign, own: Candidate, others: Sequence[Candidate], steps: int) -> list[Record]:
    """Returns the owner's record and the others', in their order."""
    first = not campaign.records
    run = campaign.run_first if first else campaign.run
    found = run(campaign.jobs("search", [(own, "search")], steps))  # all others are measured against it
    if first:
        campaign.meter.pace_again()  # it ran alone, which says little of a round's pace
    if found[0].state != "complete":
        return found
    jobs = campaign.jobs("search", [(other, "search") for other in others], steps, reference=campaign.reference)
    return found + campaign.run(jobs)
