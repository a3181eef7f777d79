"""Learned starts: directions against unrolled code, what moves and what stays, files, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import bits, unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.episodic.directions import Direction, Method
from autoinit.episodic.inner import copies
from autoinit.episodic.objective import Objective
from autoinit.episodic.scoring import Estimate
from autoinit.episodic.settings import RATES, checked

METHODS = tuple(RATES)


def wave_network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def wave(number: int, rows: int = 8) -> Any:
    generator = torch.Generator().manual_seed(number)
    amplitude, phase = torch.rand(2, generator=generator, dtype=torch.float64)
    x = 10 * torch.rand(2, rows, 1, generator=generator, dtype=torch.float64) - 5
    y = (0.1 + 4.9 * amplitude) * torch.sin(x - 3.14 * phase)
    return (x[0], y[0]), (x[1], y[1])


def waves() -> Iterator[Any]:
    return map(wave, itertools.count())


def direction(method: str, model: nn.Module, episode: Any, *, steps: int = 2, lr: float = 0.05) -> Direction:
    settings = checked(
        method, inner_steps=steps, inner_lr=lr, outer_lr=None, meta_batch=1, seed=0,
        head="4" if method == "anil" else None,
    )  # fmt: skip
    weights = copies(dict(model.named_parameters()))
    inside = [name for name in weights if method != "anil" or name.startswith("4.")]
    return Method(settings, Objective(model, None), inside).direction(weights, {}, episode, 0)


def by_hand(weights: list[Tensor], x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ weights[0].T + weights[1])
    return torch.tanh(hidden @ weights[2].T + weights[3]) @ weights[4].T + weights[5]


def outer_loss(start: list[Tensor], episode: Any, moving: range, *, through: bool = True) -> Tensor:
    """The query's loss after two written-out steps at rate 0.05."""
    (x, y), (new_x, new_y) = episode
    weights = list(start)
    for _ in range(2):
        loss = (by_hand(weights, x) - y).square().mean()
        found = torch.autograd.grad(loss, [weights[at] for at in moving], create_graph=through)
        for at, gradient in zip(moving, found, strict=True):
            weights[at] = weights[at] - 0.05 * gradient
    return (by_hand(weights, new_x) - new_y).square().mean()


@pytest.mark.parametrize(("method", "first"), [("maml", 0), ("fomaml", 0), ("anil", 4)])
def test_the_outer_gradient_is_that_of_steps_written_out(method: str, first: int) -> None:
    model, episode = wave_network(torch.float64), wave(3)
    start = [one.detach().clone().requires_grad_() for one in model.parameters()]
    loss = outer_loss(start, episode, range(first, 6), through=method != "fomaml")
    wanted = torch.autograd.grad(loss, start)
    found = direction(method, model, episode)
    assert found.after == pytest.approx(float(loss.detach()), rel=1e-12)
    for name, gradient in zip(dict(model.named_parameters()), wanted, strict=True):
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-9, atol=1e-12)


def test_the_outer_gradient_of_maml_is_the_slope_by_finite_differences() -> None:
    model, episode = wave_network(torch.float64), wave(3)
    start = [one.detach().clone().requires_grad_() for one in model.parameters()]
    found = direction("maml", model, episode)
    slopes = []
    for sign in (1, -1):
        moved = [one.detach().clone() for one in start]
        moved[2][1, 3] += sign * 1e-5
        slopes.append(float(outer_loss([one.requires_grad_() for one in moved], episode, range(6)).detach()))
    assert float(found.gradients["2.weight"][1, 3]) == pytest.approx((slopes[0] - slopes[1]) / 2e-5, rel=1e-6)
    first_order = direction("fomaml", model, episode).gradients["2.weight"][1, 3]
    assert abs(float(first_order - found.gradients["2.weight"][1, 3])) > 1e-4


def test_one_step_of_reptile_goes_the_share_of_the_way() -> None:
    """With one inner step on as many rows as there are, no order of minibatches matters."""
    model = wave_network(torch.float64)
    (x, y), _ = wave(0)
    task = ((x, y), (x, y))
    learned = autoinit.meta_learn(model, [task], inner_steps=1, inner_lr=0.1, outer_lr=0.25, rounds=1, meta_batch=1)
    other = wave_network(torch.float64)
    generator = torch.Generator().manual_seed(autoinit_seed(0))
    taken = torch.randperm(16, generator=generator)[:8] % 8
    F.mse_loss(other(x[taken]), y[taken]).backward()
    for name, parameter in other.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(learned.parameters[name], parameter.detach() - 0.25 * 0.1 * parameter.grad)


def autoinit_seed(number: int) -> int:
    from autoinit.seeds import seed_of_use

    return seed_of_use(0, f"minibatches {number}")


