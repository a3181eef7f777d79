"""`select(train=…)`: any training, through the same search, gate and budget as one that is a single loss."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import optuna
import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import ArgumentError, RecipeError, StepError
from autoinit.task.task import make_task

PIXELS, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
X, Y = (PIXELS / 16).float(), LABELS
BATCHES = list(zip(X[:960].split(32), Y[:960].split(32), strict=True))
HELD_BACK = list(zip(X[960:1472].split(32), Y[960:1472].split(32), strict=True))


def deep() -> nn.Module:
    """A network that does not train from PyTorch's own weights."""
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(64, 32), nn.Tanh()) if place == 0 else _block() for place in range(11)]
    return nn.Sequential(*hidden, nn.Linear(32, 10))


def _block() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 32), nn.Tanh())


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """A loss of which no constant guess is known, as of what `train` yields."""
    return F.cross_entropy(output, target) + 0.01 * output.square().mean()


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def descent(model: nn.Module, seed: int) -> Iterator[Tensor]:
    optimizer = momentum(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    while True:
        for place in torch.randperm(len(BATCHES), generator=generator).tolist():
            pixels, labels = BATCHES[place]
            optimizer.zero_grad()
            loss = loss_of(model(pixels), labels)
            loss.backward()
            optimizer.step()
            yield loss.detach()


STEPS = autoinit.Budget(steps=600)


def timeless(selection: autoinit.Selection) -> dict[str, Any]:
    return selection.trials.drop(columns=["seconds", "lr"]).to_dict()


def test_a_loss_a_step_and_a_training_of_ones_own_give_the_same_selection_bit_for_bit() -> None:
    """What a search sees is the same; what it is told beside (learning rate, features of the data) is not."""
    found = make_task(deep(), BATCHES, val_data=HELD_BACK, loss=loss_of, optimizer=momentum)
    assert found.reference is None
    parts = found.probe_eval, found.gate_eval

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss_of(model(batch[0]), batch[1])

    def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
        optimizer, generator = momentum(model.parameters()), torch.Generator().manual_seed(seed)
        while True:
            for place in torch.randperm(len(found.train), generator=generator).tolist():
                optimizer.zero_grad()
                loss = step(model, found.train[place])
                loss.backward()
                optimizer.step()
                yield loss.detach()

    def validate(model: nn.Module, part: int) -> list[Tensor]:
        return [step(model, batch) for batch in parts[part]]

    rest: dict[str, Any] = {"budget": STEPS, "recommender": False, "seed": 0}
    models = [deep() for _ in range(3)]
    by_loss = autoinit.select(models[0], BATCHES, val_data=HELD_BACK, loss=loss_of, optimizer=momentum, **rest)
    by_step = autoinit.select(models[1], BATCHES, val_data=HELD_BACK, step=step, optimizer=momentum, **rest)
    by_train = autoinit.select(models[2], train=train, example=found.train[0], validate=validate, **rest)
    assert not by_loss.kept
    assert len(by_loss.trials) > 10
    for other in (by_step, by_train):
        assert timeless(other) == timeless(by_loss)
        assert (other.recipe, other.gain, other.held_back) == (by_loss.recipe, by_loss.gain, by_loss.held_back)
        assert other.plan.fills == by_loss.plan.fills
        assert other.cost.steps == by_loss.cost.steps
    for model in models[1:]:
        assert all(map(torch.equal, models[0].state_dict().values(), model.state_dict().values()))


def test_the_same_seed_gives_the_same_selection_on_any_number_of_processes() -> None:
    def chosen(executor: Any, concurrency: int | None = None) -> autoinit.Selection:
        options: dict[str, Any] = {"executor": executor, "concurrency": concurrency}
        return autoinit.select(deep(), train=descent, example=BATCHES[0], budget=STEPS, **options)

    alone, several = chosen("sequential"), chosen("processes", 2)
    assert timeless(several) == timeless(alone)
    assert several.plan.fills == alone.plan.fills


def test_what_the_trainings_open_is_closed_in_worker_processes_too(tmp_path: Path) -> None:
    """Trainings that wait, and those that are ended, leave nothing open: their `finally` has run in each process."""

    def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
        name = tmp_path / f"{os.getpid()} {time.monotonic_ns()}"
        name.touch()
        try:
            yield from descent(model, seed)
        finally:
            name.unlink()

    def note(opened: set[int], event: Any) -> None:
        opened.update(int(path.name.split()[0]) for path in tmp_path.iterdir())

    for executor in ("sequential", "processes"):
        opened: set[int] = set()
        selection = autoinit.select(
            deep(),
            train=train,
            example=BATCHES[0],
            budget=STEPS,
            executor=executor,  # type: ignore[arg-type]
            progress=functools.partial(note, opened),
        )
        assert len(selection.trials) > 10
        assert opened if executor == "sequential" else opened - {os.getpid()}, "some wait between rounds"
        assert list(tmp_path.iterdir()) == []

    def stop(event: Any) -> None:
        if event.stage == "search" and len(list(tmp_path.iterdir())) > 3:
            raise RuntimeError("seen enough")

    for executor in ("sequential", "processes"):
        with pytest.raises(RuntimeError, match="seen enough"):
            autoinit.select(
                deep(),
                train=train,
                example=BATCHES[0],
                budget=STEPS,
                executor=executor,  # type: ignore[arg-type]
                progress=stop,
            )
        assert list(tmp_path.iterdir()) == [], "those that wait are closed where a search ends early"


def test_one_step_of_it_at_a_time_is_said_and_stacks_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"stacked.*a training of its own \(train=\) takes its steps by itself"):
        autoinit.select(deep(), train=descent, example=BATCHES[0], budget=STEPS, executor="stacked")


