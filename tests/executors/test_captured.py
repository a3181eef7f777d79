"""A recorded training step gives what a plain one gives, and each thing that it cannot do is refused in words.

A double stands for the device (see `replays`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from helpers import unchanged
from replays import WAITED, Again, Deaf, Failing, late_momentum, told
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

import autoinit
from autoinit.errors import DeviceError
from autoinit.executors import capture as capturing
from autoinit.executors.capturable import refusal, why_not
from autoinit.executors.captured import Captured
from autoinit.executors.inputs import frame
from autoinit.executors.lasting import use_recordable_form, why_not_lasting
from autoinit.executors.recorded import Recording
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget
from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.probing.probe import probe
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
ROWS = ((DIGITS.data[:600] / 16).astype("float32"), DIGITS.target[:600])
TOKENS = torch.from_numpy(DIGITS.data[:320, :24]).long()

RECIPES = (OWN, Recipe(base="orthogonal"), Recipe(log2_gain=-1.0), Recipe(base="xavier_uniform"))


def mlp(*inner: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 24), nn.Tanh(), *inner, nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 10))


def steep() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))


def cnn() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(216, 10))


class Reader(nn.Module):
    """An LSTM over tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(17, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(tokens))[0][:, -1])


def momentum(parameters: Any) -> Optimizer:
    return SGD(parameters, lr=0.1, momentum=0.9)


def dampened(parameters: Any) -> Optimizer:
    return SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.01)


def cosine(parameters: Any) -> tuple[Optimizer, Any]:
    optimizer = AdamW(parameters, lr=0.01, weight_decay=0.1)
    return optimizer, CosineAnnealingLR(optimizer, 20)


def plateau(parameters: Any) -> tuple[Optimizer, Any]:
    optimizer = SGD(parameters, lr=0.3)
    return optimizer, ReduceLROnPlateau(optimizer, patience=1, factor=0.5)


def two_rates(parameters: Any) -> Optimizer:
    *body, head = list(parameters)
    return Adam([{"params": body, "lr": 1e-3}, {"params": [head], "lr": 1e-2}], amsgrad=True)


def clipping(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    return loss


def accumulating(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    half = len(x) // 2
    losses = [nn.functional.cross_entropy(model(x[part]), y[part]) / 2 for part in (slice(half), slice(half, None))]
    for loss in losses:
        loss.backward()
    return sum(losses)


@contextmanager
def bench_of(model: nn.Module, data: Any = ROWS, optimizer: Any = momentum, **rest: Any) -> Iterator[Bench]:
    task = make_task(model, data, optimizer=optimizer, **rest)
    graph = trace_task(task)
    with unchanged(model), task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def jobs(steps: int = 20, rungs: tuple[int, ...] = (3, 8), **rest: Any) -> list[Job]:
    return [
        Job(number, "search", Candidate(recipe, lr_step=number % 3 - 1), seed=5, steps=steps, rungs=rungs, **rest)
        for number, recipe in enumerate(RECIPES)
    ]


def outcomes(executor: Any, given: list[Job], stop_at: int = 99) -> list[Outcome]:
    found = list(executor.run(given, lambda job, curve: not (job.number == 1 and curve.steps >= stop_at)))
    executor.close()
    return found


ALIKE = {
    "an MLP with momentum": (mlp, {}),
    "dampening, which the first step leaves out": (mlp, {"optimizer": dampened}),
    "SGD without state": (mlp, {"optimizer": lambda p: SGD(p, lr=0.1)}),
    "AdamW with a schedule": (mlp, {"optimizer": cosine}),
    "Adam by default": (mlp, {"optimizer": None}),
    "two groups, amsgrad": (mlp, {"optimizer": two_rates}),
    "RMSprop": (mlp, {"optimizer": lambda p: RMSprop(p, lr=1e-3, momentum=0.5, centered=True)}),
    "Adagrad, which starts from a sum": (
        mlp,
        {"optimizer": lambda p: Adagrad(p, lr=0.05, initial_accumulator_value=0.1)},
    ),
    "Rprop, whose state starts from the rate": (mlp, {"optimizer": lambda p: torch.optim.Rprop(p, lr=1e-3)}),
    "ASGD": (mlp, {"optimizer": lambda p: torch.optim.ASGD(p, lr=1e-2)}),
    "NAdam": (mlp, {"optimizer": lambda p: torch.optim.NAdam(p, lr=1e-3)}),
    "RAdam": (mlp, {"optimizer": lambda p: torch.optim.RAdam(p, lr=1e-3)}),
    "Adamax": (mlp, {"optimizer": lambda p: torch.optim.Adamax(p, lr=1e-3)}),
    "Adadelta": (mlp, {"optimizer": lambda p: torch.optim.Adadelta(p, lr=1.0)}),
    "a plateau, which is told the loss": (mlp, {"optimizer": plateau}),
    "a momentum that changes later": (mlp, {"optimizer": late_momentum}),
    "BatchNorm": (cnn, {}),
    "dropout": (lambda: mlp(nn.Dropout(0.3)), {}),
    "an LSTM": (Reader, {"data": (TOKENS, DIGITS.target[:320]), "optimizer": lambda p: AdamW(p, lr=0.01)}),
    "a step that clips": (mlp, {"step": clipping}),
    "a step that accumulates": (lambda: mlp(nn.Dropout(0.3)), {"step": accumulating}),
    "weight normalization, whose draws lie elsewhere": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 24)), nn.Tanh(), nn.Linear(24, 10)),
        {},
    ),
    "autocast": (mlp, {"autocast": torch.bfloat16}),
    "a frozen layer": (lambda: frozen(mlp()), {}),
}


