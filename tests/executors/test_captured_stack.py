"""A stack whose step is recorded gives what a plain stack gives, and each thing that it cannot do is refused in words.

A double stands for the device (see `replays`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from helpers import unchanged
from pandas.testing import assert_frame_equal
from replays import WAITED, Again, Deaf, Failing, late_momentum, told
from stacking import (
    IMAGES,
    OPTIMIZERS,
    RECIPES,
    ROWS,
    LanguageModel,
    Mixed,
    Reader,
    Residual,
    TrainedOnly,
    adam,
    assert_alike,
    benched,
    cnn,
    fail_to_draw,
    going_on,
    gpt2,
    jobs_of,
    language_batches,
    mlp,
    momentum,
    one_cycle,
    own_step,
    stopping,
    two_groups,
)
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._pytree import tree_leaves

import autoinit
from autoinit.errors import DeviceError
from autoinit.executors import capturable, captured_stack, choice
from autoinit.executors.capturable_stack import refusal, why_not
from autoinit.executors.captured_stack import CapturedStack
from autoinit.executors.choice import Choice
from autoinit.executors.lasting import Lasting
from autoinit.executors.recorded_stack import RecordedStack, ReplayedStack
from autoinit.executors.sequential import Sequential
from autoinit.executors.stacked import Stacked
from autoinit.judging.budget import Budget
from autoinit.judging.score import Reference
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.stacks import lockstep as lockstepping
from autoinit.stacks.elementwise import ELEMENTWISE, Shares
from autoinit.stacks.stack import Stack, moving_buffers


def cosine(parameters: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1)
    return optimizer, CosineAnnealingLR(optimizer, 6, eta_min=1e-3)


def outcomes(executor: Any, jobs: list[Job], on_rung: Any = going_on) -> list[Outcome]:
    found = list(executor.run(jobs, on_rung))
    assert executor.notes == []
    executor.close()
    return found


def numbered(first: int, count: int, **rest: Any) -> list[Job]:
    """Returns jobs whose numbers begin there."""
    jobs = jobs_of(RECIPES[:count], **rest)
    return [dataclasses.replace(job, number=first + job.number) for job in jobs]


def assert_same(bench: Bench, concurrency: int, jobs: list[Job], *stops: tuple[int, int]) -> Again:
    """Asserts that a captured stack asks what a plain one asks, and gives the same to the bit; returns the double."""
    asked, on_rung = stopping(*stops)
    plain = outcomes(Stacked(bench, concurrency), jobs, on_rung)
    capture = Again(bench.task.model)
    asked_too, on_rung = stopping(*stops)
    found = outcomes(CapturedStack(bench, concurrency, capture), jobs, on_rung)
    assert asked_too == asked
    assert list(map(told, found)) == list(map(told, plain))
    return capture


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, dict[str, Any]]] = {
    "an MLP, SGD with momentum": (mlp, ROWS, momentum, {}),
    "an MLP, SGD without state": (mlp, ROWS, lambda p: SGD(p, lr=0.1), {}),
    "an MLP, AdamW with a schedule": (mlp, ROWS, cosine, {}),
    "an MLP, bfloat16": (mlp, ROWS, adam, {"autocast": torch.bfloat16}),
    "an MLP, a step": (mlp, ROWS, adam, {"step": own_step}),
    "a CNN with BatchNorm, AdamW in two groups": (cnn, IMAGES, two_groups, {}),
    "a CNN with BatchNorm, SGD": (cnn, IMAGES, momentum, {}),
    "LayerNorm residuals, tied weights, Adam": (Residual, ROWS, adam, {}),
    "a Transformer with dropout, AdamW with a schedule": (Reader, ROWS, cosine, {}),
    "a language model with dropout, tied": (LanguageModel, language_batches(labels=False), adam, {}),
    "GPT-2, dicts as batches": (gpt2, language_batches(labels=True), two_groups, {}),
    "evaluated in training mode": (TrainedOnly, ROWS, momentum, {}),
    "frozen, parametrized, unused and replaced": (Mixed, ROWS, momentum, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_captured_stack_gives_the_bits_of_a_plain_one(case: str) -> None:
    """Of four candidates two are dropped, and then one; a second group meets the places as the first has left them."""
    make, data, optimizer, rest = CASES[case]
    with benched(make, data, optimizer, **rest) as bench:
        assert refusal(bench.task, Again(bench.task.model)) == ""
        jobs = [*numbered(0, 4), *numbered(4, 4, lr_steps=(1, 0, -1, 0), seed=4)]
        capture = assert_same(bench, 4, jobs, (1, 3), (3, 3), (0, 6), (6, 3), (4, 3), (5, 6))
        assert capture.recorded == 3 * 3  # a pass, a step and one by shares, of four, of two and of one
        assert capture.replayed == 2 * (8 + 7)  # all but the first steps of both groups


@pytest.mark.parametrize("name", [kind.__name__ for kind in ELEMENTWISE])
def test_every_optimizer_of_the_table_at_several_learning_rates(name: str) -> None:
    with benched(mlp, ROWS, OPTIMIZERS[name]) as bench:
        assert refusal(bench.task, Again(bench.task.model)) == ""
        assert_same(bench, 4, numbered(0, 4, lr_steps=(0, 1, -1, 1), steps=12), (0, 3), (2, 3), (3, 6))


@pytest.mark.parametrize(("make", "data"), [(mlp, ROWS), (Reader, ROWS), (cnn, IMAGES)])
def test_places_that_are_left_over_change_nothing(make: Callable[[], nn.Module], data: Any) -> None:
    """Convolutions of more groups round otherwise."""
    with benched(make, data, cosine) as bench:
        jobs = jobs_of(lr_steps=(0, 1, 0, 0, -1))
        _, on_rung = stopping((1, 3), (3, 6))
        found = outcomes(CapturedStack(bench, 8, Again(bench.task.model)), jobs, on_rung)
        assert_alike(found, outcomes(Stacked(bench, 8), jobs, stopping((1, 3), (3, 6))[1]), rel=1e-9)


@pytest.mark.parametrize(("optimizer", "groups"), [(cosine, 2), (lambda p: torch.optim.Rprop(p, lr=1e-3), 4)])
def test_groups_of_several_orders_take_turns_in_the_same_places(optimizer: Any, groups: int) -> None:
    """Pairs of a gate have an order each, and go from rung to rung together; Rprop's also a stack for each rate."""
    with benched(batch_normed, ROWS, optimizer) as bench:
        jobs = [
            Job(number, "gate", Candidate(RECIPES[number % 2], lr_step=number // 4), seed, 9, (3, 6))
            for number, seed in enumerate((1, 1, 2, 2, 1, 1, 2, 2))
        ]
        capture = assert_same(bench, 8, jobs, (3, 3), (4, 6))
        assert capture.replayed == groups * (9 + 8)


def ragged() -> list[tuple[Tensor, Tensor]]:
    """Returns batches of 32 rows, and one of 9 among them."""
    rows, labels = torch.from_numpy(ROWS[0]).double(), torch.from_numpy(ROWS[1]).long()
    sizes = [32] * 6 + [9] + [32] * 6
    return list(zip(rows[: sum(sizes)].split(sizes), labels[: sum(sizes)].split(sizes), strict=True))


@pytest.mark.parametrize("optimizer", [momentum, cosine])
def test_a_smaller_batch_is_computed_plainly_and_replays_go_on_from_there(optimizer: Any) -> None:
    with benched(batch_normed, ragged(), optimizer, val_data=ragged()[:1]) as bench:
        assert refusal(bench.task, Again(bench.task.model)) == ""
        jobs = numbered(0, 2, lr_steps=(0, 1), steps=30)
        smaller = sum(len(x) == 9 for x, _ in bench.task.order(jobs[0].seed, 30))
        assert smaller >= 2
        assert assert_same(bench, 2, jobs).replayed == 30 + 29 - 2 * smaller


def test_a_training_that_begins_with_a_smaller_batch_is_the_same_too() -> None:
    with benched(batch_normed, ragged(), cosine, val_data=ragged()[:1]) as bench:
        first = next(seed for seed in range(99) if len(next(bench.task.order(seed, 1))[0]) == 9)
        assert_same(bench, 2, numbered(0, 2, seed=first))


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 10))


