"""The trainings whose metric is not a loss: agents, several tasks, inner loops."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor, nn

from benchmarks.trainings import dqn, environments, maml, multi_task, ppo
from benchmarks.trainings.environments import ACROBOT, CARTPOLE, Environments
from benchmarks.trainings.training import Training

TRAININGS = {
    one.name: one
    for one in (
        ppo.PPO_CARTPOLE,
        ppo.PPO_ACROBOT,
        dqn.DQN_CARTPOLE,
        dqn.DQN_ACROBOT,
        multi_task.MULTI_TASK,
        maml.MAML,
        maml.MAML_BARE,
    )
}
every = pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes a few milliseconds, and a memory that is learned from, and overwritten, at once."""
    for module, values in (
        (ppo, {"ENVIRONMENTS": 2, "LENGTH": 8, "EPOCHS": 1, "MINIBATCHES": 2, "EPISODES": 2}),
        (dqn, {"MOVES": 4, "UPDATES": 1, "BATCH": 8, "MEMORY": 40, "FIRST": 16, "EPISODES": 2}),
        (maml, {"META_BATCH": 1, "EPISODES": 2}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


class Counted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Says whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """Every environment that is made."""
    found: list[Counted] = []
    make = gymnasium.make

    def counted(*args: Any, **options: Any) -> Counted:
        found.append(Counted(make(*args, **options)))
        return found[-1]

    monkeypatch.setattr(gymnasium, "make", counted)
    return found


def numbers(training: Training, model: nn.Module, seed: int) -> Iterator[float]:
    return (float(value) for value in training.train(model, seed))


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


STEPS = 8


@pytest.mark.usefixtures("small")
@every
def test_one_seed_is_one_training_whatever_runs_beside_it(training: Training) -> None:
    before = torch.get_rng_state()
    model = training.build(0)
    alone, beside, other, longer = (copy.deepcopy(model) for _ in range(4))
    told = list(itertools.islice(numbers(training, alone, 3), STEPS))
    first, second, third = (numbers(training, one, seed) for one, seed in ((beside, 3), (other, 4), (longer, 3)))
    again, others = [], []
    for _ in range(STEPS):
        others.append(next(second))
        again.append(next(first))
        next(third)
    assert all(math.isfinite(value) for value in told)
    assert again == told
    assert torch.equal(weights(beside), weights(alone))
    assert not torch.equal(weights(other), weights(alone))
    assert not torch.equal(weights(alone), weights(model))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("small")
@every
def test_validation_leaves_the_weights_and_has_two_parts(training: Training) -> None:
    model = training.build(0)
    before = weights(model)
    first, again, other = (training.validate(model, part) for part in (0, 0, 1))
    assert first == again
    assert first != other or "acrobot" in training.name  # which no untrained policy swings up
    assert torch.equal(weights(model), before)
    with torch.no_grad():
        assert training.validate(model, 0) == first


@pytest.mark.usefixtures("small")
@every
def test_the_example_touches_every_part(training: Training) -> None:
    model = training.build(0)
    training.example(model).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(weights(training.build(0)), weights(model))
    assert not torch.equal(weights(training.build(1)), weights(model))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("training", [ppo.PPO_CARTPOLE, dqn.DQN_CARTPOLE, ppo.PPO_ACROBOT], ids=lambda one: one.name)
def test_environments_are_closed(training: Training, made: list[Counted]) -> None:
    model = training.build(0)
    running: Any = training.train(model, 0)
    next(running)
    assert made
    assert not any(env.closed for env in made)
    running.close()
    assert all(env.closed for env in made)
    training.validate(model, 0)
    training.example(model)
    assert all(env.closed for env in made)


def test_environments_are_closed_after_an_error(made: list[Counted]) -> None:
    with pytest.raises(RuntimeError):
        next(iter(ppo.PPO_CARTPOLE.train(ppo.ActorCritic(5, 2), 0)))
    assert made
    assert all(env.closed for env in made)


def test_held_back_episodes_have_seeds_of_their_own(made: list[Counted]) -> None:
    training = Environments(ACROBOT, 16, 0)
    firsts = [training.seen]

    def give_up(seen: Tensor) -> Tensor:
        firsts.append(seen)
        raise LookupError

    for part in (0, 1):
        with pytest.raises(LookupError):
            environments.held_back(ACROBOT, give_up, part, 16)
    training.close()
    assert all(env.closed for env in made)
    assert len(torch.cat(firsts).unique(dim=0)) == 48


def test_running_episodes_count_where_they_raise_the_mean() -> None:
    envs = Environments(CARTPOLE, 2, 0)
    assert envs.metric() == 0
    for _ in range(4):
        envs.step(torch.tensor([1, 0]))
    assert envs.metric() == -4
    envs.finished.extend([1.0, 3.0])
    assert envs.metric() == -(1 + 3 + 4 + 4) / 4
    envs.finished.extend([30.0, 30.0])
    assert envs.metric() == -16
    envs.close()


def test_what_costs_until_it_is_done_is_sure_of_nothing() -> None:
    envs = Environments(ACROBOT, 2, 0)
    envs.step(torch.tensor([1, 0]))
    assert envs.metric() == environments.longest(ACROBOT) == 500
    envs.finished.append(-100.0)
    assert envs.metric() == 100
    envs.close()


def test_a_policy_is_learned() -> None:
    told = list(itertools.islice(numbers(ppo.PPO_CARTPOLE, ppo.build(CARTPOLE, 0), 0), 20))
    assert told[-1] < 2 * told[0] < 0
    assert told[-1] < -40


def test_what_ends_begins_anew_and_tells_where_it_ended() -> None:
    envs = Environments(CARTPOLE, 1, 0)
    while not envs.finished:
        stepped = envs.step(torch.tensor([1]))
    assert stepped.terminated.tolist() == [True]
    assert abs(float(stepped.arrived[0, 2])) > 0.2
    assert envs.seen.abs().max() <= 0.05
    assert envs.finished[0] == -envs.metric() > 5
    envs.close()


def test_advantages_are_discounted_sums_of_surprises() -> None:
    """Against the definition, an episode's end in the middle."""
    rewards, values = torch.rand(5, 2), torch.rand(6, 2)
    over = torch.tensor([[False, False], [True, False], [False, False], [False, True], [False, False]])
    found = ppo.advantages(rewards, values, over)
    for env in range(2):
        for start in range(5):
            wanted, factor = 0.0, 1.0
            for step in range(start, 5):
                after = 0.0 if over[step, env] else float(values[step + 1, env])
                wanted += factor * (float(rewards[step, env]) + 0.99 * after - float(values[step, env]))
                if over[step, env]:
                    break
                factor *= 0.99 * 0.95
            assert float(found[start, env]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.usefixtures("small")
def test_memory_keeps_the_latest_and_goes_on_after_a_cut() -> None:
    memory = dqn.Memory(1)
    for step in range(30):
        ended, cut = torch.tensor([step == 29, False]), torch.tensor([False, step == 29])
        moved = environments.Stepped(torch.ones(2), torch.full((2, 1), step + 1.0), ended, cut)
        memory.add(torch.full((2, 1), float(step)), torch.tensor([0, 1]), moved)
    assert sorted(set(memory.seen.flatten().tolist())) == list(range(10, 30))
    assert torch.equal(memory.arrived, memory.seen + 1)
    last = memory.seen.flatten() == 29
    assert memory.goes_on[last].tolist() == [0.0, 1.0]
    assert dqn.exploration(0) == 1
    assert dqn.exploration(10**6) == dqn.LEAST


@pytest.mark.usefixtures("small")
def test_the_target_stays_until_it_is_copied() -> None:
    model, ends = dqn.build(CARTPOLE, 0), []
    for every_steps in (1, 2, 1000):
        trained = copy.deepcopy(model)
        list(itertools.islice(dqn.train(CARTPOLE, 1e-2, every_steps, trained, 0), STEPS))
        ends.append(weights(trained))
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])


def test_slant_grey_and_spread_are_measured() -> None:
    image = torch.zeros(3, 28, 28)
    image[0, 4:24, 14] = 255
    for step in range(20):
        image[1, 4 + step, 23 - step] = 255
        image[2, 4 + step, 4 + step] = 255
    found = multi_task.measured(image)
    assert found["grey"].flatten().tolist() == pytest.approx([20 * 255 / 784] * 3)
    assert found["slant"].flatten().tolist() == pytest.approx([0, 45, -45], abs=1e-3)
    deviation = math.sqrt((20**2 - 1) / 12)
    assert found["spread"].flatten().tolist() == pytest.approx([deviation, 0, *[deviation] * 4], abs=1e-3)


def test_a_constant_scores_one_in_every_task() -> None:
    rows = multi_task.parts()[0]
    shares = torch.bincount(rows.targets["digit"]) / len(rows.x)
    constants = {task: target.mean(0) for task, target in rows.targets.items() if task != "digit"}
    constants["digit"] = shares.log()

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {task: value.expand(len(x), -1) for task, value in constants.items()}

    for task, loss in multi_task.losses(Constant(), rows).items():
        assert float(loss / multi_task.of_constants()[task]) == pytest.approx(1, abs=1e-4), task


def test_a_step_lowers_the_plain_sum_of_the_losses() -> None:
    model = multi_task.build(0)
    by_hand = copy.deepcopy(model)
    told = next(numbers(multi_task.MULTI_TASK, model, 5))
    rows = multi_task.parts()[0]
    batch = rows.of(torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(5))[:64])
    outputs = by_hand(batch.x)
    digit = nn.functional.cross_entropy(outputs["digit"], batch.targets["digit"])
    squared = {task: (outputs[task] - batch.targets[task]).square().mean() for task in ("grey", "spread", "slant")}
    (digit + sum(squared.values())).backward()
    torch.optim.Adam(by_hand.parameters(), lr=1e-3).step()
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=0, atol=1e-5)
    shares = [float(loss.detach() / multi_task.of_constants()[task]) for task, loss in squared.items()]
    assert told == pytest.approx((sum(shares) + float(digit.detach()) / 2.302) / 4, rel=1e-3)


