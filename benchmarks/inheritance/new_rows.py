"""New words in a trained language model: what their rows start from.

    python -m benchmarks.inheritance.new_rows

A small GPT-2 of transformers learns the prose of Python's reference word by word, with its 800 commonest words and one
token for all others. Then the next 300 words get tokens of their own, and it is trained on. The table says for each
start of their rows the loss of held-out text at step 0, where the next word is an old one and at all words, and at all
words after 100 and 400 steps; each is the mean of two draws and orders of batches.
"""

from __future__ import annotations

import copy
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.inheritance.rows import rows_

from ..common import jobs

OLD, NEW = 801, 300
LENGTH, BATCH = 32, 16
BASE_STEPS = 1500
STEPS = (100, 400)
RATE = 1e-3
SEEDS = (0, 1)
STARTS: dict[str, dict[str, Any] | None] = {
    "fresh, normal 0.02": None,
    "mean": {"method": "mean"},
    "mean_cov, spread 1": {"method": "mean_cov", "spread": 1.0},
    "mean_cov, spread 0.1": {"method": "mean_cov", "spread": 0.1},
    "small": {"method": "small"},
    "nearest: the token they were": {"method": "nearest", "pairs": dict.fromkeys(range(OLD, OLD + NEW), 0)},
}


def texts() -> tuple[Tensor, Tensor]:
    """Returns the prose as numbers of words, the commonest first, and its last tenth; 0 is a word with no token."""
    from pydoc_data.topics import topics

    words = re.findall(r"\w+|[^\w\s]", "\n".join(topics[name] for name in sorted(topics)).lower())
    ranks = {word: rank + 1 for rank, (word, _) in enumerate(Counter(words).most_common(OLD - 1 + NEW))}
    numbers = torch.tensor([ranks.get(word, 0) for word in words])
    return numbers[: -len(numbers) // 10], numbers[-len(numbers) // 10 :]


def windows(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Returns so many windows of a text, [count, LENGTH + 1]."""
    starts = torch.randint(len(text) - LENGTH - 1, (count,), generator=generator)
    return torch.stack([text[start : start + LENGTH + 1] for start in starts.tolist()])


def train(model: nn.Module, text: Tensor, steps: Sequence[int], seed: int) -> Iterator[int]:
    """Trains on windows of a text; yields at each of some steps."""
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=RATE), torch.Generator().manual_seed(seed)
    for step in range(1, max(steps) + 1):
        batch = windows(text, BATCH, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
        if step in steps:
            yield step


@torch.no_grad()
def judged(model: nn.Module, text: Tensor) -> tuple[float, float]:
    """Returns the loss where the next word is an old one, and at all words."""
    batch = windows(text, 300, torch.Generator().manual_seed(99))
    losses = F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    return float(losses[batch[:, 1:].flatten() < OLD].mean()), float(losses.mean())


def trained_base(text: Tensor) -> nn.Module:
    """Returns the model that knows the old words."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=OLD, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    model = transformers.GPT2LMHeadModel(config)
    for _ in train(model, torch.where(text < OLD, text, 0), (BASE_STEPS,), seed=7):
        pass
    return model


def main() -> None:
    """Trains the base, then from each start, and prints the table."""
    jobs.one_thread()
    text, held_out = texts()
    base = trained_base(text)
    print("| start | old words, step 0 | all words, step 0 | 100 steps | 400 steps |\n|---|---|---|---|---|")
    for start, settings in STARTS.items():
        rows = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            model: Any = copy.deepcopy(base)
            model.resize_token_embeddings(OLD + NEW, mean_resizing=False)
            if settings is not None:
                rows_(model, old=OLD, seed=seed, **settings)
            row = [*judged(model, held_out)]
            row += [judged(model, held_out)[1] for _ in train(model, text, STEPS, seed)]
            rows.append(row)
        cells = [f"{statistics.fmean(column):.3f}" for column in zip(*rows, strict=True)]
        print(f"| {start} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