@pytest.mark.parametrize("lr_steps", [(0, 0), (0, 1)])
def test_a_step_with_options_that_a_scheduler_has_changed_is_no_replay(lr_steps: tuple[int, int]) -> None:
    with benched(mlp, ROWS, late_momentum) as bench:
        capture = assert_same(bench, 2, numbered(0, 2, lr_steps=lr_steps, steps=12))
        assert capture.replayed == 12 + 5


def test_losses_that_are_read_at_rungs_are_those_of_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes ahead: a replay must not write over losses that nobody has read."""
    with benched(mlp, ROWS) as bench:
        plain = outcomes(Stacked(bench, 4), numbered(0, 4))
        monkeypatch.setattr(lockstepping, "runs_ahead", lambda device: True)
        found = outcomes(CapturedStack(bench, 4, Again(bench.task.model)), numbered(0, 4))
        assert list(map(told, found)) == list(map(told, plain))


def test_vetoes_divergences_and_failures_are_those_of_a_plain_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_draw(monkeypatch, 3)
    quadratic = {"loss": lambda output, target: output.square().mean()}
    with benched(mlp, ROWS, lambda p: SGD(p, lr=0.1), **quadratic) as bench:
        dead, wild = Candidate(Recipe(base="zeros")), Candidate(Recipe(log2_gain=5.0), 500)
        rest = {"seed": 3, "steps": 12, "rungs": (3, 6), "reference": Reference(0.1)}
        candidates = (Candidate(OWN), dead, wild, Candidate(OWN), Candidate(RECIPES[1]))
        jobs = [Job(number, "search", candidate, **rest) for number, candidate in enumerate(candidates)]
        plain = outcomes(Stacked(bench, 5), jobs)
        assert [bool(outcome.reason) for outcome in plain] == [False, True, True, True, False]
        assert_alike(outcomes(CapturedStack(bench, 5, Again(bench.task.model)), jobs), plain, rel=1e-12)


def test_one_job_alone_is_replayed() -> None:
    with benched(mlp, ROWS) as bench:
        capture = Again(bench.task.model)
        found = outcomes(CapturedStack(bench, 8, capture), numbered(0, 1))
        assert_alike(found, outcomes(Sequential(bench), numbered(0, 1)))
        assert (capture.recorded, capture.replayed) == (3, 8 + 7)


@pytest.mark.parametrize("make", [Mixed, TrainedOnly, batch_normed])
def test_all_that_a_graph_reads_stays_where_it_is(make: Callable[[], nn.Module]) -> None:
    """Also after evaluations, in training mode too, and after batches of another shape."""
    with benched(make, ragged(), cosine, val_data=ragged()[:1]) as bench:
        task, moving = bench.task, moving_buffers(bench.task)
        recorded = RecordedStack(task, 2, moving, Again(task.model))
        places = tensors_of(recorded)
        stack = ReplayedStack(task, 2, moving, recorded, lambda count: recorded)
        stack.add()
        stack.add()
        stack.start([1.0, 0.5])
        for batch in task.train:
            stack.backward(batch)
            stack.step()
            stack.evaluate(task.probe_eval)
        stack.keep([1])
        stack.backward(task.train[0])
        stack.step()
        assert tensors_of(recorded) == places
        assert len(places) > 8


def tensors_of(recorded: RecordedStack) -> list[int]:
    """Returns where the weights, buffers, state, rates, shares and inputs of a recorded stack lie."""
    home, optimizer = recorded.home, recorded.lasting.optimizer
    state = [tree_leaves(optimizer.state[leaf]) for leaf in home.leaves.values()]
    rates = [group["lr"] for group in optimizer.param_groups]
    shares = [list(group.values()) for group in recorded._shares._tensors]
    found = [[*home.leaves.values(), *home.buffers.values()], state, rates, shares, tree_leaves(recorded.inputs.batch)]
    return [tensor.data_ptr() for tensor in tree_leaves(found)]


def test_its_pace_is_of_all_candidates() -> None:
    with benched(mlp, ROWS) as bench, unchanged(bench.task.model):
        capture = Again(bench.task.model)
        executor = CapturedStack(bench, 4, capture)
        assert executor.pace(5) > 0
        assert (capture.recorded, capture.replayed) == (3, 6 + 5)
        executor.close()


@pytest.mark.parametrize("make", [cnn, Reader])
def test_model_and_random_states_are_left_alone(make: Callable[[], nn.Module]) -> None:
    data = IMAGES if make is cnn else ROWS
    with benched(make, data) as bench, unchanged(bench.task.model):
        assert refusal(bench.task, Again(bench.task.model)) == ""
        executor = CapturedStack(bench, 4, Again(bench.task.model))
        assert len(list(executor.run(jobs_of()[:4], stopping((1, 3))[1]))) == 4
        executor.close()


def test_an_interruption_comes_through_and_the_model_is_put_back() -> None:
    def press(job: Job, curve: Any) -> bool:
        raise KeyboardInterrupt

    with benched(mlp, ROWS) as bench, unchanged(bench.task.model), pytest.raises(KeyboardInterrupt):
        list(CapturedStack(bench, 4, Again(bench.task.model)).run(jobs_of(), press))


# What is refused, and what fails


class Jittering(nn.Module):
    """Draws from a generator of the host's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + 0.01 * np.random.rand())


