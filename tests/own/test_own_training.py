"""A training that its owner wrote: what it has to be, what it may do, and what it says where it is something else."""

from __future__ import annotations

import collections
import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import ArgumentError, StepError
from autoinit.own.task import own_task
from autoinit.own.training import HeldBack, OwnTraining, check_beside_data, check_beside_train
from autoinit.task.task import Task
from autoinit.tracing.tracing import trace_task

PIXELS, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
X, Y = (PIXELS / 16).float()[:640], LABELS[:640]
BATCHES = list(zip(X.split(64), Y.split(64), strict=True))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def descent(model: nn.Module, seed: int) -> Iterator[Tensor]:
    """Plain supervised training, written by hand."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    while True:
        for place in torch.randperm(len(BATCHES), generator=generator).tolist():
            optimizer.zero_grad()
            loss = loss_of(model, BATCHES[place])
            loss.backward()
            optimizer.step()
            yield loss.detach()


class Agent(nn.Module):
    """A policy for CartPole with a value beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.value = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def touched(model: Agent) -> Tensor:
    states = torch.linspace(-1, 1, 32).reshape(8, 4)
    return model.policy(states).square().mean() + model.value(states).square().mean()


def reinforce(model: Agent, seed: int, environment: Any = None) -> Iterator[float]:
    """REINFORCE on CartPole with a baseline; yields the negative return of each episode."""
    world = gymnasium.make("CartPole-v1") if environment is None else environment
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    try:
        for episode in itertools.count():
            state, _ = world.reset(seed=seed + episode)
            states, actions, rewards, over = [], [], [], False
            while not over:
                states.append(torch.from_numpy(state))
                actions.append(int(torch.multinomial(model.policy(states[-1]).softmax(0), 1)))
                state, reward, ended, cut, _ = world.step(actions[-1])
                rewards.append(float(reward))
                over = ended or cut
            returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
            values = model.value(torch.stack(states)).squeeze(1)
            chosen = model.policy(torch.stack(states)).log_softmax(1)[range(len(actions)), actions]
            loss = -(chosen * (returns - values.detach())).mean() + F.smooth_l1_loss(values, returns)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield -sum(rewards)
    finally:
        if environment is None:
            world.close()


def task_of(train: Callable[..., Any], model: nn.Module | None = None, **options: Any) -> Task:
    return own_task(net() if model is None else model, train=train, **options)


def test_values_are_those_that_the_generator_yields() -> None:
    torch.manual_seed(1)
    first, second = net(), net()
    second.load_state_dict(first.state_dict())
    expected = [float(value) for value in itertools.islice(descent(first, 7), 5)]
    steps = OwnTraining(descent).begun(second, 7)
    assert [float(steps.take()) for _ in range(5)] == expected
    steps.close()


def test_the_model_is_as_it_was_after_the_checks() -> None:
    model = net()
    with unchanged(model):
        task = task_of(descent, model, example=BATCHES[0], validate=lambda model, part: loss_of(model, BATCHES[part]))
    assert (task.probe_eval, task.gate_eval) == ((HeldBack(0, 0),), (HeldBack(1, 0),))
    agent = Agent()
    with unchanged(agent):
        task_of(reinforce, agent, example=touched)


def test_held_back_values_are_asked_for_by_part_and_come_in_groups() -> None:
    asked = []

    def validate(model: nn.Module, part: int) -> list[Tensor]:
        asked.append(part)
        return [loss_of(model, batch) for batch in (BATCHES[:3], BATCHES[3:8])[part]]

    task = task_of(descent, validate=validate)
    assert (len(task.probe_eval), len(task.gate_eval)) == (3, 5)
    asked.clear()
    found = task.evaluate(task.gate_eval[1:3])
    assert asked == [1]
    assert found == [loss_of(task.model, batch).item() for batch in BATCHES[4:6]]
    assert task.forwards(task.gate_eval) == 5