def test_without_an_example_the_module_tree_is_read_and_nothing_is_calibrated() -> None:
    model = deep()
    selection = autoinit.select(model, train=descent, budget=autoinit.Budget(steps=400))
    assert selection.graph.source == "modules"
    assert not any("calibration" in key for key in selection.trials.recipe)
    assert len(selection.trials) > 5
    with (
        unchanged(model),
        pytest.raises(RecipeError, match=r"'lsuv' is measured on a batch; there is none. Give example"),
    ):
        autoinit.select(model, train=descent, budget=STEPS, recipes=["lsuv", "he_normal"])


def test_squares_of_an_output_are_no_loss_for_what_differentiates_it(tmp_path: Path) -> None:
    """Calibrations that differentiate the loss are offered only where the example gives one."""
    for name, example, offered in (("input", X[:8], False), ("batch", BATCHES[0], True)):
        storage = f"sqlite:///{tmp_path / name}.db"

        def stop(event: Any) -> None:
            if event.stage == "search":
                raise RuntimeError("seen enough")

        budget = autoinit.Budget(steps=40_000)
        with pytest.raises(RuntimeError, match="seen enough"):
            autoinit.select(deep(), train=descent, example=example, budget=budget, progress=stop, storage=storage)
        study = optuna.load_study(study_name=None, storage=storage)
        choices = str([trial.distributions for trial in study.trials])
        assert ("gradinit" in choices) is offered