class Counted(SGD):
    """Keeps a count on the host."""

    def step(self, closure: Any = None) -> Any:
        for leaf in self.param_groups[0]["params"]:
            self.state[leaf]["count"] = self.state[leaf].get("count", 0) + 1
        return super().step(closure)


def many_shapes() -> list[tuple[Tensor, Tensor]]:
    rows, labels = torch.from_numpy(ROWS[0]).double(), torch.from_numpy(ROWS[1]).long()
    sizes = list(range(20, 30))
    return list(zip(rows[: sum(sizes)].split(sizes), labels[: sum(sizes)].split(sizes), strict=True))


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, Any, dict[str, Any], str]] = {
    "numpy's generator": (Jittering, ROWS, momentum, {}, "draws random numbers on the host"),
    "a scheduler of momentum": (mlp, ROWS, one_cycle, {}, "its scheduler sets more than learning rates"),
    "many shapes": (mlp, many_shapes(), momentum, {"val_data": ragged()[:1]}, "its batches are of 10 shapes"),
    "float16": (mlp, ROWS, momentum, {"autocast": torch.float16}, "in float16 the loss scale is set on the host"),
    "a start that diverges": (
        lambda: nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)),
        ROWS,
        lambda p: SGD(p, lr=1e200),
        {},
        "the loss of its own weights is not finite within 3 steps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_replay_cannot_do_is_refused_in_words(case: str) -> None:
    make, data, optimizer, rest, said = REFUSED[case]
    with benched(make, data, optimizer, **rest) as bench, unchanged(bench.task.model):
        assert said in refusal(bench.task, Again(bench.task.model))


