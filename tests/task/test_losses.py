"""The loss that fits a batch and an output, against torch's own on the same numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput

from autoinit.errors import AutoInitError, DataError, StepError
from autoinit.task.losses import (
    BestConstant,
    Loss,
    LossName,
    best_constant,
    class_frequencies,
    entropy,
    split,
    targets,
    variance,
)
from autoinit.task.task import make_task

X, Y = torch.randn(8, 5), torch.arange(8) % 3
TOKENS = torch.arange(8 * 4).reshape(8, 4) % 3


class Returns(nn.Module):
    """Returns what it was told to, remembering what it was called with."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.called = (args, kwargs)
        return self.output


@dataclasses.dataclass
class Record:
    x: Tensor
    y: Tensor


@pytest.mark.parametrize(
    ("batch", "args", "keywords", "has_target"),
    [
        (X, 1, (), False),
        ((X,), 1, (), False),
        ((X, Y), 1, (), True),
        ([X, Y], 1, (), True),
        ((X, X, Y), 2, (), True),
        (((X, X), Y), 2, (), True),
        (({"a": X, "b": X}, Y), 0, ("a", "b"), True),
        ({"input_ids": X, "labels": Y}, 0, ("input_ids", "labels"), True),
        ({"input_ids": X}, 0, ("input_ids",), False),
        (Record(X, Y), 0, ("x", "y"), True),
    ],
)
def test_batches_split_into_inputs_and_target(
    batch: Any, args: int, keywords: tuple[str, ...], has_target: bool
) -> None:
    found, named, target = split(batch)
    assert (len(found), tuple(named)) == (args, keywords)
    assert (target is Y) if has_target else (target is None)


SCORES, SEQUENCE, IMAGE = torch.randn(8, 3), torch.randn(8, 4, 3), torch.randn(8, 3, 2, 2)
MASKED = torch.where(TOKENS == 1, -100, TOKENS)


@pytest.mark.parametrize(
    ("output", "batch", "name", "expected"),
    [
        (SCORES, (X, Y), "cross_entropy", F.cross_entropy(SCORES, Y)),
        (SCORES, (X, Y.int()), "cross_entropy", F.cross_entropy(SCORES, Y)),
        (SCORES, (X, Y[:, None]), "cross_entropy", F.cross_entropy(SCORES, Y)),
        (SEQUENCE, (X, TOKENS), "cross_entropy", F.cross_entropy(SEQUENCE.transpose(1, 2), TOKENS)),
        (SEQUENCE, (X, MASKED), "cross_entropy", F.cross_entropy(SEQUENCE.transpose(1, 2), MASKED)),
        (SEQUENCE.transpose(1, 2), (X, TOKENS), "cross_entropy", F.cross_entropy(SEQUENCE.mT, TOKENS)),
        (IMAGE, (X, TOKENS.view(8, 2, 2)), "cross_entropy", F.cross_entropy(IMAGE, TOKENS.view(8, 2, 2))),
        ((SCORES, "state"), (X, Y), "cross_entropy", F.cross_entropy(SCORES, Y)),
        ({"hidden": X, "logits": SCORES}, (X, Y), "cross_entropy", F.cross_entropy(SCORES, Y)),
        (CausalLMOutput(loss=None, logits=SCORES), (X, Y), "cross_entropy", F.cross_entropy(SCORES, Y)),
        (X, (X, 2 * X), "mse", F.mse_loss(X, 2 * X)),
        (X[:, :1], (X, X[:, 0]), "mse", torch.zeros(())),
        (X[:, 0], (X, X[:, :1]), "mse", torch.zeros(())),
        (2 * X, X, "mse", F.mse_loss(2 * X, X)),
        (2 * X, (X,), "mse", F.mse_loss(2 * X, X)),
        (X.mean(), X, "model", X.mean()),
        ({"loss": X.mean(), "logits": SCORES}, (X, Y), "model", X.mean()),
        (CausalLMOutput(loss=X.mean()), {"input_ids": X, "labels": Y}, "model", X.mean()),
    ],
)
def test_loss_is_inferred(output: Any, batch: Any, name: str, expected: Tensor) -> None:
    loss = Loss()
    torch.testing.assert_close(loss(Returns(output), batch), expected)
    assert loss.name == name


def test_a_tensor_may_carry_its_loss() -> None:
    scores = SCORES.clone()
    scores.loss = X.mean()  # type: ignore[attr-defined]
    loss = Loss()
    assert loss(Returns(scores), (X, Y)) == X.mean()
    assert loss.name == "model"