def test_adam_moves_the_start_by_the_mean_over_a_round() -> None:
    model = wave_network(torch.float64)
    learned = autoinit.meta_learn(model, waves, method="maml", inner_steps=2, inner_lr=0.05, rounds=1, meta_batch=2)
    found = [direction("maml", model, wave(number)).gradients for number in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for name, parameter in model.named_parameters():
        parameter.grad = (found[0][name] + found[1][name]) / 2
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(learned.parameters[name], parameter.detach(), rtol=1e-9, atol=1e-12)


# What moves, and what stays


class Tied(nn.Module):
    """A table that is the output's weight too, a frozen layer, batch normalization and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.drop = nn.Embedding(7, 6), nn.BatchNorm1d(6), nn.Dropout(0.2)
        self.frozen, self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False)
        self.head.weight = self.table.weight
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.inner(self.drop(self.norm(self.frozen(self.table(x)))).relu()))
        return hidden


def words(number: int) -> Any:
    generator = torch.Generator().manual_seed(number)
    x = torch.randint(0, 7, (2, 12), generator=generator)
    return (x[0], (x[0] + number) % 7), (x[1], (x[1] + number) % 7)


@pytest.mark.parametrize("method", ["reptile", "fomaml", "maml"])
def test_ties_stay_tied_what_is_frozen_stays_and_the_model_is_as_it_was(method: Any) -> None:
    torch.manual_seed(1)
    model = Tied()
    model.inner.weight.grad = torch.ones(6, 6)
    with unchanged(model):
        learned = autoinit.meta_learn(model, map(words, range(12)), method=method, rounds=3, inner_lr=0.1)
    assert "head.weight" not in learned.parameters
    for name in ("frozen.weight", "frozen.bias"):
        assert bits(learned.parameters[name]) == bits(model.get_parameter(name))
    for name in ("table.weight", "inner.weight", "norm.weight"):
        assert not torch.equal(learned.parameters[name], model.get_parameter(name))
    other = Tied()
    learned.apply_(other)
    assert other.head.weight is other.table.weight
    assert torch.equal(other.head.weight, learned.parameters["table.weight"])
    assert torch.equal(other.norm.running_mean, learned.buffers["norm.running_mean"])


def test_statistics_are_those_of_the_start_and_not_of_adapted_weights() -> None:
    """At a rate that moves weights far, the running mean is what passes of the start alone make it."""
    norm = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    rest = [wave(number) for number in range(2)]
    learned = autoinit.meta_learn(norm, rest, method="fomaml", inner_lr=0.5, rounds=1, meta_batch=2)
    means = [0.1 * norm[0](support[0].float()).mean(0) for support, _ in rest]
    torch.testing.assert_close(learned.buffers["1.running_mean"], torch.stack(means).mean(0).detach())
    assert int(learned.buffers["1.num_batches_tracked"]) == 1


def test_inside_an_episode_anil_moves_the_head_alone() -> None:
    model = wave_network()
    learned = autoinit.meta_learn(model, waves, method="anil", rounds=2)
    assert learned.head == "4"
    assert not torch.equal(learned.parameters["0.weight"], model[0].weight)  # the start moves as a whole
    frozen = wave_network()
    frozen[:4].requires_grad_(False)
    one = autoinit.evaluate_episodes(model, waves, episodes=5, inner_lr=0.1, head="4")
    other = autoinit.evaluate_episodes(frozen, waves, episodes=5, inner_lr=0.1)
    assert one.losses == pytest.approx(other.losses)
    assert one.losses != pytest.approx(autoinit.evaluate_episodes(model, waves, episodes=5, inner_lr=0.1).losses)


def test_a_head_that_is_tied_or_unknown_is_refused() -> None:
    with pytest.raises(autoinit.ModelError, match=r"shares weights with table\.weight"):
        autoinit.meta_learn(Tied(), [words(0)], method="anil")
    with pytest.raises(autoinit.ArgumentError, match="Did you mean 'inner'"):
        autoinit.meta_learn(Tied(), [words(0)], method="anil", head="iner")
    assert autoinit.meta_learn(Tied(), [words(0)], method="anil", head="inner", rounds=1).head == "inner"


def test_attention_can_be_differentiated_twice() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 1))
    x = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    task = ((x[0], x[0, ..., :1]), (x[1], x[1, ..., :1]))
    found = [autoinit.meta_learn(model, [task], method=one, rounds=1, inner_lr=0.02) for one in ("maml", "fomaml")]
    assert not torch.equal(found[0].parameters["0.weight"], found[1].parameters["0.weight"])


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def test_what_cannot_be_differentiated_twice_is_told_and_the_model_left() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(super().forward(x))  # type: ignore[no-any-return]

    model = nn.Sequential(nn.Linear(1, 4), Doubled(4, 4), nn.Tanh(), nn.Linear(4, 1))
    with unchanged(model), pytest.raises(autoinit.ModelError, match="method='fomaml'"):
        autoinit.meta_learn(model, waves, method="maml")
    autoinit.meta_learn(model, waves, method="fomaml", rounds=1)


def test_a_start_learned_on_sinusoids_comes_further_than_one_trained_on_all_of_them() -> None:
    model, pretrained = wave_network(), wave_network()
    learned = autoinit.meta_learn(
        model, waves, method="maml", inner_steps=2, inner_lr=0.05, outer_lr=0.01, rounds=250, meta_batch=4
    )
    learned.apply_(model)
    optimizer = torch.optim.Adam(pretrained.parameters(), lr=0.01)
    for number in range(250):
        sides = [side for at in range(4) for side in wave(4 * number + at)]
        x, y = (torch.cat([side[part] for side in sides]).float() for part in range(2))
        optimizer.zero_grad()
        F.mse_loss(pretrained(x), y).backward()
        optimizer.step()
    new = [wave(number) for number in range(100_000, 100_100)]
    mine, theirs = (autoinit.evaluate_episodes(one, new, inner_steps=2, inner_lr=0.05) for one in (model, pretrained))
    assert mine.loss.mean < 0.75 * theirs.loss.mean
    assert mine.accuracy is None
    assert len(mine.losses) == 100


# Episodes and scores


def test_episodes_have_other_rows_in_query_and_support_and_labels_from_zero() -> None:
    rows = torch.arange(60.0)[:, None]
    names = np.array(["a", "b", "c", "d"]).repeat(15)
    made = autoinit.episodes(rows, names, ways=3, shots=2, queries=4, classes=["a", "c", "d"], seed=5)
    orders = set()
    for (x, y), (new_x, new_y) in itertools.islice(made, 40):
        assert y.tolist() == [0, 0, 1, 1, 2, 2]
        assert not set(x.flatten().tolist()) & set(new_x.flatten().tolist())
        assert len(new_y) == 12
        classes = (x.flatten() // 15).long()
        assert torch.equal(classes[::2], classes[1::2])
        assert torch.equal((new_x.flatten() // 15).long(), classes[::2].repeat_interleave(4))
        assert 1 not in classes
        orders.add(tuple(classes[::2].tolist()))
    assert len(orders) == 6
    assert made.classes == ("a", "c", "d")
    again = autoinit.episodes(rows, names, ways=3, shots=2, queries=4, classes=["a", "c", "d"], seed=5)
    assert torch.equal(again.episode(7)[1][0], next(itertools.islice(made, 7, None))[1][0])


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"ways": 1}, autoinit.ArgumentError, "ways must be"),
        ({"ways": 5}, autoinit.DataError, "there are 4 classes"),
        ({"ways": 2, "shots": 10}, autoinit.DataError, r"0 \(15\)"),
        ({"ways": 2, "classes": [0, 9]}, autoinit.ArgumentError, "classes holds 9"),
        ({"ways": 2, "seed": -1}, autoinit.ArgumentError, "seed"),
    ],
)
def test_episodes_that_cannot_be_drawn_are_refused(options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        autoinit.episodes(torch.zeros(60, 2), torch.arange(4).repeat_interleave(15), **options)
    with pytest.raises(autoinit.DataError, match="one for each row"):
        autoinit.episodes(torch.zeros(60, 2), torch.zeros(59))


def test_scores_are_those_of_plain_training_on_each_episode() -> None:
    pixels, labels = load_digits(return_X_y=True)
    tasks = autoinit.episodes(pixels / 16, labels, ways=3, shots=3, queries=6, seed=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    with unchanged(model):
        found = autoinit.evaluate_episodes(model, tasks, episodes=4, inner_steps=3, inner_lr=0.5)
    begun, losses, right = observed_state(model), [], []
    for number in range(4):
        model.load_state_dict(begun)
        (x, y), (new_x, new_y) = tasks.episode(number)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x.float()), y).backward()
            optimizer.step()
        scores = model(new_x.float()).detach()
        losses.append(float(F.cross_entropy(scores, new_y)))
        right.append(float((scores.argmax(1) == new_y).double().mean()))
    assert found.losses == pytest.approx(losses, rel=1e-5)
    assert found.accuracy is not None
    assert found.accuracy.mean == pytest.approx(np.mean(right))
    assert found.accuracy == Estimate.of(right)


def observed_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_an_interval_is_students() -> None:
    found = Estimate.of([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.high - found.mean == pytest.approx(4.302653 * np.std([1, 2, 4], ddof=1) / np.sqrt(3))


# Bad input


SOUND = wave(0)
(X, Y), (NEW_X, NEW_Y) = SOUND


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "holds no episode"),
        (iter([SOUND]), "tasks ended after 1 episodes"),
        (3, "tasks gives a int"),
        (X, "tasks gives a Tensor"),
        ([(X, Y, X)], "An episode is"),
        ([((X, Y), None)], "the query of episode 0 is missing"),
        ([((X, Y), (NEW_X[:0], NEW_Y[:0]))], "one at least"),
        ([((X, Y[:3]), (NEW_X, NEW_Y))], "as many rows"),
        ([((X * torch.nan, Y), (NEW_X, NEW_Y))], "the support of episode 0 holds NaN"),
        ([((X.repeat(1, 2), Y), (NEW_X, NEW_Y))], r"cannot take episode 0, support .*\[8, 2\]"),
        ([SOUND, ((X.repeat(1, 2), Y), (NEW_X, NEW_Y))], "cannot take episode 1"),
    ],
)
def test_episodes_that_cannot_be_used_are_refused_and_the_model_left(tasks: Any, said: str) -> None:
    model = wave_network()
    with unchanged(model), pytest.raises(autoinit.DataError, match=said):
        autoinit.meta_learn(model, tasks, rounds=3)


@pytest.mark.parametrize(("labels", "said"), [([0, 0, 0], "1 class"), ([0, 1, 3], "label 3 .* out of range")])
def test_labels_that_are_no_task_are_refused(labels: list[int], said: str) -> None:
    model, x = nn.Linear(2, 3), torch.zeros(3, 2)
    for sides in ([((x, labels), (x, [0, 1, 2]))], [((x, [0, 1, 2]), (x, [0, 1, 2])), ((x, labels), (x, labels))]):
        with unchanged(model), pytest.raises(autoinit.DataError, match=said):
            autoinit.meta_learn(model, sides)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "repitle"}, "Did you mean 'reptile'"),
        ({"inner_steps": 0}, "inner_steps must be"),
        ({"inner_lr": -1.0}, "inner_lr must be"),
        ({"inner_lr": float("nan")}, "inner_lr must be"),
        ({"outer_lr": 1.5}, "share of the way"),
        ({"rounds": 2.5}, "rounds must be"),
        ({"meta_batch": True}, "meta_batch must be"),
        ({"head": "4"}, "all layers adapt"),
        ({"seed": -3}, "seed must be"),
        ({"state": "/nowhere/at/all"}, "there is no folder"),
        ({"inner_lr": 1e30}, "smaller inner_lr"),
    ],
)
def test_arguments_out_of_range_are_refused_and_the_model_left(options: dict[str, Any], said: str) -> None:
    model = wave_network()
    with unchanged(model), pytest.raises(autoinit.ArgumentError, match=said):
        autoinit.meta_learn(model, waves, **options)


def test_after_ctrl_c_the_model_is_as_it_was() -> None:
    def interrupted() -> Iterator[Any]:
        yield from (wave(number) for number in range(9))
        raise KeyboardInterrupt

    model = wave_network()
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        autoinit.meta_learn(model, interrupted, method="maml")


# Files


def test_a_start_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    learned = autoinit.meta_learn(model, [words(0)], rounds=2, seed=3)
    learned.save(tmp_path / "start.safetensors")
    found = autoinit.LearnedStart.load(tmp_path / "start.safetensors")
    assert {**vars(found), "parameters": 0, "buffers": 0} == {**vars(learned), "parameters": 0, "buffers": 0}
    for name, value in {**learned.parameters, **learned.buffers}.items():
        assert bits({**found.parameters, **found.buffers}[name]) == bits(value)
    assert str(found).startswith("A start learned by reptile, for 5 steps at rate 0.01.\n8 episodes in 2 rounds; ")


def test_another_architecture_is_refused_and_left() -> None:
    learned = autoinit.meta_learn(wave_network(), waves, rounds=1)
    wider = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 1))
    with unchanged(wider), pytest.raises(autoinit.SourceError, match=r"2\.weight is \[9, 12\], in the start \[8, 12\]"):
        learned.apply_(wider)
    with pytest.raises(autoinit.SourceError, match=r"4\.weight is missing in the model"):
        learned.apply_(wave_network()[:3])


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "start.safetensors"
    with pytest.raises(autoinit.SourceError, match="cannot be read"):
        autoinit.LearnedStart.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(autoinit.SourceError, match="is not a learned start"):
        autoinit.LearnedStart.load(path)
    autoinit.meta_learn(wave_network(), waves, rounds=1, state=path.with_name("state"))
    with pytest.raises(autoinit.SourceError, match="is the state of an unfinished learning, where a learned start"):
        autoinit.LearnedStart.load(path.with_name("state"))
    path.write_bytes(path.with_name("state").read_bytes()[:-20])
    with pytest.raises(autoinit.SourceError, match="damaged"):
        autoinit.LearnedStart.load(path)