def test_state_on_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ELEMENTWISE, Counted, True)
    monkeypatch.setattr("autoinit.executors.lasting._FUSED", (Counted,))
    with benched(mlp, ROWS, lambda p: Counted(p, lr=0.1)) as bench:
        assert "Counted keeps its 'count' on the host" in refusal(bench.task, Again(bench.task.model))


PASS, STEP, SHARES = range(3)


@pytest.mark.parametrize("part", [PASS, STEP, SHARES])
def test_a_replay_that_leaves_something_out_is_refused(part: int) -> None:
    """The first group is moved by shares, the second at one rate: both parts are tried."""
    with benched(mlp, ROWS) as bench:
        said = refusal(bench.task, Deaf(bench.task.model, part))
        assert re.search("in a replayed stack", said)


class Stuck(Shares):
    """Shares as they were when a step was recorded."""

    def set(self, numbers: Any) -> None:
        pass


@pytest.mark.parametrize("name", ["rates", "shares"])
def test_a_rate_that_was_recorded_along_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with benched(mlp, ROWS, lambda p: SGD(p, lr=1e-7)) as bench:
        if name == "rates":
            monkeypatch.setattr(Lasting, "follow", lambda self, given: None)
        else:
            monkeypatch.setattr("autoinit.executors.recorded_stack.Shares", Stuck)
        said = "comes to be another in a replayed stack than in a plain one"
        assert said in refusal(bench.task, Again(bench.task.model))


