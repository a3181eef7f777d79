"""What a search on a proxy that made itself comes to on the model, and what the model's own search would gain.

    python -m benchmarks.choice.proxies            # runs what is missing, then prints the table
    python -m benchmarks.choice.proxies --report

For each family, seed and size there is a selection of 2,000 steps with `proxy=autoinit.smaller(model, times=…)`, half
of them on the proxy, and one of as many steps without, which it is compared with. Then the gate's test is made once
more of each choice against the owner's weights on the large model, on batch orders that no selection saw: up to eight
pairs of 64 steps, for a training ten times as long (of the SIREN 256 steps: after 64 it is no better than a constant
guess). What a carried recipe reaches is its lead in log loss there, as a share of that of the model's own search, where
that wins. Where a selection keeps the owner's weights, its lead is 0.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..common import data, jobs, models
from ..common.jobs import Row
from ..common.tasks import LENGTH, BenchTask, adam, adamw, listed, sgd
from .contests import Contest, State

PATH = jobs.RESULTS / "proxies.jsonl"
SEEDS = (0, 1)
TIMES = (4, 16)
STEPS = 2000
"""Of each search."""
GATE_STEPS = 64


def gpt2(layers: int = 8, width: int = 64, heads: int = 8) -> nn.Module:
    """Returns Hugging Face's GPT-2 with its own initialization."""
    return models.tiny_gpt2(data.VOCABULARY, LENGTH, layers, width, heads)


def vit(layers: int = 8, width: int = 64, heads: int = 8) -> nn.Module:
    """Returns Hugging Face's ViT with its own initialization, for four patches of 14 x 14 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=14,
        patch_size=7,
        num_channels=1,
        num_labels=10,
    )
    return ViTForImageClassification(config)


def convnext(blocks: tuple[int, int] = (4, 8), widths: tuple[int, int] = (32, 64)) -> nn.Module:
    """Returns Hugging Face's ConvNeXt of two stages with its own initialization, for images of 14 x 14 pixels."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        num_channels=1,
        image_size=14,
        patch_size=2,
        num_stages=2,
        depths=list(blocks),
        hidden_sizes=list(widths),
        layer_scale_init_value=1.0,
        num_labels=10,
    )
    return ConvNextForImageClassification(config)


def of_logits(output: Any, labels: Tensor) -> Tensor:
    """Returns the cross-entropy of a model that returns more than its logits."""
    return F.cross_entropy(output.logits, labels)


_PROSE = functools.partial(data.prose, LENGTH)
_PLAIN_MLP = functools.partial(models.plain_mlp, nn.Tanh, depth=33, width=32)
_PLAIN_CNN = functools.partial(models.plain_cnn, depth=33, width=16)

FAMILIES: dict[str, BenchTask] = {
    task.name: task
    for task in (
        BenchTask(
            "mlp_tanh",
            "plain MLP, 33 layers of 32, tanh",
            True,
            _PLAIN_MLP,
            data.mnist_rows,
            F.cross_entropy,
            sgd(0.02),
            GATE_STEPS,
        ),
        BenchTask(
            "siren_photo",
            "SIREN, 18 layers of 64, PyTorch's draws",
            False,
            functools.partial(models.siren, hidden=16),
            data.photo,
            F.mse_loss,
            adam(1e-3),
            4 * GATE_STEPS,
            rows=512,
        ),
        BenchTask(
            "mlp_residual_ln",
            "residual MLP with LayerNorm, 32 blocks of 48",
            False,
            functools.partial(models.ResidualMLP, blocks=32, width=48),
            data.mnist_rows,
            F.cross_entropy,
            sgd(0.006),
            GATE_STEPS,
        ),
        BenchTask(
            "cnn_plain",
            "plain CNN, 33 convolutions of 16, ReLU",
            True,
            _PLAIN_CNN,
            data.mnist_images,
            F.cross_entropy,
            sgd(0.02),
            GATE_STEPS,
            rows=32,
        ),
        BenchTask(
            "vit_hf",
            "Hugging Face's ViT, 8 layers of 64",
            False,
            vit,
            data.mnist_images,
            of_logits,
            adamw(1e-3),
            GATE_STEPS,
            rows=16,
        ),
        BenchTask(
            "convnext_hf",
            "Hugging Face's ConvNeXt, 12 blocks",
            False,
            convnext,
            data.mnist_images,
            of_logits,
            adamw(1e-3),
            GATE_STEPS,
            rows=16,
        ),
        BenchTask(
            "gpt2_hf",
            "Hugging Face's GPT-2, 8 layers of 64",
            False,
            gpt2,
            _PROSE,
            None,
            adamw(3e-3),
            GATE_STEPS,
            rows=8,
        ),
    )
}


