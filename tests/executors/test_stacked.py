"""Jobs in a stack give what the same jobs give one after the other, and every way of failing ends in outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from autoinit.executors.sequential import Sequential
from autoinit.executors.stacked import Stacked, why_not
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve, Reference
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import space_of
from autoinit.search.campaign import Campaign
from autoinit.search.funnel import search
from autoinit.stacks import lockstep as lockstepping
from autoinit.stacks.elementwise import ELEMENTWISE
from autoinit.stacks.stack import Stack, moving_buffers
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


@pytest.mark.parametrize("case", CASES)
def test_a_stack_gives_what_one_after_the_other_gives(case: str) -> None:
    make, data, optimizer, rest = CASES[case]
    with benched(make, data, optimizer, **rest) as bench:
        assert why_not(bench) == ""
        jobs = jobs_of()
        asked, on_rung = stopping((1, 3), (3, 6))
        stacked = Stacked(bench, 5)
        found = list(stacked.run(jobs, on_rung))
        assert stacked.notes == []
        assert asked == [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3), (0, 6), (2, 6), (3, 6), (4, 6), (0, 8), (2, 8), (4, 8)]
        alone = list(Sequential(bench).run(jobs, stopping((1, 3), (3, 6))[1]))
        assert [outcome.curve.steps for outcome in alone if outcome.curve] == [8, 3, 8, 6, 8]
        assert len({outcome.curve.losses[0] for outcome in alone if outcome.curve}) == 5
        assert_alike(found, alone, rel=0.03 if "bfloat16" in case else 1e-6)


def test_what_trains_without_a_matrix_is_looked_at_as_one_after_the_other() -> None:
    with benched(biases_alone, ROWS, momentum) as bench:
        found, alone = (
            list(executor.run(jobs_of(), stopping((1, 3), (3, 6))[1]))
            for executor in (Stacked(bench, 5), Sequential(bench))
        )
        assert all(one.curve and one.curve.glance and one.curve.glance.gradient_norm > 0 for one in found)
        assert_alike(found, alone, rel=1e-6)


def test_float32_agrees_within_its_rounding() -> None:
    torch.manual_seed(0)
    task = make_task(Reader(), ROWS, optimizer=momentum)
    with task.preserved() as snapshot:
        bench = Bench(task, trace_task(task), snapshot, seed=0)
        jobs = jobs_of()
        found = list(Stacked(bench, 5).run(jobs, going_on))
        assert_alike(found, list(Sequential(bench).run(jobs, going_on)), rel=1e-4)


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


@pytest.mark.parametrize("name", [kind.__name__ for kind in ELEMENTWISE])
def test_every_optimizer_of_the_table_at_several_learning_rates(name: str) -> None:
    """Ten steps, so that RAdam's later form and ASGD's average are reached; candidates leave the stack on the way."""
    with benched(mlp, ROWS, OPTIMIZERS[name]) as bench:
        assert why_not(bench) == ""
        jobs = jobs_of(lr_steps=(0, 1, -1, 1, 0), steps=12)
        stacked = Stacked(bench, 5)
        found = list(stacked.run(jobs, stopping((0, 3), (3, 6))[1]))
        assert stacked.notes == []
        assert_alike(found, list(Sequential(bench).run(jobs, stopping((0, 3), (3, 6))[1])))


def test_learning_rates_are_mixed_also_under_a_scheduler_with_a_floor() -> None:
    def optimizer(parameters: Any) -> tuple[torch.optim.Optimizer, Any]:
        sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=8, eta_min=0.05)

    with benched(mlp, ROWS, optimizer) as bench:
        jobs = jobs_of(lr_steps=(0, 1, -1, 1, 0))
        assert_alike(list(Stacked(bench, 5).run(jobs, going_on)), list(Sequential(bench).run(jobs, going_on)))


def test_jobs_of_several_orders_and_lengths_are_asked_about_in_number_order() -> None:
    """Pairs of a gate share an order each; a longer job waits until those before it have ended."""
    with benched(mlp, ROWS) as bench:
        jobs = [
            Job(number, stage, Candidate(RECIPES[number % 2]), seed, steps, rungs)
            for number, (stage, seed, steps, rungs) in enumerate(
                [("gate", 1, 6, (3,))] * 2
                + [("gate", 2, 6, (3,))] * 2
                + [("search", 1, 6, (3,)), ("final", 1, 9, (4,))]
            )
        ]
        asked, on_rung = stopping((1, 3))
        found = list(Stacked(bench, 8).run(jobs, on_rung))
        by_three = [(number, 3) for number in range(5)]
        assert asked == [*by_three, *((number, 6) for number in (0, 2, 3, 4)), (5, 4), (5, 9)]
        assert_alike(found, list(Sequential(bench).run(jobs, stopping((1, 3))[1])))


def test_exact_weights_of_a_plan_are_trained() -> None:
    with benched(mlp, ROWS) as bench:
        plan = bench.draw(RECIPES[1])
        jobs = [Job(0, "gate", Candidate(OWN), 5, 4), Job(1, "gate", Candidate(RECIPES[1]), 5, 4, plan=plan)]
        assert_alike(list(Stacked(bench, 2).run(jobs, going_on)), list(Sequential(bench).run(jobs, going_on)))


def test_a_veto_ends_a_candidate_before_its_first_step() -> None:
    reference = Reference(2.3)
    recipes = (RECIPES[1], Recipe(base="zeros"), Recipe(log2_gain=12.0), RECIPES[3])
    with benched(mlp, ROWS) as bench:
        jobs = jobs_of(recipes, reference=reference)
        found = list(Stacked(bench, 4).run(jobs, going_on))
        assert [outcome.curve.steps for outcome in found if outcome.curve] == [8, 1, 1, 8]
        assert [bool(outcome.reason) for outcome in found] == [False, True, True, False]
        assert_alike(found, list(Sequential(bench).run(jobs, going_on)))


def test_a_divergence_leaves_the_others_as_they_are() -> None:
    """Candidate 1's weights overflow within some steps; 0 and 2 give the very numbers that they give without it."""
    quadratic = {"loss": lambda output, target: output.square().mean()}
    with benched(mlp, ROWS, lambda p: torch.optim.SGD(p, lr=0.1), **quadratic) as bench:
        jobs = jobs_of(RECIPES[:3], lr_steps=(0, 0, 0), steps=12)
        wild = Candidate(Recipe(log2_gain=5.0), 500)
        mixed = [jobs[0], Job(1, "search", wild, 3, 12, (3, 6)), jobs[2]]
        found = list(Stacked(bench, 3).run(mixed, going_on))
        without = list(Stacked(bench, 3).run([jobs[0], jobs[2]], going_on))
        assert found[1].curve is not None
        assert found[1].curve.diverged_at is not None
        assert found[1].curve.diverged_at < 12
        assert_alike(found, list(Sequential(bench).run(mixed, going_on)))
        assert_alike([found[0], found[2]], without, rel=1e-12)