@pytest.mark.parametrize(
    ("output", "batch", "error", "message"),
    [
        (SCORES, X, DataError, r"single tensors \[8, 5\].*output \[8, 3\]"),
        (SCORES, {"x": X}, DataError, "no target was found.*labels"),
        (SCORES, (X, X), DataError, r"\[8, 3\] float32 and the target \[8, 5\]"),
        (SCORES, (X, TOKENS), DataError, r"\[8, 3\] float32 does not fit integer targets \[8, 4\]"),
        (SCORES[:, 0], (X, Y), DataError, "make the targets floats"),
        ("text", (X, Y), StepError, "returned a str without a tensor"),
    ],
)
def test_what_has_no_loss_is_told_so(output: Any, batch: Any, error: type[AutoInitError], message: str) -> None:
    with pytest.raises(error, match=message):
        Loss()(Returns(output), batch)


@pytest.mark.parametrize("value", [None, 3.0, "loss", SCORES, (SCORES.mean(),)])
def test_a_step_and_a_loss_must_give_one_scalar(value: Any) -> None:
    with pytest.raises(StepError, match=r"step returned .* where one scalar is needed"):
        Loss(step=lambda model, batch: value)(Returns(SCORES), X)
    with pytest.raises(StepError, match=r"loss returned .* where one scalar is needed"):
        Loss(loss=lambda output, target: value)(Returns(SCORES), (X, Y))


def test_given_losses_get_output_and_target() -> None:
    batch = {"input_ids": X, "labels": Y}
    model = Returns(SCORES)
    assert Loss(loss=F.cross_entropy)(model, batch) == F.cross_entropy(SCORES, Y)
    assert list(model.called[1]) == ["input_ids"]  # the loss takes the labels, so the model need not
    assert Loss(loss=lambda output, target: target.sum())(model, X) == X.sum()
    assert Loss(loss=lambda output, target: target.sum()[None])(model, X).shape == ()


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (F.cross_entropy, "cross_entropy"),
        (nn.CrossEntropyLoss(), "cross_entropy"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "custom"),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), "custom"),
        (F.mse_loss, "mse"),
        (nn.MSELoss(), "mse"),
        (nn.MSELoss(reduction="sum"), "custom"),
        (F.l1_loss, "custom"),
    ],
)
def test_torchs_own_plain_losses_are_known_by_name(loss: Any, name: str) -> None:
    assert Loss(loss).name == name


def test_a_class_in_the_place_of_its_instance_is_told_so() -> None:
    with pytest.raises(StepError, match=r"loss is a class; pass nn.CrossEntropyLoss\(\)"):
        Loss(nn.CrossEntropyLoss)


@dataclasses.dataclass
class Answer:
    loss: Tensor


@pytest.mark.parametrize(
    ("value", "said"),
    [({"loss": SCORES.mean()}, r"a dict .*Return its \['loss'\]"), (Answer(SCORES.mean()), r"Return its \.loss")],
)
def test_a_step_that_returns_more_than_the_loss_is_told_which_part(value: Any, said: str) -> None:
    with pytest.raises(StepError, match=said):
        Loss(step=lambda model, batch: value)(Returns(SCORES), X)


def test_what_cannot_be_called_is_told_so() -> None:
    with pytest.raises(StepError, match="loss is 'mse', which cannot be called"):
        Loss("mse")  # type: ignore[arg-type]
    with pytest.raises(StepError, match="both given"):
        Loss(F.mse_loss, lambda model, batch: X.mean())


def test_the_best_constants_loss_is_what_descent_finds() -> None:
    labels = [torch.tensor([0, 0, 1, -100]), torch.tensor([2, 0, 1, 0])]
    frequencies = class_frequencies(labels, 4)
    assert frequencies == (4 / 7, 2 / 7, 1 / 7, 0.0)
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.expand(8, 4), torch.cat(labels))
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(entropy(frequencies), abs=1e-3)
    values = [torch.randn(6, 3), torch.randn(4, 3)]
    whole = torch.cat(values)
    assert variance(values) == pytest.approx(F.mse_loss(whole.mean(0).expand(10, 3), whole).item())
    assert math.isclose(variance([X[:, 0]]), F.mse_loss(X[:, 0].mean().expand(8), X[:, 0]).item(), rel_tol=1e-5)


