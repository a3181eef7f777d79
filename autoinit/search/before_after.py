"""What a model's layers carry before any training: from the owner's weights, and from those that met them."""

from __future__ import annotations

from ..plans.plan import Plan
from ..probing.bench import Bench
from ..probing.signals import LayerSignal, layer_signals
from ..task.snapshot import seed_generators

Layers = tuple[LayerSignal, ...]


def before_and_after(bench: Bench, plan: Plan | None) -> tuple[Layers, Layers]:
    """Returns the signals of the owner's weights and of a plan's, each from one forward and backward pass.

    They are there to be looked at, so what goes wrong here costs nothing: then there are none. The bench is rewound.

    Args:
        bench: with the owner's model.
        plan: the champion's very draw; None where there is none.
    """
    try:
        bench.snapshot.rewind()
        before = _seen(bench)
        if plan is None:
            return before, ()
        bench.set(plan)
        return before, _seen(bench)
    except Exception:  # out of memory, a user's own check: the answer is found, and must not be lost
        return (), ()
    finally:
        bench.snapshot.rewind()


def _seen(bench: Bench) -> Layers:
    seed_generators(bench.seed, bench.task.device)  # the same dropout for both
    return layer_signals(bench.task, bench.graph)