def frozen(model: Any) -> nn.Module:
    model[2].requires_grad_(False)
    return model


@pytest.mark.parametrize("name", ALIKE)
def test_replayed_trainings_are_plain_ones(name: str) -> None:
    make, given = ALIKE[name]
    torch.manual_seed(0)
    with bench_of(make(), **given) as bench:
        plain = [told(outcome) for outcome in outcomes(Sequential(bench), jobs(), stop_at=8)]
        capture = Again(bench.task.model)
        executor = Captured(bench, capture)
        assert [told(outcome) for outcome in outcomes(executor, jobs(), stop_at=8)] == plain
        assert executor.notes == []
        assert capture.recorded == 2
        steps = 3 * 20 + 8
        assert capture.replayed >= steps / 2  # most passes; the first step of each is the optimizer's own
        assert refusal(bench.task, Again(bench.task.model)) == ""


def test_the_weights_come_to_be_the_same() -> None:
    with bench_of(cnn(), optimizer=cosine) as bench:
        found = []
        recording = None
        for _ in range(2):
            bench.snapshot.rewind()
            stepper = {} if recording is None else {"stepper": recording.stepper}
            probe(bench.task, steps=12, seed=3, **stepper)
            found.append({name: value.clone() for name, value in bench.task.model.state_dict().items()})
            bench.snapshot.rewind()
            recording = Recording(bench.task, Again(bench.task.model))
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_losses_that_are_read_at_rungs_are_those_of_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes ahead: a replay must not write over a loss that nobody has read."""
    with bench_of(mlp()) as bench:
        plain = list(map(told, outcomes(Sequential(bench), jobs())))
        monkeypatch.setattr("autoinit.probing.probe.runs_ahead", lambda device: True)
        assert list(map(told, outcomes(Captured(bench, Again(bench.task.model)), jobs()))) == plain


def test_a_step_with_options_that_a_scheduler_has_changed_is_no_replay() -> None:
    with bench_of(mlp(), optimizer=late_momentum) as bench:
        recording = Recording(bench.task, Again(bench.task.model))
        for _ in range(2):
            bench.snapshot.rewind()
            recording.replays.clear()
            probe(bench.task, steps=12, seed=0, stepper=recording.stepper)
            assert recording.replays == {"pass": 12, "step": 5}


def ragged() -> list[tuple[Tensor, Tensor]]:
    """Returns batches of 32 rows, and one of 9 among them."""
    rows, labels = torch.from_numpy(ROWS[0]), torch.from_numpy(ROWS[1]).long()
    sizes = [32] * 6 + [9] + [32] * 6
    return list(zip(rows[: sum(sizes)].split(sizes), labels[: sum(sizes)].split(sizes), strict=True))


@pytest.mark.parametrize("optimizer", [momentum, cosine])
@pytest.mark.parametrize("order", [0, 5])
def test_a_smaller_batch_is_computed_plainly_and_replays_go_on_from_there(optimizer: Any, order: int) -> None:
    with bench_of(mlp(nn.Dropout(0.2)), ragged(), optimizer, val_data=ragged()[:1]) as bench:
        assert len({len(x) for x, _ in bench.task.train}) == 2
        given = [Job(0, "search", Candidate(OWN), seed=order, steps=30, rungs=(4,))]
        plain = outcomes(Sequential(bench), given)
        capture = Again(bench.task.model)
        assert list(map(told, outcomes(Captured(bench, capture), given))) == list(map(told, plain))
        smaller = sum(len(x) == 9 for x, _ in bench.task.order(order, 30))
        assert smaller >= 2
        assert capture.replayed < 60 - 2 * smaller + 1  # neither part of such a step is a replay


def test_a_training_that_begins_with_a_smaller_batch_is_plain_too() -> None:
    with bench_of(mlp(), ragged(), cosine, val_data=ragged()[:1]) as bench:
        first = next(seed for seed in range(99) if len(next(bench.task.order(seed, 1))[0]) == 9)
        given = [Job(0, "search", Candidate(OWN), seed=first, steps=9)]
        assert told(outcomes(Captured(bench, Again(bench.task.model)), given)[0]) == told(
            outcomes(Sequential(bench), given)[0]
        )


def test_one_that_diverges_leaves_the_next_as_they_are() -> None:
    with bench_of(steep()) as bench:
        huge = Job(0, "search", Candidate(Recipe(log2_gain=30.0)), seed=5, steps=12)
        given = [huge, *jobs()[1:]]
        plain = outcomes(Sequential(bench), given)
        assert plain[0].curve is not None
        assert plain[0].curve.diverged_at is not None
        assert list(map(told, outcomes(Captured(bench, Again(bench.task.model)), given))) == list(map(told, plain))


def test_a_job_that_fails_ends_alone() -> None:
    with bench_of(mlp()) as bench:
        executor = Captured(bench, Again(bench.task.model))

        def ask(job: Job, curve: Curve) -> bool:
            if job.number == 1:
                raise ValueError("no such rung")
            return True

        found = list(executor.run(jobs(), ask))
        assert [outcome.curve is None for outcome in found] == [False, True, False, False]
        assert "no such rung" in found[1].reason
        plain = outcomes(Sequential(bench), jobs())
        assert [told(found[place]) for place in (0, 2, 3)] == [told(plain[place]) for place in (0, 2, 3)]


def test_its_pace_is_that_of_replays() -> None:
    with bench_of(mlp()) as bench:
        capture = Again(bench.task.model)
        executor = Captured(bench, capture)
        assert executor.pace(5) > 0
        assert capture.replayed == 1 + 5 + 4  # passes, one of which warms up, and all steps but each first
        executor.close()


def test_replays_that_fail_have_no_pace() -> None:
    class Breaking(Again):
        def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
            made, _ = super().record(work)
            return made, self.refuse

        def refuse(self) -> None:
            raise torch.OutOfMemoryError("no room for it")

    with bench_of(mlp()) as bench:
        executor = Captured(bench, Breaking(bench.task.model))
        assert executor.pace(5) == 0
        assert executor.notes == ["replays failed (OutOfMemoryError: no room for it)"]


def test_a_selection_with_replays_is_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def trials(executor: Any) -> str:
        model = mlp(nn.Dropout(0.1))
        monkeypatch.setattr(capturing, "again", Again(model), raising=False)
        with unchanged(model):
            given = {"recipes": ["he_normal", "orthogonal"], "budget": Budget(steps=900), "apply": False}
            selection = autoinit.select(model, ROWS, optimizer=cosine, executor=executor, **given)
        search = selection.trials[selection.trials.stage == "search"]
        return search[["name", "last_loss", "score"]].to_csv()

    plain = trials("sequential")
    monkeypatch.setattr("autoinit.executors.captured.why_not", lambda bench: "")
    monkeypatch.setattr("autoinit.executors.captured.CudaCapture", lambda device: capturing.again)
    assert trials("captured") == plain


# --- what is refused ----------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Scales by a number that it counts up itself."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.01 * self.calls)


class Remembering(nn.Module):
    """Keeps what it saw as a plain attribute."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach().mean()
        return x