def test_validate_is_called_in_evaluation_mode_with_the_same_random_numbers_and_leaves_nothing() -> None:
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    modes = []

    def validate(model: nn.Module, part: int) -> float:
        modes.append((model.training, torch.is_grad_enabled()))
        model.train()  # a validation with noise: its statistics and its mode are put back
        return float(loss_of(model, BATCHES[part])) + random.random() + float(np.random.rand())

    own = OwnTraining(descent, validate)
    with unchanged(model):
        assert own.held_back(model, 0) == own.held_back(model, 0)
    assert set(modes) == {(False, False)}


def test_modes_that_hold_around_a_yield_hold_for_the_training_alone() -> None:
    def train(model: nn.Module, seed: int) -> Iterator[float]:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            while True:
                assert not torch.is_grad_enabled()
                assert torch.is_autocast_enabled("cpu")
                with torch.enable_grad():
                    loss_of(model, BATCHES[0]).backward()
                yield 1.0

    steps = OwnTraining(train).begun(net(), 0)
    for _ in range(3):
        steps.take()
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    steps.close()


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "no generator": (lambda model, seed: None, "returned nothing, and yields nothing"),
    "a loop that returns": (lambda model, seed: [1.0, 2.0], "returned a list"),
    "a number that is none": (lambda model, seed: iter(["low"]), "yielded a str in step 1"),
    "True": (lambda model, seed: iter([True]), "yielded a bool"),
    "nothing": (lambda model, seed: iter([None]), "a yield without a value"),
    "several numbers": (lambda model, seed: iter([torch.ones(3)]), r"a tensor \[3\] float32 in step 1"),
    "a graph": (lambda model, seed: iter([loss_of(model, BATCHES[0])]), "with its graph in step 1.*detach"),
    "no yield at all": (lambda model, seed: iter(()), "ended without a single yield"),
    "an early end": (lambda model, seed: iter([3.0, 2.0, 1.0]), "ended after 3 steps.*while True"),
    "an early failure": (
        lambda model, seed: model.encoder,
        r"failed when it was called .line \d+ of test.*: AttributeError",
    ),
    "gradients of another kind": (lambda model, seed: iter([autoinit.Step(1.0, [1.0])]), "gradients are a list"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_training_is_told_and_costs_nothing(kind: str) -> None:
    train, said = BAD[kind]
    model = net()
    with unchanged(model), pytest.raises(StepError, match=f"(?s)train.*{said}|gradients.*{said.split('are ')[-1]}"):
        autoinit.select(model, train=train, budget=autoinit.Budget(steps=200))


def test_what_cannot_be_called_so_is_refused() -> None:
    with pytest.raises(StepError, match="train is a DataLoader, which cannot be called"):
        OwnTraining(torch.utils.data.DataLoader(X))
    with pytest.raises(StepError, match=r"train takes \(model\), and not two arguments.*def train\(model, seed\)"):
        OwnTraining(lambda model: iter([1.0]))
    with pytest.raises(StepError, match=r"validate takes \(model\).*validate\(model, part\)"):
        OwnTraining(descent, lambda model: 0.0)
    with pytest.raises(StepError, match="validate is a float"):
        OwnTraining(descent, 0.5)
    for seconds in (0, -1.0, True, "5m", float("nan")):
        with pytest.raises(ArgumentError, match=r"timeout is .*a positive number of seconds"):
            OwnTraining(descent, seconds=seconds)


def test_what_stands_beside_it_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Beside train stands data, optimizer\."):
        check_beside_train(data=BATCHES, loss=None, optimizer=torch.optim.SGD)
    with pytest.raises(ArgumentError, match=r"data is a generator function.*train="):
        autoinit.select(net(), descent)
    with pytest.raises(StepError, match="train is a generator that runs already"):
        OwnTraining(descent(net(), 0))
    with pytest.raises(ArgumentError, match="neither data nor train"):
        check_beside_data(None, example=None)
    with pytest.raises(ArgumentError, match="validate belongs to train="):
        check_beside_data(BATCHES, example=None, validate=lambda model, part: 0.0)
    with pytest.raises(ArgumentError, match="Beside train stands data, lr"):
        autoinit.select(net(), BATCHES, train=descent, lr=0.1)


def test_an_environment_that_crashes_is_named_with_the_step() -> None:
    class Crashing(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            raise ConnectionResetError("the simulator is gone")

    world = Crashing(gymnasium.make("CartPole-v1"))
    model = Agent()
    with (
        unchanged(model),
        pytest.raises(StepError, match=r"train failed in step 1.*ConnectionResetError: the simul"),
    ):
        autoinit.select(model, train=functools.partial(reinforce, environment=world), example=touched, budget=5)


def test_a_step_that_never_comes_is_ended() -> None:
    def waiting(model: nn.Module, seed: int) -> Iterator[float]:
        yield 1.0
        time.sleep(60)
        yield 1.0

    def stubborn(model: nn.Module, seed: int) -> Iterator[float]:
        while True:
            try:
                time.sleep(60)
            except Exception:  # a loop that goes on after every error
                continue
            yield 1.0

    for train, place in ((waiting, 2), (stubborn, 1)):
        started = time.monotonic()
        with pytest.raises(StepError, match=f"train yielded nothing for 0.2 s in step {place}.*timeout="):
            autoinit.select(net(), train=train, timeout=0.2, budget=autoinit.Budget(steps=200))
        assert time.monotonic() - started < 20
    with pytest.raises(StepError, match=r"validate took more than 0\.2 s"):
        task_of(descent, validate=lambda model, part: time.sleep(60), timeout=0.2)


def test_validate_may_swap_weights_as_long_as_it_swaps_them_back() -> None:
    model = net()
    other = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}

    def validate(model: nn.Module, part: int) -> Tensor:
        own = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(other)  # a moving average, say
        try:
            return loss_of(model, BATCHES[part])
        finally:
            model.load_state_dict(own)

    assert OwnTraining(descent, validate).held_back(model, 0) == pytest.approx([2.302585])

    def leaves(model: nn.Module, part: int) -> float:
        next(model.parameters()).data.mul_(0.5)  # what torch counts no versions of
        return 0.0

    with pytest.raises(StepError, match="validate leaves other weights"):
        OwnTraining(descent, leaves).held_back(model, 0)


def test_what_validate_must_not_do_is_told() -> None:
    def trains(model: nn.Module, part: int) -> float:
        with torch.enable_grad():
            next(descent(model, 0))
        return 0.0

    with pytest.raises(StepError, match="validate leaves other weights in the model"):
        task_of(descent, validate=trains)
    with pytest.raises(StepError, match="validate returned a str, and not a number"):
        task_of(descent, validate=lambda model, part: "low")
    with pytest.raises(StepError, match=r"validate failed: KeyError.*validate\(model, part\)"):
        task_of(descent, validate=lambda model, part: {}["loss"])
    counts = iter((2, 3, 3))
    own = OwnTraining(descent, lambda model, part: [0.0] * next(counts))
    own.held_back(net(), 0)
    with pytest.raises(StepError, match="validate returned 3 numbers and 2 before"):
        own.held_back(net(), 0)


def test_what_goes_over_to_the_next_training_is_named() -> None:
    buffer: collections.deque[Tensor] = collections.deque(maxlen=1000)

    def replays(model: nn.Module, seed: int) -> Iterator[float]:
        for value in descent(model, seed):
            buffer.append(value)
            yield float(value) + 0.01 * len(buffer)

    with pytest.raises(
        StepError, match=r"step 1 gave .* and then .*changes `buffer` \(a deque of 0 before, a deque of"
    ):
        task_of(replays)


def test_an_optimizer_made_outside_is_named() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
        while True:
            optimizer.zero_grad()
            loss = loss_of(model, BATCHES[0])
            loss.backward()
            optimizer.step()
            yield loss.detach()

    with unchanged(model), pytest.raises(StepError, match=r"`optimizer` \(an Adam\), which it refers to from outside"):
        autoinit.select(model, train=train, budget=autoinit.Budget(steps=200))


class Stateful:
    """A training that is an object, with an environment that it never resets, and a method of it."""

    def __init__(self) -> None:
        self.world = gymnasium.make("CartPole-v1")
        self.state, _ = self.world.reset(seed=0)

    def __call__(self, model: nn.Module, seed: int) -> Iterator[float]:
        while True:
            self.state, _, over, _, _ = self.world.step(1)
            if over:
                self.state, _ = self.world.reset()
            yield float(self.state[1])

    def run(self, model: nn.Module, seed: int) -> Iterator[float]:
        yield from self(model, seed)


def drawn(chance: np.random.Generator) -> Callable[..., Any]:
    return lambda model, seed: (float(chance.random()) for _ in range(99))


def listed(rows: Iterator[int]) -> Callable[..., Any]:
    return lambda model, seed: (float(row) for row in rows)


LEAKING: dict[str, Callable[[], tuple[Callable[..., Any], str]]] = {
    "an object": lambda: (Stateful(), "`Stateful` .a Stateful."),
    "a method": lambda: (Stateful().run, "`self` .a Stateful."),
    "numpy's generator": lambda: (drawn(np.random.default_rng(0)), "`chance` .a Generator."),
    "an argument of a partial": lambda: (
        functools.partial(lambda chance, model, seed: (chance.random() for _ in range(99)), random.Random(0)),
        "`argument 0` .a Random.",
    ),
    "a loader's iterator": lambda: (
        listed(iter(torch.utils.data.DataLoader(range(99), batch_size=None))),  # type: ignore[arg-type]
        "`rows` .a _SingleProcessDataLoaderIter.",
    ),
    "an iterator": lambda: (listed(iter(range(99))), "`rows` .a range_iterator."),
}


@pytest.mark.parametrize("kind", LEAKING)
def test_leaks_of_every_kind_are_named(kind: str) -> None:
    train, name = LEAKING[kind]()
    with pytest.raises(StepError, match=f"the same numbers twice.*{name}"):
        task_of(train)


def test_numbers_of_its_own_are_told_from_leaks() -> None:
    def train(model: nn.Module, seed: int) -> Iterator[float]:
        chance = np.random.default_rng()  # seeded by the system
        while True:
            yield float(chance.random())

    with pytest.raises(StepError, match=r"Nothing that it refers to has changed.*from the seed that it is called with"):
        task_of(train)


def test_what_changes_without_touching_the_numbers_is_no_leak() -> None:
    log: list[float] = []

    def train(model: nn.Module, seed: int) -> Iterator[float]:
        for value in descent(model, seed):
            log.append(float(value))
            yield float(value) + random.random() + float(torch.rand(())) + float(np.random.rand())  # all are seeded

    task_of(train)
    assert len(log) > 2


def test_the_example_may_be_an_input_a_batch_or_a_callable() -> None:
    for example in (X[:8], BATCHES[0], lambda model: loss_of(model, BATCHES[0])):
        task = task_of(descent, example=example)
        graph = trace_task(task)
        assert [layer.role for layer in graph.weights] == ["input", "output"]
        assert graph.source == "autograd"
    modules = trace_task(task_of(descent))
    assert modules.source == "modules"


def test_an_example_that_does_not_do_is_told() -> None:
    with pytest.raises(StepError, match=r"example failed: AttributeError.*example\(model\)"):
        task_of(descent, example=lambda model: model.encoder(X))
    with pytest.raises(StepError, match=r"example returned a tensor \[8, 10\] float32 where one scalar"):
        task_of(descent, example=lambda model: model(X[:8]))
    with pytest.raises(autoinit.AutoInitError, match="no gradient reaches any of the model's parameters"):
        task_of(descent, example=lambda model: torch.ones((), requires_grad=True) * 2)
    with pytest.raises(autoinit.AutoInitError, match=r"the model cannot take a batch of.*example=callable"):
        task_of(descent, example=X[:8, :32])
    with pytest.raises(autoinit.AutoInitError, match="example holds NaN or inf"):
        task_of(descent, example=X[:8] / 0)
    with pytest.raises(StepError, match="example gives nan, and has to give a finite number"):
        task_of(descent, example=lambda model: model(X[:8]).mean() * float("nan"))