def test_several_tasks_are_learned() -> None:
    model = multi_task.build(0)
    told = list(itertools.islice(numbers(multi_task.MULTI_TASK, model, 0), 40))
    assert told[-1] < 0.5 * told[0]
    held_back = multi_task.validate(model, 0)
    assert len(held_back) == 10
    assert sum(held_back) / 10 < 0.5 * told[0]


def test_held_back_classes_are_never_learned_from() -> None:
    digits = [maml.LEARNED, *maml.HELD_BACK]
    assert sorted(itertools.chain(*digits)) == sorted(set(itertools.chain(*digits)))
    assert [len(maml.classes(one)) for one in digits] == [20, 6, 8]
    known, asked = maml.episode((5, 8), torch.Generator().manual_seed(0))
    assert known.shape == (5, 1, 14, 14)
    assert asked.shape == (25, 1, 14, 14)
    assert not (known[:, None] == asked[None]).flatten(2).all(2).any()


def test_the_inner_step_is_differentiated_through() -> None:
    """Against differences of the loss after adaptation, in double precision."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(196, 3), nn.Tanh(), nn.Linear(3, 5)).double()
    drawn: Any = tuple(side.double() for side in maml.episode((5, 8), torch.Generator().manual_seed(0)))
    loss = functools.partial(maml.query_loss, 0.4, model, drawn)
    loss().backward()
    weight = model[3].weight
    assert weight.grad is not None
    with torch.no_grad():
        for row, column in ((0, 0), (4, 2)):
            sides = []
            for shift in (1e-5, -2e-5):
                weight[row, column] += shift
                with torch.enable_grad():
                    sides.append(float(loss().detach()))
            weight[row, column] += 1e-5
            assert float(weight.grad[row, column]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4)


def test_shots_are_learned() -> None:
    model = maml.MAML_BARE.build(0)
    episodes = [maml.episode(maml.LEARNED, torch.Generator().manual_seed(seed)) for seed in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    told = []
    for _ in range(20):
        loss = torch.stack([maml.query_loss(0.1, model, one) for one in episodes]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(float(loss.detach()))
    assert told[-1] < 0.7 * told[0]