def test_it_is_compared_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        said.append("begin")
        yield
        said.append("end")

    class Noting(Again):
        def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
            said.append("record")
            return super().record(work)

    monkeypatch.setattr(capturable, "rounding_alike", noted)
    with benched(mlp, ROWS) as bench:
        assert refusal(bench.task, Noting(bench.task.model)) == ""
    assert said == ["begin", *["record"] * 3, "end"]


def test_it_needs_a_cuda_device() -> None:
    with benched(mlp, ROWS) as bench:
        assert why_not(bench) == "CUDA graphs need a CUDA device"


@pytest.mark.parametrize(
    ("problem", "strict", "said"),
    [
        ("called a synchronizing CUDA operation", True, "the step asks for a tensor's value"),
        (WAITED, None, "the step asks for a tensor's value"),
        ("cuDNN error: no such algorithm", None, "the step cannot be recorded (RuntimeError: cuDNN error: no such"),
    ],
)
def test_where_nothing_can_be_recorded_stacks_are_plain(problem: str, strict: bool | None, said: str) -> None:
    with benched(mlp, ROWS) as bench, unchanged(bench.task.model):
        assert said in refusal(bench.task, Failing(bench.task.model, problem, strict))
        executor = CapturedStack(bench, 4, Failing(bench.task.model, problem, strict))
        found = list(executor.run(numbered(0, 4), going_on))
        assert list(map(told, found)) == list(map(told, outcomes(Stacked(bench, 4), numbered(0, 4))))
        (note,) = executor.notes
        assert note.startswith(f"no step of 4 stacked could be recorded ({said}")
        assert executor.concurrency == 4
        assert CapturedStack(bench, 4, Failing(bench.task.model, problem, strict)).pace(3) == 0


class Full(Again):
    """Has no room for more than some recordings, and breaks at some replay."""

    def __init__(self, model: nn.Module, recordings: int = 99, replays: int = 9999) -> None:
        super().__init__(model)
        self._recordings, self._replays = recordings, replays

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        if self.recorded >= self._recordings:
            raise torch.OutOfMemoryError("no room for it")
        made, replay = super().record(work)

        def breaking() -> None:
            if self.replayed >= self._replays:
                raise torch.OutOfMemoryError("no room for it now")
            replay()

        return made, breaking


def test_where_a_smaller_stack_cannot_be_recorded_the_places_of_a_larger_one_are_used() -> None:
    with benched(mlp, ROWS) as bench:
        _, on_rung = stopping((1, 3), (3, 3), (0, 6))
        executor = CapturedStack(bench, 4, Full(bench.task.model, recordings=3))
        found = list(executor.run(numbered(0, 4), on_rung))
        assert executor.notes == [
            "no step of 2 stacked could be recorded (the step cannot be recorded (OutOfMemoryError: no room for it))"
        ]
        assert_alike(found, outcomes(Stacked(bench, 4), numbered(0, 4), stopping((1, 3), (3, 3), (0, 6))[1]), rel=1e-12)


def test_where_a_replay_fails_stacks_are_plain_from_there() -> None:
    with benched(mlp, ROWS) as bench, unchanged(bench.task.model):
        asked, on_rung = stopping((1, 3))
        executor = CapturedStack(bench, 4, Full(bench.task.model, replays=9))
        found = list(executor.run(numbered(0, 4), on_rung))
        assert executor.notes == [
            "replays of stacks failed (OutOfMemoryError: no room for it now): plain ones from there"
        ]
        assert executor.concurrency == 4
        assert len(asked) == len(set(asked)) == 10
        assert_alike(found, outcomes(Stacked(bench, 4), numbered(0, 4), stopping((1, 3))[1]), rel=0.0)
        replays = CapturedStack(bench, 4, Full(bench.task.model, replays=9))
        assert replays.pace(9) == 0
        assert "replays of stacks failed" in replays.notes[0]