def test_losses_that_are_read_at_rungs_give_the_same_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes while the program goes on, where a divergence is noticed at the next rung."""
    quadratic = {"loss": lambda output, target: output.square().mean()}
    with benched(mlp, ROWS, lambda p: torch.optim.SGD(p, lr=0.1), **quadratic) as bench:
        jobs = jobs_of(RECIPES[:3], lr_steps=(0, 0, 0), steps=12)
        jobs[1] = Job(1, "search", Candidate(Recipe(log2_gain=5.0), 500), 3, 12, (3, 6))
        at_once = list(Stacked(bench, 3).run(jobs, going_on))
        monkeypatch.setattr(lockstepping, "runs_ahead", lambda device: True)
        late = list(Stacked(bench, 3).run(jobs, going_on))
    assert at_once[1].curve is not None
    assert at_once[1].curve.diverged_at not in (None, 3, 6, 12)
    assert_alike(late, at_once, rel=1e-12)


def test_a_draw_that_fails_ends_its_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Bench.place

    def failing(bench: Bench, job: Job, tally: Any) -> None:
        if job.number == 1:
            raise RuntimeError("this shape has no such draw")
        place(bench, job, tally)

    monkeypatch.setattr(Bench, "place", failing)
    with benched(mlp, ROWS) as bench:
        found = list(Stacked(bench, 4).run(jobs_of(), going_on))
        assert found[1].curve is None
        assert "no such draw" in found[1].reason
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)))


def test_a_question_that_fails_ends_its_job_only() -> None:
    def on_rung(job: Job, curve: Curve) -> bool:
        if (job.number, curve.steps) == (1, 3):
            raise ValueError("cannot be judged")
        return True

    with benched(mlp, ROWS) as bench:
        found = list(Stacked(bench, 5).run(jobs_of(), on_rung))
        assert found[1].curve is None
        assert "cannot be judged" in found[1].reason
        assert [outcome.curve is not None for outcome in found] == [True, False, True, True, True]


def starved(monkeypatch: pytest.MonkeyPatch, fits: int, at: int = 5) -> None:
    """Lets a stack of more than some candidates run out of memory at one of its steps."""
    backward = Stack.backward

    def checked(stack: Stack, batch: Any) -> list[float]:
        stack.taken = vars(stack).get("taken", 0) + 1  # type: ignore[attr-defined]
        if stack.size > fits and stack.taken == at:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return backward(stack, batch)

    monkeypatch.setattr(Stack, "backward", checked)


def test_out_of_memory_halves_the_concurrency_and_no_outcome_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=2)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        asked, on_rung = stopping((1, 3))
        found = list(stacked.run(jobs_of(), on_rung))
        assert stacked.concurrency == 2
        assert "4 candidates at a time failed (OutOfMemoryError: CUDA out of memory" in stacked.notes[0]
        assert len(stacked.notes) == 1
        assert len(asked) == len(set(asked)) == 13  # nobody is asked twice, which a halving would count twice
        assert_alike(found, list(Sequential(bench).run(jobs_of(), stopping((1, 3))[1])))
        assert_alike(list(stacked.run(jobs_of(), going_on)), list(Sequential(bench).run(jobs_of(), going_on)))


def test_out_of_memory_ends_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=1)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert (stacked.concurrency, len(stacked.notes)) == (1, 2)
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)), rel=0.0)


def test_memory_that_a_draw_lacks_halves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    place, calls = Bench.place, list[int]()

    def failing(bench: Bench, job: Job, tally: Any) -> None:
        calls.append(job.number)
        if len(calls) == 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        place(bench, job, tally)

    monkeypatch.setattr(Bench, "place", failing)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert (stacked.concurrency, len(found)) == (2, 5)
        assert all(outcome.curve is not None for outcome in found)


def test_a_stack_that_fails_otherwise_goes_on_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stack: Stack, batches: Any) -> list[list[float]]:
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr(Stack, "evaluate", broken)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert stacked.notes == [
            "4 candidates at a time failed (RuntimeError: no rule for this operation): 1 from there"
        ]
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)), rel=0.0)


@pytest.mark.parametrize("make", [cnn, Reader])
def test_model_and_random_states_are_left_alone(make: Callable[[], nn.Module]) -> None:
    data = IMAGES if make is cnn else ROWS
    with benched(make, data) as bench, unchanged(bench.task.model):
        assert why_not(bench) == ""
        stacked = Stacked(bench, 4)
        assert len(list(stacked.run(jobs_of()[:4], stopping((1, 3))[1]))) == 4
        assert stacked.pace(2) > 0
        stacked.close()


def test_an_interruption_comes_through_and_the_model_is_put_back() -> None:
    def press(job: Job, curve: Curve) -> bool:
        raise KeyboardInterrupt

    with benched(mlp, ROWS) as bench, unchanged(bench.task.model), pytest.raises(KeyboardInterrupt):
        list(Stacked(bench, 4).run(jobs_of(), press))


def test_pace_is_of_all_candidates_and_lowers_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=2, at=1)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 8)
        assert stacked.pace(3) > 0
        assert stacked.concurrency == 2
        starved(monkeypatch, fits=1, at=1)
        assert stacked.pace(3) == 0.0
        assert stacked.concurrency == 1


def test_only_buffers_that_training_changes_are_copied() -> None:
    with benched(cnn, IMAGES) as bench:
        moving = moving_buffers(bench.task)
        assert {name.rpartition(".")[2] for name in moving} == {"running_mean", "running_var", "num_batches_tracked"}
        assert len(moving) == 6
    with benched(Mixed, ROWS) as bench:
        assert "model.average" in moving_buffers(bench.task)
    with benched(LanguageModel, language_batches(labels=False)) as bench:
        assert moving_buffers(bench.task) == set()


def test_a_whole_search_decides_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halving, finals and gate, in float64, where rounding decides nothing: the same records with the same reasons."""
    monkeypatch.setattr(Sequential, "pauses", False)  # as on an accelerator: what went on would have steps to spare

    def records(executor: Callable[[Bench], Any]) -> list[tuple[Any, ...]]:
        with benched(mlp, ROWS, None) as bench:
            meter, schedule = Meter(budget=Budget(steps=1500)), Schedule.of(1500)
            campaign = Campaign(bench, executor(bench), meter, schedule)
            search(campaign, space_of(bench.graph, lr_searched=True))
            return [
                (record.stage, record.candidate, record.state, record.reason, record.spent)
                for record in campaign.trials
            ]

    stacked, alone = records(lambda bench: Stacked(bench, 8)), records(Sequential)
    assert {record[2] for record in alone} >= {"complete", "pruned"}
    assert stacked == alone