class Remembered(Contest):
    """A contest that trains the owner's weights once for each batch order, whoever meets them."""

    def __init__(self, task: BenchTask, seed: int) -> None:
        super().__init__(task, seed, task.steps)
        self.own: State = task.make_model(seed).state_dict()
        self._runs: dict[int, Any] = {}

    def run(self, state: State, order: int, held_back: Sequence[Any]) -> Any:
        if state is not self.own:
            return super().run(state, order, held_back)
        if order not in self._runs:
            self._runs[order] = super().run(state, order, held_back)
        return self._runs[order]


def run_one(name: str, seed: int) -> Row:
    """Returns what three searches chose for one model, two of them on proxies, and how each meets its own weights."""
    task = FAMILIES[name]
    contest = Remembered(task, seed)
    found = {str(times): searched(task, seed, times, contest) for times in (1, *TIMES)}
    return {"task": name, "seed": seed, "searches": found, **jobs.provenance()}


def searched(task: BenchTask, seed: int, times: int, contest: Remembered) -> Row:
    """Returns the search on a proxy of so many times fewer layers or parameters, and the gate's word on the model.

    Args:
        task: with the model.
        seed: of its weights, the batches and the search.
        times: how many times smaller the proxy is; 1 for the model itself.
        contest: on the model.
    """
    import autoinit
    from autoinit.judging.gate import USUAL_LENGTH

    model = task.make_model(seed)
    proxy = autoinit.smaller(model, times=times, seed=seed) if times > 1 else None
    begun = time.perf_counter()
    selection = autoinit.select(
        model,
        task.train_batches(seed),
        loss=task.loss,
        optimizer=task.optimizer,
        budget=autoinit.Budget(steps=STEPS),
        proxy=proxy,
        seed=seed,
        executor="sequential",
        progress=False,
    )
    row = {
        "parameters": sum(parameter.numel() for parameter in (proxy or model).parameters()),
        "recipe": selection.recipe.key,
        "kept": selection.kept,
        "why": selection.why,
        "steps": selection.cost.steps,
        "seconds": time.perf_counter() - begun,
    }
    if selection.kept:
        return {**row, "state": "kept", "gain": 0.0}
    verdict = contest.verdict(model.state_dict(), contest.own, USUAL_LENGTH)
    gain = verdict.gain
    said = {"gain": gain.estimate, "low": gain.low, "high": gain.high, "pairs": gain.pairs, "said": verdict.why}
    return {**row, "state": verdict.state, **said}


def share(row: Row, times: int) -> float:
    """Returns the carried recipe's lead as a share of that of the model's own search; nan where that does not win."""
    own = row["searches"]["1"]
    return (0.0 - row["searches"][str(times)]["gain"]) / -own["gain"] if own["state"] == "win" else math.nan


def report() -> str:
    """Returns a row for each family, seed and size, and what share the carried recipes reach."""
    rows = sorted(jobs.read_rows(PATH), key=lambda row: (list(FAMILIES).index(row["task"]), row["seed"]))
    lines = [
        "| model | seed | searched on | parameters | chose | search | loss × as-is on the model | gate | share |",
        "|---|---:|---|---:|---|---:|---|---|---:|",
    ]
    for row in rows:
        for times, found in row["searches"].items():
            place = "itself" if times == "1" else f"÷ {times}"
            reached = "" if times == "1" or math.isnan(share(row, int(times))) else f"{share(row, int(times)):.0%}"
            loss = "1" if found["kept"] else _interval(found)
            cells = [FAMILIES[row["task"]].family, str(row["seed"]), place, f"{found['parameters']:,}"]
            cells += [f"`{found['recipe']}`", f"{found['seconds']:.0f} s", loss, found["state"], reached]
            lines.append(f"| {' | '.join(cells)} |")
    for times in TIMES:
        carried = [row["searches"][str(times)] for row in rows]
        shares = [value for row in rows if not math.isnan(value := share(row, times))]
        if shares:
            wins = sum(found["state"] == "win" for found in carried)
            faster = statistics.median(
                row["searches"]["1"]["seconds"] / row["searches"][str(times)]["seconds"] for row in rows
            )
            lines.append(
                f"\nProxies ÷ {times}: the carried recipe won {wins} of {len(carried)}, the search took 1/{faster:.1f} "
                f"of the time, and the median share is {statistics.median(shares):.0%}."
            )
    return "\n".join(lines)


def _interval(found: Row) -> str:
    low, middle, high = (math.exp(found[name]) for name in ("low", "gain", "high"))
    return f"{middle:.3g} ({low:.3g} … {high:.3g})"


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="all", help="comma-separated names, or all")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(PATH)}
        names = listed(arguments.families, FAMILIES, "families")
        pending = [(name, seed) for seed in SEEDS[: arguments.seeds] for name in names]
        jobs.run_all(
            run_one,
            [job for job in pending if job not in done],
            PATH,
            arguments.workers,
            lambda row: f"{row['task']}: " + ", ".join(found["state"] for found in row["searches"].values()),
        )
    print(report())


if __name__ == "__main__":
    main()