class Replacing(nn.Module):
    """Puts another tensor in the place of its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class Caching(nn.Module):
    """Makes a table at its first pass, which is no change from step to step."""

    table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.9, 1.1, x.shape[-1])
        return x * self.table


class Jittering(nn.Module):
    """Draws from a generator of the host's own."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.01 * self.draw())


class Own(Optimizer):
    """Plain descent by an optimizer that torch does not know."""

    def __init__(self, params: Any, lr: float = 0.1, capturable: bool | None = None) -> None:
        super().__init__(params, {"lr": lr, **({} if capturable is None else {"capturable": capturable})})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight -= group["lr"] * weight.grad
                    self.keep(self.state[weight], weight)

    def keep(self, state: Any, weight: Tensor) -> None:
        pass


class HostCount(Own):
    def keep(self, state: Any, weight: Tensor) -> None:
        state["count"] = state.get("count", 0) + 1


class NewState(Own):
    def keep(self, state: Any, weight: Tensor) -> None:
        state["last"] = weight.grad.clone()


def one_cycle(parameters: Any) -> tuple[Optimizer, Any]:
    optimizer = SGD(parameters, lr=0.1, momentum=0.9)
    return optimizer, OneCycleLR(optimizer, 0.1, total_steps=30)


def many_shapes() -> list[tuple[Tensor, Tensor]]:
    rows, labels = torch.from_numpy(ROWS[0]), torch.from_numpy(ROWS[1]).long()
    sizes = list(range(20, 30))
    return list(zip(rows[: sum(sizes)].split(sizes), labels[: sum(sizes)].split(sizes), strict=True))