class Pair(nn.Module):
    """A small GAN: two networks that only the training brings together."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))


def both(model: Pair) -> Tensor:
    noise = torch.linspace(-1, 1, 128).reshape(16, 8)
    return model.generator(noise).square().mean() + model.discriminator(X[:16]).square().mean()


def adversaries(model: Pair, seed: int) -> Iterator[Tensor]:
    """Two optimizers; yields how far means of generated pixels are from those of digits."""
    makers = [torch.optim.Adam(part.parameters(), 2e-3, betas=(0.5, 0.9)) for part in model.children()]
    chance = torch.Generator().manual_seed(seed)
    while True:
        real = X[torch.randint(0, 960, (32,), generator=chance)]
        made = model.generator(torch.randn(32, 8, generator=chance))
        judged = model.discriminator(torch.cat([real, made.detach()]))
        labels = torch.cat([torch.full((32, 1), 0.9), torch.zeros(32, 1)])
        makers[1].zero_grad()
        F.binary_cross_entropy_with_logits(judged, labels).backward()
        makers[1].step()
        makers[0].zero_grad()
        F.binary_cross_entropy_with_logits(model.discriminator(made), torch.ones(32, 1)).backward()
        makers[0].step()
        yield (made.detach().mean(0) - X[:960].mean(0)).square().mean()


def test_two_networks_with_two_optimizers() -> None:
    model = Pair()
    selection = autoinit.select(model, train=adversaries, example=both, budget=autoinit.Budget(steps=500), apply=False)
    graph = selection.graph
    assert graph.networks == (0, 0)
    assert [(layer.name, layer.role, layer.network) for layer in graph.weights] == [
        ("generator.0.weight", "input", 0),
        ("generator.2.weight", "output", 0),
        ("discriminator.0.weight", "input", 1),
        ("discriminator.2.weight", "output", 1),
    ]
    assert len(selection.trials) > 5
    assert "the given training, nothing held back" in str(selection)
    assert "  lr" not in str(selection)


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, state: Tensor) -> Tensor:
        return self.policy(state)  # type: ignore[no-any-return]


OPEN: list[Any] = []


def reinforce(model: Agent, seed: int) -> Iterator[float]:
    world = gymnasium.make("CartPole-v1", max_episode_steps=40)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    try:
        for episode in itertools.count():
            state, _ = world.reset(seed=(seed + episode) % 2**31)
            chosen, rewards, over = [], 0.0, False
            while not over:
                logits = model(torch.from_numpy(state))
                action = int(torch.multinomial(logits.softmax(0), 1))
                chosen.append(logits.log_softmax(0)[action])
                state, reward, ended, cut, _ = world.step(action)
                rewards, over = rewards + float(reward), ended or cut
            optimizer.zero_grad()
            (-(rewards - 20) / 20 * torch.stack(chosen).mean()).backward()
            optimizer.step()
            yield -rewards
    finally:
        world.close()


def test_returns_of_episodes_are_told_as_differences() -> None:
    """They are negative, so that no ratio says anything: what is printed is by how much they are lower."""
    recipes = ["rl_like", "he_normal"] if "rl_like" in set(autoinit.catalogue().name) else ["zeros", "he_normal"]
    selection = autoinit.select(
        Agent(), train=reinforce, example=torch.zeros(2, 4), budget=autoinit.Budget(steps=400), recipes=recipes
    )
    if selection.gain is not None:
        assert selection.gain.unit is not None
        assert "loss ×" not in str(selection)
        assert "value " in str(selection)
    assert (selection.trials.first_loss < 0).all()
    assert selection.trials.score.notna().any()


def test_a_first_ctrl_c_ends_the_search_and_the_gate_still_answers() -> None:
    seen = threading.Event()

    def press() -> None:
        seen.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    trials = 0

    def watch(event: Any) -> None:
        nonlocal trials
        trials += event.stage == "search"
        if trials > 12:
            seen.set()

    model = deep()
    selection = autoinit.select(model, train=descent, example=BATCHES[0], budget="60s", progress=watch)
    thread.join()
    assert selection.interrupted


def test_its_trials_are_kept_in_a_storage_and_in_the_own_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOINIT_DATA", str(tmp_path))
    storage = f"sqlite:///{tmp_path / 'trials.db'}"
    options: dict[str, Any] = {"storage": storage, "study_name": "mine", "record": True}
    selection = autoinit.select(deep(), train=descent, example=BATCHES[0], budget=STEPS, **options)
    searched = selection.trials[selection.trials.stage == "search"]
    assert len(optuna.load_study(study_name="mine", storage=storage).trials) == len(searched)
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert any('"loss"' in line or '"fingerprint"' in line for line in lines)


def test_a_training_that_ends_later_is_told_as_well() -> None:
    def short(model: nn.Module, seed: int) -> Iterator[Tensor]:
        yield from itertools.islice(descent(model, seed), 30)

    model = deep()
    with unchanged(model), pytest.raises(StepError, match="from the model's own weights, train ended after 30 steps"):
        autoinit.select(model, train=short, example=BATCHES[0], budget=autoinit.Budget(steps=2000))


def test_a_saved_selection_comes_back_with_its_unit(tmp_path: Path) -> None:
    selection = autoinit.select(deep(), train=descent, example=BATCHES[0], budget=STEPS)
    path = tmp_path / "selection.json"
    selection.save(path)
    other = deep()
    autoinit.apply_(other, path)
    model = deep()
    autoinit.apply_(model, selection)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_what_comes_over_late_is_noticed_before_a_win_is_believed() -> None:
    """A memory that is learned from when it is full: the first steps of every training are alike."""
    memory: list[tuple[Tensor, Tensor]] = []

    def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
        for step, value in enumerate(descent(model, seed)):
            if len(memory) < 100:
                memory.append(BATCHES[(seed + step) % len(BATCHES)])
            # From step 20 on the loss is that of what was remembered last, in this training or in one before.
            yield loss_of(model(memory[-1][0]), memory[-1][1]).detach() if step > 20 else value

    model = deep()
    with unchanged(model), pytest.raises(StepError, match=r"the same numbers twice.*step 2\d gave"):
        autoinit.select(model, train=train, example=BATCHES[0], budget=STEPS, executor="processes", concurrency=2)


@pytest.mark.parametrize("shift", [0.0, 1.4, 1.9, 3.0])
def test_what_is_taken_off_a_value_changes_nothing_of_the_answer(shift: float) -> None:
    """A likelihood begins above zero and ends below; what counts is who is lower, and by how much."""

    def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
        for value in descent(model, seed):
            yield value - shift

    options: dict[str, Any] = {"recipes": ["orthogonal", "xavier_normal", "he_normal"], "budget": STEPS}
    selection = autoinit.select(deep(), train=train, example=BATCHES[0], **options)
    assert (selection.answer, selection.recipe.base) == ("better", "orthogonal")
    searched = selection.trials[(selection.trials.stage == "search") & (selection.trials.state == "complete")]
    ends = searched.sort_values("score").last_loss.tolist()
    assert ends[0] == min(ends)
    assert searched.score.nunique() == len(searched)
    assert selection.gain is not None
    if shift:
        assert selection.gain.unit is not None
        assert "value reaches -" in selection.why or "it reaches -" in selection.why
        assert "loss ×" not in str(selection)


def test_returns_that_are_nothing_at_first_are_told_apart() -> None:
    """A sparse reward: minus zero for a while, and then less."""

    def train(model: nn.Module, seed: int) -> Iterator[float]:
        for step, value in enumerate(descent(model, seed)):
            yield min(0.0, float(value) - 2.25) if step > 4 else -0.0

    options: dict[str, Any] = {"recipes": ["orthogonal", "xavier_normal"], "budget": STEPS}
    selection = autoinit.select(deep(), train=train, example=BATCHES[0], **options)
    assert (selection.answer, selection.recipe.base) == ("better", "orthogonal")