def test_where_plain_stacks_fail_too_single_steps_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stack: Stack, batches: Any) -> list[list[float]]:
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr(Stack, "evaluate", broken)
    with benched(mlp, ROWS) as bench:
        plain = list(map(told, outcomes(Sequential(bench), numbered(0, 4))))
        capture = Again(bench.task.model)
        executor = CapturedStack(bench, 4, capture)
        assert list(map(told, executor.run(numbered(0, 4), going_on))) == plain
        executor.close()
        assert executor.notes == [
            "replays of stacks failed (RuntimeError: no rule for this operation): plain ones from there",
            "4 candidates at a time failed (RuntimeError: no rule for this operation): 1 from there",
            "their steps are replayed",
        ]
        assert capture.recorded == 3 + 2 + 2  # a stack's, one to compare, and what is replayed
        monkeypatch.setattr(captured_stack, "single_refusal", lambda task, capture: "its step draws on the host")
        capture = Again(bench.task.model)
        executor = CapturedStack(bench, 4, capture)
        assert list(map(told, executor.run(numbered(0, 4), going_on))) == plain
        assert executor.notes[2:] == ["not captured either: its step draws on the host"]
        assert capture.recorded == 3


def test_a_device_that_is_lost_ends_with_what_to_do() -> None:
    with benched(mlp, ROWS) as bench:
        for capture in (Failing(bench.task.model, WAITED), Full(bench.task.model, replays=3)):
            capture.recovers = False
            with pytest.raises(DeviceError, match='Restart the process, and pass executor="sequential"'):
                list(CapturedStack(bench, 4, capture).run(jobs_of(), going_on))
        capture = Failing(bench.task.model, WAITED)
        capture.recovers = False
        with pytest.raises(DeviceError, match="illegal memory access"):
            refusal(bench.task, capture)


@pytest.mark.slow
def test_a_selection_with_captured_stacks_is_one_with_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stages too, and what is said of it."""

    def selected() -> tuple[Any, str]:
        torch.manual_seed(0)
        given = {"recipes": ["he_normal", "orthogonal"], "budget": Budget(steps=1500), "apply": False}
        with unchanged(model := mlp().double()):
            selection = autoinit.select(model, ROWS, optimizer=adam, executor="stacked", **given)
        return selection.trials.drop(columns="seconds"), selection.cost.executor

    def replayed(bench: Bench, sizes: list[int], *rest: Any) -> Iterator[Choice]:
        yield Choice(CapturedStack(bench, sizes[0], Again(bench.task.model)), 1, f"{sizes[0]} stacked and replayed")

    expected, said = selected()
    assert said == "8 stacked, as asked for"
    monkeypatch.setattr(choice, "_replayed_stacks", replayed)
    trials, said = selected()
    assert said == "8 stacked and replayed, as asked for"
    assert {"search", "gate"} <= {*trials.stage}
    assert_frame_equal(trials, expected, rtol=1e-6)


@pytest.mark.parametrize(("pace", "sizes"), [(8 / 0.003, [8, 2]), (8 / 0.005, [8, 4, 2, 1])])
def test_of_a_quick_stack_every_other_size_is_recorded(
    pace: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of few candidates take no less time there than those of many, and a recording does."""
    monkeypatch.setattr(Stacked, "pace", lambda self, steps: pace)
    with benched(mlp, ROWS) as bench:
        executor = CapturedStack(bench, 8, Again(bench.task.model))
        assert executor.pace(3) == pace
        for count in (4, 2, 1):
            executor._recorded(count)
        assert sorted(executor._recordings, reverse=True) == sizes
        executor.close()
