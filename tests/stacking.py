"""Models that stack, what trains them, and jobs to run in stacks, for the tests of several ways to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
ROWS = ((DIGITS.data[:640] / 16).astype("float32"), DIGITS.target[:640])
IMAGES = (ROWS[0].reshape(-1, 1, 8, 8), ROWS[1])
TOKENS = torch.from_numpy(DIGITS.data[:320, :24]).long()  # pixels of 17 grey levels, read as text

RECIPES = (OWN, Recipe(base="orthogonal"), Recipe(log2_gain=-1.0), Recipe(base="xavier_uniform"), Recipe(log2_gain=0.5))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 10))


def cnn() -> nn.Module:
    body = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)]
    return nn.Sequential(*body, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 10))


class Residual(nn.Module):
    """Pre-LN residual branches, the last of which shares its weight with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 24)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24)) for _ in range(3)
        )
        self.branches[2][1].weight = self.branches[0][1].weight
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.head(x)


class Reader(nn.Module):
    """A Transformer that reads a digit as 8 rows, with dropout everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True, norm_first=i == 0) for i in (0, 1)]
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x.view(-1, 8, 8))).mean(1))


class LanguageModel(nn.Module):
    """Embeddings tied to the head, causal attention with a mask buffer, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(17, 16)
        self.positions = nn.Embedding(24, 16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, 17, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("order", torch.arange(24))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.tokens(x) + self.positions(self.order[: x.shape[1]]))
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.drop(self.out(attended[:, 0])))


class Tempered(nn.Linear):
    """A layer whose outputs are multiplied with one learned number."""

    def __init__(self) -> None:
        super().__init__(24, 10)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.temperature * super().forward(x)


def biases_alone() -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 24), nn.LayerNorm(24), nn.Tanh(), Tempered())
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim < 2)
    return model


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=17, n_positions=24, n_embd=16, n_layer=2, n_head=2)
    )


class Halved(nn.Module):
    """A parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 + x.mean()


class Mixed(nn.Module):
    """A frozen layer, a parametrization, a parameter that nothing uses, and a buffer that is replaced, not written."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(64, 32).requires_grad_(False)
        self.layer = nn.utils.parametrize.register_parametrization(nn.Linear(32, 16), "weight", Halved())
        self.norm = nn.BatchNorm1d(16)
        self.unused = nn.Parameter(torch.zeros(3, 3))
        self.head = nn.Linear(16, 10)
        self.register_buffer("average", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.layer(self.frozen(x)).relu())
        if self.training:
            self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)
        return self.head(x - self.average)


