"""What is trained, on real digits and real modules; and what bad input gets."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import snntorch
import torch
from helpers import unchanged
from once import mnist
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from autoinit.errors import AutoInitError, DataError, DeviceError, ModelError, OptimizerError, StepError
from autoinit.task.batches import rows
from autoinit.task.task import Task, example_task, make_task, measured_task

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS = DIGITS / 16


def mlp(inputs: int = 64, outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, outputs))


def train(task: Task, steps: int = 60, seed: int = 0) -> list[float]:
    """Trains inside `preserved` and returns the losses."""
    losses = []
    with task.preserved():
        task.model.train()
        optimizer, _ = task.build_optimizer(3.0)
        for batch in task.order(seed, steps):
            optimizer.zero_grad()
            losses.append(task.backward(batch).item())
            optimizer.step()
    return losses


def test_mnist_digits_learn_and_the_model_is_put_back() -> None:
    x, y = mnist()
    model = mlp(784)
    with unchanged(model):
        task = make_task(model, (x / 255, y))
        losses = train(task)
    assert losses[0] > 2
    assert losses[-1] < 1
    assert (task.loss_name, task.optimizer_name, task.lr, task.lr_searched) == ("cross_entropy", "AdamW", 1e-3, True)
    assert task.label_prior == pytest.approx([0.1] * 10, abs=0.02)
    assert task.reference == pytest.approx(2.302, abs=2e-3)
    assert [sum(map(rows, part)) for part in (task.train, task.probe_eval, task.gate_eval)] == [3968, 512, 512]


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=10
    )
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=64, n_embd=16, n_layer=1, n_head=2))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 10)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.net(torch.cat([left, right], 1))


class Spiking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif, self.last = nn.Linear(64, 32), snntorch.Leaky(beta=0.9), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.memory = self.lif.init_leaky()
        total: Any = 0
        for _ in range(4):
            spikes, self.memory = self.lif(self.first(x), self.memory)
            total = total + self.last(spikes)
        return total


TOKENS = DIGITS * 16
DIABETES = load_diabetes(as_frame=True)

TASKS: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any], str]] = {
    "classification": (mlp, (DIGITS, CLASSES), {}, "cross_entropy"),
    "frames": (lambda: mlp(10, 1), (DIABETES.data, DIABETES.target), {}, "mse"),
    "one-column frame": (lambda: mlp(10, 1), (DIABETES.data, pd.DataFrame({"y": DIABETES.target})), {}, "mse"),
    "autoencoder": (lambda: mlp(64, 64), DIGITS, {}, "mse"),
    "two inputs": (TwoInputs, (DIGITS[:, :32], DIGITS[:, 32:], CLASSES), {}, "cross_entropy"),
    "two inputs in a tuple": (TwoInputs, ((DIGITS[:, :32], DIGITS[:, 32:]), CLASSES), {}, "cross_entropy"),
    "own loss": (
        mlp,
        (DIGITS, CLASSES),
        {"loss": lambda scores, labels: F.cross_entropy(scores, labels, label_smoothing=0.1)},
        "custom",
    ),
    "torch's loss": (mlp, (DIGITS, CLASSES), {"loss": F.cross_entropy}, "cross_entropy"),
    "step": (mlp, (DIGITS, CLASSES), {"step": lambda m, b: F.cross_entropy(m(b[0]), b[1])}, "step"),
    "language model": (gpt2, {"input_ids": TOKENS.astype(int), "labels": TOKENS.astype(int)}, {}, "model"),
    "bert": (bert, {"input_ids": TOKENS.astype(int)[:, :32], "labels": CLASSES}, {}, "model"),
    "bert, loss outside": (bert, (TOKENS.astype(int)[:, :32], CLASSES), {}, "cross_entropy"),
    "spiking": (Spiking, (DIGITS, CLASSES), {}, "cross_entropy"),
    "double precision": (lambda: mlp().double(), (DIGITS, CLASSES), {}, "cross_entropy"),
    "mixed precision": (mlp, (DIGITS, CLASSES), {"autocast": torch.bfloat16}, "cross_entropy"),
}


@pytest.mark.parametrize("name", TASKS)
def test_kinds_of_training(name: str) -> None:
    build, data, options, loss_name = TASKS[name]
    model = build()
    with unchanged(model):
        task = make_task(model, data, **options)
        losses = train(task, 20)
        with task.preserved():
            held = task.evaluate(task.probe_eval)
            assert all(parameter.grad is None for parameter in model.parameters())
    assert task.loss_name == loss_name
    assert all(map(torch.isfinite, map(torch.tensor, [*losses, *held])))
    assert (task.reference is None) == (loss_name in ("custom", "step"))
    if task.reference is not None and name not in ("frames", "one-column frame", "autoencoder"):
        assert losses[0] == pytest.approx(task.reference, rel=1.0)


def test_reference_of_a_regression_is_the_targets_variance() -> None:
    task = make_task(mlp(10, 1), (DIABETES.data, DIABETES.target))
    assert task.reference == pytest.approx(DIABETES.target.var(ddof=0), rel=0.15)
    assert task.label_prior == ()


def test_loss_is_plain_autograds() -> None:
    model = mlp()
    task = make_task(model, (DIGITS, CLASSES))
    x, y = task.train[0]
    with task.preserved():
        model.eval()
        value = task.backward((x, y)).item()
        fast = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        slow = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        assert value == pytest.approx(F.cross_entropy(model(x), y).item())
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other)


def test_order_depends_on_the_seed_alone_and_covers_every_epoch() -> None:
    task = make_task(mlp(), (DIGITS, CLASSES))
    count = len(task.train)
    first, again, other = ([id(batch) for batch in task.order(seed, 2 * count + 3)] for seed in (0, 0, 1))
    torch.rand(3)
    assert first == again != other
    assert len(first) == 2 * count + 3
    assert sorted(first[:count]) == sorted(map(id, task.train)) == sorted(first[count : 2 * count])
    assert list(task.order(0, 0)) == []


def test_trials_repeat_after_a_rewind() -> None:
    model = mlp()
    task = make_task(model, (DIGITS, CLASSES))
    curves = []
    with task.preserved() as snapshot:
        for _ in range(2):
            snapshot.rewind()
            torch.manual_seed(0)
            optimizer, _ = task.build_optimizer()
            curve = []
            for batch in task.order(0, 10):
                optimizer.zero_grad()
                curve.append(task.backward(batch).item())
                optimizer.step()
            curves.append(curve)
    assert curves[0] == curves[1]


def clipping(model: nn.Module, batch: Any, detach: bool = True) -> Tensor:
    """Accumulates over two halves, clips, and calls backward by itself."""
    total = torch.zeros(())
    for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
        loss = F.cross_entropy(model(x), y) / 2
        loss.backward()
        total = total + (loss.detach() if detach else loss)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    return total


@pytest.mark.parametrize("detach", [True, False])
def test_a_step_may_clip_accumulate_and_call_backward(detach: bool) -> None:
    model = mlp()
    with unchanged(model):
        task = make_task(model, (DIGITS, CLASSES), step=lambda m, b: clipping(m, b, detach))
        with task.preserved():
            task.backward(task.train[0])
            norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
            assert norm.item() == pytest.approx(0.5, rel=1e-3)  # once: not doubled by a second backward
        losses = train(task)
    assert losses[-1] < losses[0] / 2


def test_a_forward_that_writes_into_its_input_does_not_change_the_batches() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(64, 10))
    x = torch.tensor(DIGITS - 0.5, dtype=torch.float32)
    batches = list(DataLoader(TensorDataset(x, torch.tensor(CLASSES)), batch_size=64))
    before = copy.deepcopy(batches)
    task = make_task(model, batches)
    train(task, 5)
    assert all(one[0].equal(other[0]) for one, other in zip(batches, before, strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_inside_a_forward_leaves_the_model(error: type[BaseException]) -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls, self.limit = mlp(), 0, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > self.limit:
                raise error
            return self.net(x)

    model = Interrupted()
    with pytest.raises(error), unchanged(model):
        make_task(model, (DIGITS, CLASSES))
    model.limit = 5
    task = make_task(model, (DIGITS, CLASSES))
    with pytest.raises(error), unchanged(model):
        train(task)


def test_gradients_of_the_owner_survive() -> None:
    model = mlp()
    model(torch.randn(4, 64)).sum().backward()
    with unchanged(model):
        train(make_task(model, (DIGITS, CLASSES)), 3)


def test_mixed_precision_is_inherited() -> None:
    model = mlp()
    assert make_task(model, (DIGITS, CLASSES)).autocast is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task = make_task(model, (DIGITS, CLASSES))
    assert task.autocast == torch.bfloat16
    dtypes = []
    hook = model[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    task.loss(task.train[0])
    hook.remove()
    assert dtypes == [torch.bfloat16]


def test_works_under_no_grad_and_inference_mode() -> None:
    model = mlp()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, unchanged(model):
            assert train(make_task(model, (DIGITS, CLASSES)), 3)


def test_eval_mode_and_frozen_parts_stay() -> None:
    model = mlp().eval()
    model[0].requires_grad_(False)
    with unchanged(model):
        train(make_task(model, (DIGITS, CLASSES)), 3)


def test_given_optimizer_and_validation_data() -> None:
    model = mlp()
    owner = SGD([{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.01}], lr=0.1)
    task = make_task(model, (DIGITS, CLASSES), optimizer=owner, val_data=(DIGITS[:600], CLASSES[:600]))
    assert (task.optimizer_name, task.lr, task.lr_searched) == ("SGD", 0.1, False)
    assert sum(map(rows, task.train)) == 28 * 64
    assert sum(map(rows, task.probe_eval + task.gate_eval)) == 600
    assert not owner.state


def test_other_device_is_moved_to_and_back() -> None:
    """The meta device stands in for an accelerator: every tensor moves, and comes back to its memory."""
    model = mlp()
    task = make_task(model, (DIGITS, CLASSES))
    task.device = torch.device("meta")
    with unchanged(model), task.preserved() as snapshot:
        for _ in range(2):
            assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
            snapshot.rewind()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_is_moved_to_and_back() -> None:
    model = mlp()
    with unchanged(model):
        task = make_task(model, (DIGITS, CLASSES), device="cuda", autocast=torch.bfloat16)
        losses = train(task)
    assert losses[-1] < losses[0]
    assert task.train[0][0].is_cuda


def test_own_work_per_step_is_small() -> None:
    """On a model that costs next to nothing, a call through the task adds microseconds to it."""
    model = nn.Linear(4, 3)
    task = make_task(model, (torch.randn(640, 4), torch.zeros(640, dtype=torch.int64)))
    batch = task.train[0]

    def direct() -> None:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        loss.item()

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    pairs = [(seconds(direct), seconds(lambda: task.backward(batch))) for _ in range(500)]
    plain, through = (min(column) for column in zip(*pairs, strict=True))
    assert through - plain < 5e-5


# What bad input gets.

WORDS = pd.DataFrame({"size": [1.0, 2.0] * 50, "city": ["Ulm", "Bonn"] * 50})
NAN = DIGITS.copy()
NAN[0, 0] = float("nan")


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).detach()


class Unused(Detached):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :10].clone().requires_grad_()


def broken() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, :2] = torch.tensor([float("nan"), float("inf")])
    return model


def misses_labels(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0])


BAD: dict[str, tuple[Callable[[], Any], Any, dict[str, Any], type[AutoInitError], str]] = {
    "empty": (mlp, [], {}, DataError, "data is empty"),
    "no rows": (mlp, (DIGITS[:0], CLASSES[:0]), {}, DataError, "data is empty"),
    "one batch": (mlp, [(torch.zeros(8, 64), torch.zeros(8).long())], {}, DataError, "one batch.*val_data"),
    "nothing": (mlp, None, {}, DataError, "Allowed: a DataLoader"),
    "nan": (mlp, (NAN, CLASSES), {}, DataError, "NaN or inf: 1 of 4096 values"),
    "nan in validation": (mlp, (DIGITS, CLASSES), {"val_data": (NAN, CLASSES)}, DataError, "val_data holds NaN"),
    "label 10": (mlp, (DIGITS, CLASSES + 1), {}, DataError, r"label 10 .*10 classes.* 0 … 9"),
    "label -1": (mlp, (DIGITS, CLASSES - 1), {}, DataError, "label -1 .*out of range"),
    "label for bert": (
        bert,
        {"input_ids": TOKENS.astype(int), "labels": CLASSES + 5},
        {},
        DataError,
        "cannot take a batch|out of range",
    ),
    "label later": (mlp, (DIGITS, CLASSES * (CLASSES != 9) + 10 * (CLASSES == 9)), {}, DataError, "label 10 "),
    "shape": (mlp, (DIGITS[:, :20], CLASSES), {}, DataError, r"\[64, 20\] float32.*'0.weight' is \[32, 64\]"),
    "dtype": (mlp, (DIGITS.astype("uint8"), CLASSES), {}, DataError, r"uint8.*float32.*It said.*float\(\) / 255"),
    "shape later": (
        mlp,
        [(torch.randn(8, 64), torch.arange(8))] * 20 + [(torch.randn(8, 20), torch.arange(8))],
        {},
        DataError,
        r"batch 20 of data, \(\[8, 20\] float32.* another, \(\[8, 64\] float32.*'0.weight' is \[32, 64\]",
    ),
    "target shape later": (
        lambda: mlp(outputs=1),
        [(torch.randn(8, 64), torch.randn(8, 1))] * 9 + [(torch.randn(8, 64), torch.randn(8, 2))],
        {},
        DataError,
        r"batch 9 of data.*\[8, 1\] float32 and the target \[8, 2\]",
    ),
    "shape of validation": (
        mlp,
        (DIGITS, CLASSES),
        {"val_data": (DIGITS[:, :20], CLASSES)},
        DataError,
        r"batch 0 of val_data, .*\[32, 64\]",
    ),
    "argument": (
        bert,
        {"ids": TOKENS.astype(int), "labels": CLASSES},
        {},
        DataError,
        "specify exactly one of input_ids",
    ),
    "words": (mlp, (WORDS, CLASSES[:100]), {}, DataError, "no numbers: city"),
    "regression shape": (mlp, (DIGITS, DIGITS), {}, DataError, r"\[64, 10\].*\[64, 64\]"),
    "loss fails": (
        mlp,
        (DIGITS, CLASSES),
        {"loss": nn.BCEWithLogitsLoss()},
        DataError,
        r"output \[64, 10\] float32 and the target \[64\] int64",
    ),
    "all frozen": (lambda: mlp().requires_grad_(False), (DIGITS, CLASSES), {}, ModelError, "no trainable.*Unfreeze"),
    "no parameter": (nn.ReLU, (DIGITS, CLASSES), {}, ModelError, "none at all"),
    "no module": (lambda: mlp, (DIGITS, CLASSES), {}, ModelError, r"model is a function\..*Call it.*mlp\("),
    "class": (lambda: Detached, (DIGITS, CLASSES), {}, ModelError, r"model is the class Detached\..*Detached\("),
    "number": (lambda: 3, (DIGITS, CLASSES), {}, ModelError, r"model is a int.*instance\.$"),
    "weight": (
        broken,
        (DIGITS, CLASSES),
        {},
        ModelError,
        r"0.weight itself holds NaN or inf \(2 of 2048 values\).*model.get_submodule\('0'\).reset_parameters\(\)",
    ),
    "lazy": (lambda: nn.LazyLinear(10), (DIGITS, CLASSES), {}, ModelError, "Call the model once"),
    "detached": (Detached, (DIGITS, CLASSES), {}, ModelError, "no gradient reaches.*detach"),
    "unused": (Unused, (DIGITS, CLASSES), {}, ModelError, "no gradient reaches"),
    "meta": (lambda: mlp().to("meta"), (DIGITS, CLASSES), {}, ModelError, "meta device.*to_empty"),
    "step vector": (mlp, (DIGITS, CLASSES), {"step": misses_labels}, StepError, r"\[64, 10\].*one scalar"),
    "step none": (mlp, (DIGITS, CLASSES), {"step": lambda m, b: None}, StepError, "a NoneType"),
    "step float": (mlp, (DIGITS, CLASSES), {"step": lambda m, b: 1.0}, StepError, "a float"),
    "loss vector": (mlp, (DIGITS, CLASSES), {"loss": nn.CrossEntropyLoss(reduction="none")}, StepError, r"\[64\]"),
    "optimizer none": (mlp, (DIGITS, CLASSES), {"optimizer": lambda p: None}, OptimizerError, "returned None"),
    "device": (mlp, (DIGITS, CLASSES), {"device": "quantum"}, DeviceError, "'quantum'.*Available: cpu"),
    "device number": (mlp, (DIGITS, CLASSES), {"device": "cuda:99"}, DeviceError, "Available: cpu"),
    "autocast": (mlp, (DIGITS, CLASSES), {"autocast": torch.int8}, DeviceError, "bfloat16"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    build, data, options, error, message = BAD[name]
    model = build()
    inner = model if isinstance(model, nn.Module) and name != "lazy" else nn.Linear(1, 1)
    with pytest.raises(error, match=message), unchanged(inner):
        make_task(model, data, **options)


def test_frozen_weights_may_hold_infinities() -> None:
    model = mlp()
    model.register_parameter("mask", nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False))
    assert make_task(model, (DIGITS, CLASSES)).loss_name == "cross_entropy"


def test_batches_of_other_shapes_that_fit_are_taken() -> None:
    """Padded to their own lengths, images of several sizes: nothing is wrong, and there is no mean target."""
    sizes = [8, 9, 10, 11, 12] * 4
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1))
    images = [torch.randn(8, 1, size, size) for size in sizes]
    with unchanged(model):
        task = make_task(model, [(x, x) for x in images], val_data=[(x[:1], x[:1]) for x in images[:3]])
    assert (task.loss_name, task.reference) == ("mse", None)


def test_integers_are_class_numbers_only_where_the_loss_says_so() -> None:
    counts = (DIGITS, CLASSES + 50)
    poisson = make_task(mlp(64, 1), counts, loss=lambda out, target: F.poisson_nll_loss(out[:, 0], target))
    assert (poisson.loss_name, poisson.reference, poisson.label_prior) == ("custom", None, ())

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.net(x)
            return {"loss": (scores.mean(1) - labels).square().mean(), "logits": scores}

    own = make_task(Own(), {"x": DIGITS, "labels": CLASSES + 50})
    assert (own.loss_name, own.reference) == ("model", None)


def test_double_input_to_a_single_model_names_both() -> None:
    batches = list(DataLoader(TensorDataset(torch.tensor(DIGITS), torch.tensor(CLASSES)), batch_size=64))
    with pytest.raises(DataError, match=r"float64.*float32.*It said RuntimeError"):
        make_task(mlp(), batches)


# Looking at an architecture needs less.


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize(
    ("build", "data"),
    [
        (mlp, (DIGITS, CLASSES)),
        (mlp, torch.zeros(2, 64)),
        (mlp, (torch.zeros(2, 64), torch.zeros(2).long())),
        (gpt2, {"input_ids": torch.zeros(2, 8).long()}),
        (gpt2, {"input_ids": torch.zeros(2, 8).long(), "labels": torch.zeros(2, 8).long()}),
    ],
)
def test_an_example_is_enough_to_look_at(build: Callable[[], nn.Module], data: Any, meta: bool) -> None:
    model = build().to("meta") if meta else build()
    with unchanged(model):
        task = example_task(model, data)
        with task.preserved():
            loss = task.loss(task.train[0])
            assert loss.requires_grad
            assert loss.is_meta == meta
    assert task.probe_eval == ()


def test_a_task_holds_neither_gradients_nor_a_prediction_of_its_check() -> None:
    """A language model's prediction takes more memory than its weights; only its shape is asked for."""
    model = mlp()
    seen: list[weakref.ref[Any]] = []
    hook = model.register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    task = make_task(model, (DIGITS, CLASSES))
    hook.remove()
    assert task.reference == pytest.approx(2.3, abs=0.01)
    assert seen[0]() is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_held_back_rows_are_grouped_alike_however_they_were_batched() -> None:
    rows_of_val = TensorDataset(torch.tensor(DIGITS[:397], dtype=torch.float32), torch.tensor(CLASSES[:397]))
    made = [
        make_task(mlp(), (DIGITS, CLASSES), val_data=DataLoader(rows_of_val, size)).gate_eval for size in (128, 32, 200)
    ]
    assert [rows(group) for group in made[0]] == [25, 25, 25, 25, 25, 25, 24, 24]
    for other in made[1:]:
        assert all(
            torch.equal(x, y) for one, two in zip(made[0], other, strict=True) for x, y in zip(one, two, strict=True)
        )


