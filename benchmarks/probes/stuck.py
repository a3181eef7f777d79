"""Whether `diagnose` tells the nets that will be stuck: measured before training, compared with 200 steps of it.

    python -m benchmarks.probes.stuck --workers 2     # runs what is missing, then prints the tables
    python -m benchmarks.probes.stuck --report        # only the tables
    python -m benchmarks.probes.stuck --thresholds    # every threshold on the nets that they are chosen on

A row is a net under one seed: what `diagnose` measures and finds in it, told its optimizer and not, and the loss of the
200 steps from the same weights. So rules and thresholds are replayed without a training.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any

from autoinit.probing.signals import LayerSignal, Signals

from ..common import jobs
from ..common.jobs import Row
from ..common.training import losses
from . import stuck_report
from .stuck_nets import NETS, STEPS

SEEDS = 3
EVERY = 10
"""Steps of which the mean loss is kept as one number."""
PATH = jobs.RESULTS / "stuck.jsonl"


def run_one(name: str, seed: int) -> Row:
    """Returns what is found in a net before its training, and the training's loss."""
    net = NETS[name]
    found = _diagnosed(name, seed)
    model = net.make_model(seed).train()
    curve = list(losses(model, net, seed, STEPS))
    means = [sum(curve[at : at + EVERY]) / EVERY for at in range(0, len(curve) // EVERY * EVERY, EVERY)]
    finite = len(curve) == STEPS and math.isfinite(curve[-1])
    training = {"reference": net.reference(), "losses": [round(mean, 5) for mean in means] if finite else None}
    return {"net": name, "seed": seed, **found, **training, **jobs.provenance()}


def _diagnosed(name: str, seed: int) -> Row:
    """Returns the signals, how far rows are apart, and the findings with the optimizer told and not."""
    from autoinit.diagnosis import find
    from autoinit.findings.told_apart import course
    from autoinit.probing.rows_apart import rows_apart
    from autoinit.probing.signals import measure
    from autoinit.task.task import measured_task
    from autoinit.tracing.tracing import trace_task

    net = NETS[name]
    task = measured_task(net.make_model(seed), net.train_batches(seed), loss=net.loss, optimizer=net.optimizer)
    graph = trace_task(task)
    signals = measure(task, graph)
    seen = course(task, graph, signals)
    row: Row = {
        "adapts": task.adapts,
        "signals": _rounded(_columns(signals)),
        "apart": _rounded(rows_apart(task, graph)),
        "share": None if seen is None else _rounded(seen.share),
        "found": [dataclasses.astuple(finding)[:2] for finding in find(task, graph, signals)],
    }
    task.lr_given = False
    return {**row, "found_untold": [dataclasses.astuple(finding)[:2] for finding in find(task, graph, signals)]}


def _columns(signals: Signals) -> Row:
    """Returns signals as data, with a list for each quantity of the layers."""
    fields = [field.name for field in dataclasses.fields(LayerSignal)]
    layers = {name: [getattr(layer, name) for layer in signals.layers] for name in fields}
    return {"loss": signals.loss, "grad_norm": signals.grad_norm, "agreement": signals.agreement, "layers": layers}


def _rounded(value: Any) -> Any:
    """Returns the same data with four digits of every number."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _describe(row: Row) -> str:
    end = "diverged" if row["losses"] is None else f"{row['losses'][-1]:.3f}"
    return f"{row['net']}, seed {row['seed']}: {row['reference']:.3f} → {end}, share {row['share']}"


def main() -> None:
    """Runs what the result file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the tables of the runs so far")
    parser.add_argument("--thresholds", action="store_true", help="only print what each threshold would tell")
    arguments = parser.parse_args()
    if not (arguments.report or arguments.thresholds):
        done = {(row["net"], row["seed"]) for row in jobs.read_rows(PATH)}
        pending = [(name, seed) for seed in range(SEEDS) for name in NETS if (name, seed) not in done]
        jobs.run_all(run_one, pending, PATH, arguments.workers, _describe)
    rows = jobs.read_rows(PATH)
    print(stuck_report.thresholds(rows) if arguments.thresholds else stuck_report.report(rows))


if __name__ == "__main__":
    main()