class TrainedOnly(nn.Module):
    """Has no output in evaluation mode; takes off the average of what it saw, which it writes into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("average", torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("for training only")
        x = self.layer(x)
        self.average.mul_(0.5).add_(0.5 * x.detach().mean(0))
        return x - self.average


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)


def two_groups(parameters: Any) -> torch.optim.Optimizer:
    parameters = list(parameters)
    matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 1e-3}]
    return torch.optim.AdamW(groups, lr=3e-3, betas=(0.8, 0.95))


def one_cycle(parameters: Any) -> tuple[torch.optim.Optimizer, Any]:
    sgd = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return sgd, OneCycleLR(sgd, max_lr=0.1, total_steps=11)


def language_batches(labels: bool) -> list[Any]:
    if labels:
        return [{"input_ids": part, "labels": part} for part in TOKENS.split(32)]
    return [(part[:, :-1], part[:, 1:]) for part in TOKENS.split(32)]


def own_step(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1]) + 1e-4 * sum(
        p.square().sum() for p in model.parameters()
    )


def augmented(model: nn.Module, batch: Any) -> Tensor:
    noise = torch.from_numpy(np.random.standard_normal(batch[0].shape))
    return nn.functional.cross_entropy(model(batch[0] + 0.1 * noise), batch[1])


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, dict[str, Any]]] = {
    "mlp, SGD with momentum": (mlp, ROWS, momentum, {}),
    "mlp, OneCycle": (mlp, ROWS, one_cycle, {}),
    "mlp, bfloat16": (mlp, ROWS, adam, {"autocast": torch.bfloat16}),
    "mlp, a step": (mlp, ROWS, adam, {"step": own_step}),
    "mlp, a step that augments": (mlp, ROWS, adam, {"step": augmented}),
    "cnn with BatchNorm, AdamW in two groups": (cnn, IMAGES, two_groups, {}),
    "LayerNorm residuals, tied weights, Adam": (Residual, ROWS, adam, {}),
    "Transformer with dropout, the default optimizer": (Reader, ROWS, None, {}),
    "Transformer with dropout, OneCycle": (Reader, ROWS, one_cycle, {}),
    "language model, tied": (LanguageModel, language_batches(labels=False), adam, {}),
    "GPT-2": (gpt2, language_batches(labels=True), two_groups, {}),
    "evaluated in training mode": (TrainedOnly, ROWS, momentum, {}),
    "frozen, parametrized, unused and replaced": (Mixed, ROWS, momentum, {}),
}


@contextmanager
def benched(make: Callable[[], nn.Module], data: Any, optimizer: Any = momentum, **rest: Any) -> Iterator[Bench]:
    torch.manual_seed(0)
    model = make() if rest.get("autocast") else make().double()
    task = make_task(model, data, optimizer=optimizer, **rest)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def jobs_of(recipes: Sequence[Recipe] = RECIPES, lr_steps: Sequence[int] = (0, 0, 0, 0, 0), **rest: Any) -> list[Job]:
    options: dict[str, Any] = {"seed": 3, "steps": 8, "rungs": (3, 6), **rest}
    entered = zip(recipes, lr_steps, strict=False)
    return [Job(number, "search", Candidate(recipe, step), **options) for number, (recipe, step) in enumerate(entered)]


def stopping(*stops: tuple[int, int]) -> tuple[list[tuple[int, int]], Callable[[Job, Curve], bool]]:
    """What is asked, as (number, step), and an `on_rung` that ends some of them."""
    asked: list[tuple[int, int]] = []

    def on_rung(job: Job, curve: Curve) -> bool:
        asked.append((job.number, curve.steps))
        return (job.number, curve.steps) not in stops

    return asked, on_rung


def assert_alike(stacked: Sequence[Outcome], alone: Sequence[Outcome], rel: float = 1e-6) -> None:
    assert len(stacked) == len(alone)
    for found, expected in zip(stacked, alone, strict=True):
        assert found.spent == pytest.approx(expected.spent)
        assert found.reason == expected.reason
        assert (found.curve is None) == (expected.curve is None)
        if found.curve is None or expected.curve is None:
            continue
        assert found.curve.losses == pytest.approx(expected.curve.losses, rel=rel, nan_ok=True)
        assert found.curve.by_batch == pytest.approx(expected.curve.by_batch, rel=rel, nan_ok=True)
        assert [step for step, _ in found.curve.held_back] == [step for step, _ in expected.curve.held_back]
        assert dict(found.curve.held_back) == pytest.approx(dict(expected.curve.held_back), rel=rel, nan_ok=True)
        assert found.curve.diverged_at == expected.curve.diverged_at
        assert found.curve.gradient_range == pytest.approx(expected.curve.gradient_range, abs=20 * rel)
        assert (found.curve.glance is None) == (expected.curve.glance is None)
        if found.curve.glance is not None and expected.curve.glance is not None:
            assert found.curve.glance.gradient_norm == pytest.approx(expected.curve.glance.gradient_norm, rel=20 * rel)


def going_on(job: Job, curve: Curve) -> bool:
    return True


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": momentum,
    "Adam": lambda p: torch.optim.Adam(p, lr=3e-3, amsgrad=True),
    "AdamW": two_groups,
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.02, initial_accumulator_value=0.1, lr_decay=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5, weight_decay=1e-2),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=3e-3),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=3e-3, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=3e-2, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.05, t0=3),
}


def fail_to_draw(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Has a bench fail to set the weights of one job."""
    place = Bench.place

    def failing(bench: Bench, job: Job, tally: Any) -> None:
        if job.number == number:
            raise RuntimeError("this shape has no such draw")
        place(bench, job, tally)

    monkeypatch.setattr(Bench, "place", failing)