def summed(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="sum")


def test_batches_whose_loss_is_no_mean_over_rows_stay_as_they_are() -> None:
    val = DataLoader(TensorDataset(torch.tensor(DIGITS, dtype=torch.float32), torch.tensor(CLASSES)), 100)
    task = make_task(mlp(), (DIGITS, CLASSES), val_data=val, loss=summed)
    assert {rows(group) for group in (*task.probe_eval, *task.gate_eval)} == {100}


class StepsFirst(nn.Module):
    """An LSTM on (steps, rows, features): the first axis is no row."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0])


def test_batches_whose_first_axis_is_time_are_not_cut() -> None:
    images = torch.tensor(DIGITS, dtype=torch.float32).reshape(-1, 8, 8).transpose(0, 1)
    labels = torch.tensor(CLASSES).expand(8, -1)
    batches = list(zip(images.split(32, 1), labels.split(32, 1), strict=True))[:50]
    task = make_task(StepsFirst(), batches, loss=lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()))
    assert {tuple(group[0].shape) for group in (*task.probe_eval, *task.gate_eval)} == {(8, 32, 8)}


def test_an_evaluation_costs_as_many_forward_passes_as_it_has_rows() -> None:
    task = make_task(mlp(), (DIGITS, CLASSES))
    assert rows(task.train[0]) == 64
    assert task.forwards(task.gate_eval) == sum(map(rows, task.gate_eval)) / 64


def test_one_batch_is_enough_to_measure_and_weights_need_not_be_finite() -> None:
    model = broken()
    x, y = torch.as_tensor(DIGITS[:16], dtype=torch.float32), torch.as_tensor(CLASSES[:16])
    with unchanged(model):
        task = measured_task(model, [(x, y)])
    assert len(task.train) == 1
    assert not task.probe_eval
    assert task.loss_name == "cross_entropy"
    assert task.reference is not None
