"""What one batch, passed forward and backward through each recipe's weights, tells before anything is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from .bench import Bench
from .budget import Tally
from .metafeatures import Features, first_pass_features
from .probe import probe
from .recipe import Recipe
from .records import stream


def first_passes(
    bench: Bench, recipes: Sequence[Recipe], *, seconds: float = math.inf, tally: Tally | None = None
) -> dict[Recipe, Features] | None:
    """Returns loss and gradients of the first batch for each recipe, in numbers; the owner's weights are put back.

    A recipe whose weights cannot be drawn or measured has none.

    Args:
        bench: with the owner's weights.
        recipes: on that architecture, the quickest one first.
        seconds: that all of them may take; where they would take longer, None is returned and little time is lost.
        tally: told of the steps.
    """
    tally = tally or Tally()
    found: dict[Recipe, Features] = {}
    began = time.perf_counter()
    try:
        for recipe in recipes:
            found[recipe] = _first_pass(bench, recipe, tally)
            took = time.perf_counter() - began
            if took > seconds or took / len(found) * len(recipes) > UNEVEN * seconds:
                return None
    finally:
        bench.snapshot.rewind()
    return found


UNEVEN = 4.0
"""The first passes say little of the others: only where they take this many times too long is nothing measured."""


def _first_pass(bench: Bench, recipe: Recipe, tally: Tally) -> Features:
    try:
        bench.draw(recipe, tally)
        glance = probe(bench.task, steps=1, seed=stream(bench.seed, "first pass"), screen=lambda seen: False).glance
    except Exception:  # a calibration that finds nothing to hold on to, a draw that a shape refuses
        return {}
    finally:
        tally.spend(steps=1)
    if glance is None:
        return {}
    reference = bench.task.reference
    known = math.log(reference) if reference is not None and reference > 0 else None
    return first_pass_features(glance.loss, glance.gradient_norm, glance.gradient_range, known)