def test_targets_are_the_inputs_of_an_autoencoder() -> None:
    found = targets([X, (X, Y), {"a": X}])
    assert [id(target) for target in found] == [id(X), id(Y)]


CLASSES = torch.tensor([0, 0, 0, 1])


@pytest.mark.parametrize(
    ("name", "output", "target", "prior", "loss"),
    [
        ("cross_entropy", torch.empty(4, 3), CLASSES, (0.75, 0.25, 0.0), entropy((0.75, 0.25))),
        ("cross_entropy", torch.empty(4, 1), torch.zeros(4, dtype=torch.int64), (1.0,), None),
        ("cross_entropy", torch.empty(4, 3), CLASSES + 2, (), None),
        ("model", torch.empty(4, 3), CLASSES, (0.75, 0.25, 0.0), entropy((0.75, 0.25))),
        ("model", torch.empty(4, 3), CLASSES + 2, (), None),
        ("model", torch.empty(4, 3), CLASSES.float(), (), None),
        ("mse", torch.empty(4), torch.tensor([0.0, 0.0, 2.0, 2.0]), (), 1.0),
        ("mse", torch.empty(4), torch.zeros(4), (), None),
        ("custom", torch.empty(4, 3), CLASSES, (), None),
        ("cross_entropy", None, CLASSES, (), None),
    ],
)
def test_the_best_constant_is_known_of_known_losses(
    name: LossName, output: Tensor | None, target: Tensor, prior: tuple[float, ...], loss: float | None
) -> None:
    found = best_constant(name, output, [(torch.empty(4, 2), target)] * 2)
    assert found == BestConstant(prior, None if loss is None else pytest.approx(loss))


def test_rows_of_several_shapes_have_no_best_constant() -> None:
    ragged = [(torch.empty(4, 2), torch.rand(4, width)) for width in (2, 3)]
    assert best_constant("mse", torch.empty(4, 2), ragged) == BestConstant()


class Speaks(nn.Module):
    """A character model that returns its scores and its loss, which leaves out the label -1, in either order."""

    def __init__(self, order: tuple[int, int], penalty: bool = False) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 12)
        self.order, self.penalty = order, penalty

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        scores = self.head(self.table(x))
        if self.penalty:
            return scores, self.head.weight.square().sum()
        if y is None:
            return scores, None
        loss = F.cross_entropy(scores.flatten(0, 1), y.flatten(), ignore_index=-1)
        found = (scores, loss)
        return tuple(found[at] for at in self.order)


def characters() -> list[dict[str, Tensor]]:
    x = torch.randint(0, 12, (8, 8, 5), generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[:, :, 0] = -1
    return [{"x": one, "y": other} for one, other in zip(x, y, strict=True)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_model_that_returns_its_loss_in_a_tuple_is_taken_at_its_word(order: tuple[int, int]) -> None:
    model = Speaks(order)
    task = make_task(model, characters())
    assert task.loss_name == "model"
    wanted = model(**task.train[0])[order.index(1)].item()
    assert task.loss(task.train[0]).item() == wanted
    with torch.no_grad():
        assert task.loss(task.train[0]).item() == wanted


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_step_or_a_loss_may_return_a_tuple_with_one_scalar_that_has_a_gradient(order: tuple[int, int]) -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        scores, loss = Speaks.forward(model, **batch)
        accuracy = torch.tensor(0.5)
        return (accuracy, *((scores, loss)[at] for at in order))

    model = Speaks((0, 1))
    task = make_task(model, characters(), step=step)
    wanted = model(**task.train[0])[1].item()
    assert task.evaluate([task.train[0]]) == [wanted]
    by_loss = Loss(lambda output, target: (output, F.mse_loss(output, target)))
    x = torch.randn(4, 3)
    assert by_loss(nn.Linear(3, 3), (x, x)).dim() == 0


def test_a_penalty_beside_the_scores_is_not_taken_for_the_loss() -> None:
    pairs = [(batch["x"], batch["x"]) for batch in characters()]
    assert make_task(Speaks((0, 1), penalty=True), pairs).loss_name == "cross_entropy"


def test_two_scalars_with_a_gradient_are_refused_with_the_remedy() -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        loss = model(batch["x"], batch["y"])[1]
        return loss, 2 * loss

    with pytest.raises(StepError, match="Return the one part of it that is the loss"):
        make_task(Speaks((0, 1)), characters(), step=step)