REFUSED = {
    "a counter": (lambda: mlp(Counting()), {}, r"its attribute 2\.calls changes from step to step"),
    "an attribute": (lambda: mlp(Remembering()), {}, r"its attribute 2\.seen changes from step to step"),
    "a buffer put elsewhere": (lambda: mlp(Replacing()), {}, r"the step replaces 2\.mean instead of writing into it"),
    "numpy's generator": (lambda: mlp(Jittering(np.random.rand)), {}, "draws random numbers on the host"),
    "Python's generator": (lambda: mlp(Jittering(random.random)), {}, "draws random numbers on the host"),
    "an unknown optimizer": (mlp, {"optimizer": Own}, "Own has no capturable form"),
    "a count on the host": (
        mlp,
        {"optimizer": lambda p: HostCount(p, capturable=True)},
        "HostCount keeps its 'count' on the host",
    ),
    "state made anew": (
        mlp,
        {"optimizer": lambda p: NewState(p, capturable=True)},
        "NewState makes its 'last' anew at each step",
    ),
    "a scheduler of momentum": (mlp, {"optimizer": one_cycle}, "its scheduler sets more than learning rates"),
    "many shapes": (mlp, {"data": many_shapes(), "val_data": ragged()[:1]}, "its batches are of 10 shapes"),
    "float16": (mlp, {"autocast": torch.float16}, "in float16 the loss scale is set on the host"),
    "a start that diverges": (
        steep,
        {"optimizer": lambda p: SGD(p, lr=1e30)},
        "the loss of its own weights is not finite within 3 steps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_replay_cannot_do_is_refused_in_words(name: str) -> None:
    make, given, said = REFUSED[name]
    torch.manual_seed(0)
    with bench_of(make(), **given) as bench:
        assert re.search(said, refusal(bench.task, Again(bench.task.model)))


def test_what_is_made_once_is_no_change_from_step_to_step() -> None:
    with bench_of(mlp(Caching())) as bench:
        assert refusal(bench.task, Again(bench.task.model)) == ""


def test_an_optimizer_of_ones_own_that_says_it_is_capturable_is_recorded() -> None:
    with bench_of(mlp(), optimizer=lambda p: Own(p, capturable=True)) as bench:
        assert refusal(bench.task, Again(bench.task.model)) == ""


@pytest.mark.parametrize(("part", "said"), [(0, "loss is .* in a replay, .* without"), (1, "in a replay")])
def test_a_replay_that_leaves_something_out_is_refused(part: int, said: str) -> None:
    with bench_of(mlp()) as bench:
        assert re.search(said, refusal(bench.task, Deaf(bench.task.model, part)))


def test_a_rate_that_was_recorded_along_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate has the rate of the recording, the second another."""
    monkeypatch.setattr("autoinit.executors.lasting.Lasting.follow", lambda self, own: None)
    with bench_of(mlp(), optimizer=lambda p: SGD(p, lr=1e-4)) as bench:
        assert "comes to be another in a replay than without" in refusal(bench.task, Again(bench.task.model))


@pytest.mark.parametrize(
    ("problem", "strict", "said"),
    [
        ("called a synchronizing CUDA operation", True, "the step asks for a tensor's value"),
        (WAITED, None, "the step asks for a tensor's value"),
        ("Cannot call CUDAGeneratorImpl::current_seed during CUDA graph capture.", None, "preserve_rng_state is True"),
        ("cuDNN error: no such algorithm", None, "the step cannot be recorded (RuntimeError: cuDNN error: no such"),
    ],
)
def test_a_device_that_cannot_record_is_told_of_in_words(problem: str, strict: bool | None, said: str) -> None:
    with bench_of(mlp()) as bench:
        assert said in refusal(bench.task, Failing(bench.task.model, problem, strict))
        executor = Captured(bench, Failing(bench.task.model, problem, strict))
        assert list(map(told, outcomes(executor, jobs()))) == list(map(told, outcomes(Sequential(bench), jobs())))
        assert len(executor.notes) == 1
        assert said in executor.notes[0]
        assert Captured(bench, Failing(bench.task.model, problem, strict)).pace(3) == 0


def test_an_error_that_is_being_handled_around_it_is_no_reason() -> None:
    with bench_of(mlp()) as bench:
        try:
            raise KeyError("called a synchronizing CUDA operation")
        except KeyError:
            assert "cuDNN error" in refusal(bench.task, Failing(bench.task.model, "cuDNN error"))


def test_a_device_that_is_lost_ends_with_what_to_do() -> None:
    with bench_of(mlp()) as bench:
        capture = Failing(bench.task.model, WAITED)
        capture.recovers = False
        with pytest.raises(DeviceError, match='Restart the process, and pass executor="sequential"'):
            refusal(bench.task, capture)
        with pytest.raises(DeviceError, match="illegal memory access"):
            list(Captured(bench, capture).run(jobs(), lambda job, curve: True))


def test_it_needs_a_cuda_device() -> None:
    with bench_of(mlp()) as bench:
        assert why_not(bench) == "CUDA graphs need a CUDA device"


# --- the form of an optimizer -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SGD, Adagrad, Adam, AdamW, RMSprop, torch.optim.NAdam])
def test_on_a_device_an_optimizer_computes_its_step_there_alone(kind: Any) -> None:
    optimizer = kind(mlp().parameters(), lr=0.1)
    use_recordable_form(optimizer, torch.device("meta"))  # stands for any that is no CPU
    fused = kind in (SGD, Adagrad, Adam, AdamW)
    for group in optimizer.param_groups:
        assert group.get("fused", fused) == fused
        assert group["foreach"] != fused
        assert group.get("capturable", True)
    assert all(value.device.type == "meta" for state in optimizer.state.values() for value in state.values())


def test_on_a_cpu_it_stays_as_it_is() -> None:
    optimizer = Adam(mlp().parameters(), lr=0.1)
    before = [dict(group) for group in optimizer.param_groups]
    use_recordable_form(optimizer, torch.device("cpu"))
    assert [dict(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize(
    ("kind", "known"),
    [(SGD, True), (Adagrad, True), (AdamW, True), (RMSprop, True), (torch.optim.Adafactor, False), (Own, False)],
)
def test_which_optimizers_have_such_a_form(kind: Any, known: bool) -> None:
    assert (why_not_lasting(kind(mlp().parameters(), lr=0.1)) == "") == known


def test_one_without_a_learning_rate_has_none() -> None:
    class Bare(SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params)
            for group in self.param_groups:
                del group["lr"]

    assert "has no learning rate" in why_not_lasting(Bare(mlp().parameters()))


# --- batches ------------------------------------------------------------------------------------------------


def test_batches_are_alike_where_a_step_sees_no_difference_but_values() -> None:
    x = torch.zeros(4, 2)
    assert frame((x, 1)) == frame((torch.ones(4, 2), 1))
    for other in ((x, 2), (x.double(), 1), (x[:2], 1), [x, 1], (x, True), (x, None), {"x": x}, (x, 1, 1)):
        assert frame((x, 1)) != frame(other)
    shared = object()
    assert frame((x, shared)) == frame((x, shared)) != frame((x, object()))


def task_of(batches: list[Any]) -> Task:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"]).square().mean() * batch["scale"]

    return make_task(nn.Linear(3, 2), batches, step=step, optimizer=momentum, val_data=batches[:1])


def test_a_number_in_a_batch_is_a_part_of_its_shape() -> None:
    batches = [{"x": torch.randn(4, 3), "scale": 1.0 if place % 3 else 2.0} for place in range(9)]
    task = task_of(batches)
    with task.preserved() as snapshot:
        plain = probe(task, steps=18, seed=0).losses
        snapshot.rewind()
        recording = Recording(task, Again(task.model))
        snapshot.rewind()
        assert probe(task, steps=18, seed=0, stepper=recording.stepper).losses == plain
        assert recording.replays["pass"] == 12
