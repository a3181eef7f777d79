"""What large models need: one copy of the weights on the device, and checkpointing and accumulation as they are."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2LMHeadModel

import autoinit
from autoinit.errors import ModelError
from autoinit.probing.probe import probe
from autoinit.task import snapshot as snapshot_module
from autoinit.task import task as task_module
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task
from benchmarks.speed import memory
from benchmarks.speed.memory import Case, Transformer, accumulated, batches, counted

CPU = torch.device("cpu")
DATA = batches(64, CPU)
SMALL_BATCHES = batches(8, CPU)[:80]
SMALLEST = autoinit.Budget(steps=420)


def live_after(work: Callable[[], object], model: nn.Module) -> tuple[int, int]:
    """Returns the bytes that some work leaves alive, and its peak, both beyond the model; the collector is off."""
    gc.collect()
    gc.disable()
    try:
        with counted(model, DATA) as counter:
            before = counter.live
            kept = work()
            found = counter.live - before, counter.peak - before
            del kept
            return found
    finally:
        gc.enable()


def small(**rest: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(width=32, layers=2, **rest)


def test_the_counter_follows_storages() -> None:
    model = nn.Linear(256, 256)
    with counted(model, DATA) as counter:
        weights = counter.live
        assert weights == 256 * 257 * 4
        kept = model.weight.detach().clone()
        view = kept[:1]
        assert counter.live == 2 * weights - 1024
        del kept
        assert counter.live == 2 * weights - 1024  # the view holds it
        del view
        assert (counter.live, counter.peak) == (weights, 2 * weights - 1024)
        kept = model.weight.detach().to("cpu", copy=True)  # elsewhere, on a device of its own
        assert (counter.live, counter.peak, len(kept)) == (weights, 2 * weights - 1024, 256)


@pytest.mark.parametrize(
    ("name", "recipes"), [("SGD", ["he_normal", "lsuv"]), ("AdamW", ["orthogonal", "within_layer"])]
)
def test_select_takes_no_more_of_the_device_than_training(name: str, recipes: list[str]) -> None:
    optimizer = {"SGD": partial(SGD, lr=0.05), "AdamW": partial(AdamW, lr=1e-3)}[name]
    case = Case(partial(memory.net, 192, 4), optimizer, rows=16)
    found = memory.measured(case, CPU, budget=SMALLEST, recipes=recipes)
    assert found.ratio <= memory.TARGET


def test_a_copy_on_the_device_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same measurement, of a snapshot that is kept where the weights are."""

    def on_the_device(tensors: Any) -> tuple[list[Tensor], list[Tensor]]:
        targets = [tensor.detach() for tensor in tensors]
        return targets, [target.clone() for target in targets]

    monkeypatch.setattr(snapshot_module, "_copies", on_the_device)
    case = Case(partial(memory.net, 192, 4), partial(SGD, lr=0.05), rows=16)
    found = memory.measured(case, CPU, budget=SMALLEST, recipes=["he_normal"])
    assert found.ratio > memory.TARGET


@pytest.mark.parametrize("kind", ["plain", "checkpointed", "accumulated", "bfloat16"])
def test_reading_a_model_leaves_nothing_on_the_device(kind: str) -> None:
    model = small(checkpointed=kind == "checkpointed")
    options: dict[str, Any] = {"accumulated": {"step": accumulated}, "bfloat16": {"autocast": torch.bfloat16}}.get(
        kind, {}
    )
    task = make_task(model, DATA, **options)
    left, _ = live_after(lambda: trace_task(task), model)
    assert left < 4096  # the grid on which activations are tabulated, which the module keeps


def test_a_task_leaves_nothing_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the held-back rows in their groups, which are data."""
    monkeypatch.setattr("autoinit.task.task.held_back_groups", lambda *batches, **rest: None)
    model = small()
    assert live_after(lambda: make_task(model, DATA, optimizer=AdamW), model)[0] == 0


def test_a_traced_accumulation_holds_one_micro_batch() -> None:
    """Backward is left out of a traced step, so all micro-batches would be alive at a time."""
    model = small()
    whole, parts = (make_task(model, DATA, **options) for options in ({}, {"step": accumulated}))
    peaks = [live_after(lambda task=task: trace_task(task), model)[1] for task in (whole, parts)]  # type: ignore[misc]
    assert peaks[1] < 0.4 * peaks[0]


class MicroBatches:
    """A step that takes the same mean in micro-batches."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        count = len(batch[1])
        total = torch.zeros(())
        for x, y in zip(batch[0].split(self.rows), batch[1].split(self.rows), strict=True):
            loss = F.cross_entropy(model(x), y, reduction="sum") / count
            if torch.is_grad_enabled():
                loss.backward()
            total += loss.detach()
        return total


ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "checkpointed": ({"checkpointed": True}, {}),
    "accumulated": ({}, {"step": MicroBatches(4)}),
    "both": ({"checkpointed": True}, {"step": MicroBatches(4)}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_checkpointing_and_accumulation_change_no_graph(name: str) -> None:
    build, options = ALIKE[name]
    plain = trace_task(make_task(small(), DATA))
    model = small(**build)
    with unchanged(model):
        graph = trace_task(make_task(model, DATA, **options))
    assert graph.layers == plain.layers
    assert graph.residual_adds == plain.residual_adds == 4


def selected(name: str) -> autoinit.Selection:
    build, options = ALIKE.get(name, ({}, {}))
    torch.manual_seed(0)
    model = Transformer(width=16, layers=1, **build)
    budget = autoinit.Budget(steps=200)
    chosen = {"recipes": ["he_normal", "lsuv"], "budget": budget, "lr": 1e-2, "executor": "sequential"}
    with unchanged(model):
        return autoinit.select(model, SMALL_BATCHES, optimizer=AdamW, apply=False, **chosen, **options)


@pytest.mark.slow
def test_checkpointing_and_accumulation_change_no_selection() -> None:
    plain = selected("plain")
    for name in ALIKE:
        other = selected(name)
        assert (other.recipe, other.kept) == (plain.recipe, plain.kept)
        # Gradients of micro-batches are summed in another order, and training makes more of that rounding at each step.
        # Batches of another size are another task to the recommender, which may have recipes tried in another order.
        trials = (found.trials.sort_values(["stage", "recipe"], kind="stable") for found in (other, plain))
        losses = (torch.tensor(one.last_loss.to_numpy()) for one in trials)
        torch.testing.assert_close(*losses, rtol=2e-2, atol=2e-3)


def tiny_gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=17, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, use_cache=False
    )
    return GPT2LMHeadModel(config)


TOKENS = {"input_ids": (DATA[0][0][:, :16] * 16).long(), "labels": (DATA[0][0][:, :16] * 16).long()}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_transformers_own_checkpointing_changes_no_graph() -> None:
    model = tiny_gpt2()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with unchanged(model):
        assert autoinit.trace(model, TOKENS) == autoinit.trace(tiny_gpt2(), TOKENS)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_reentrant_checkpointing_of_transformers_is_refused() -> None:
    model = tiny_gpt2()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    for use in (autoinit.trace, autoinit.select, autoinit.diagnose):
        with pytest.raises(ModelError, match=r"gradient_checkpointing_kwargs=\{'use_reentrant': False\}"):
            use(model, {key: value.repeat(4, 1) for key, value in TOKENS.items()})  # type: ignore[operator]


class Reentrant(nn.Module):
    """Hides its first layer, or all of it, of whose input no gradient is wanted."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.first, self.last, self.whole = nn.Linear(64, 32), nn.Linear(32, 10), whole

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return checkpoint(lambda x: self.last(self.first(x).relu()), x, use_reentrant=True)
        return self.last(checkpoint(self.first, x, use_reentrant=True).relu())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("whole", [False, True])
def test_reentrant_checkpointing_of_the_data_is_refused(whole: bool) -> None:
    model = Reentrant(whole)
    with pytest.raises(ModelError, match="use_reentrant=False"), unchanged(model):
        autoinit.select(model, DATA)
    with pytest.raises(ModelError, match="use_reentrant=False"), unchanged(model):
        autoinit.trace(model, DATA)


class Momentum(SGD):
    """An optimizer that is out of memory at one step of all its instances, its state and gradients made."""

    def __init__(self, params: Any, desk: Desk) -> None:
        super().__init__(params, lr=0.05, momentum=0.9)
        self.desk = desk
        desk.opened(self)

    def step(self, closure: Any = None) -> None:
        super().step()
        self.desk.stepped(self)


@dataclasses.dataclass
class Desk:
    """Counts the steps of all trials, and notes what of the one that failed is alive when the next begins."""

    at: int
    steps: int = 0
    held: list[weakref.ref[Any]] = dataclasses.field(default_factory=list)
    alive: list[list[bool]] = dataclasses.field(default_factory=list)

    def opened(self, optimizer: Momentum) -> None:
        if self.held:
            self.alive.append([held() is not None for held in self.held])

    def stepped(self, optimizer: Momentum) -> None:
        self.steps += 1
        if self.steps == self.at:
            parameters = optimizer.param_groups[0]["params"]
            made = [p.grad for p in parameters] + [optimizer.state[p]["momentum_buffer"] for p in parameters]
            self.held = [weakref.ref(optimizer), *(weakref.ref(tensor.untyped_storage()) for tensor in made)]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has …")


def test_out_of_memory_ends_one_trial_and_frees_what_it_had() -> None:
    model = memory.net(32, 1)
    desk = Desk(at=150)
    gc.collect()
    gc.disable()
    try:
        with unchanged(model):
            selection = autoinit.select(
                model,
                DATA,
                optimizer=lambda parameters: Momentum(parameters, desk),
                recipes=["he_normal", "xavier_normal", "orthogonal"],
                budget=autoinit.Budget(steps=600),
                apply=False,
                executor="sequential",
            )
    finally:
        gc.enable()
    failed = selection.trials[selection.trials.state == "failed"]
    assert list(failed.reason) == ["OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."]
    assert set(selection.trials.state) > {"failed"}
    assert len(desk.held) == 13
    assert not any(desk.alive[0])


def test_data_beyond_a_size_are_moved_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is the same; a task of small data moves nothing after it is made."""
    moved: list[torch.device] = []
    move = task_module.move

    def noted(batch: Any, device: torch.device) -> Any:
        moved.append(device)
        return move(batch, device)

    def trained(model: nn.Module) -> tuple[list[float], int]:
        task = make_task(model, DATA, optimizer=partial(SGD, lr=0.05))
        moved.clear()
        with unchanged(model), task.preserved():
            return list(probe(task, steps=5, seed=0, held_back=task.probe_eval).losses), len(moved)

    monkeypatch.setattr(task_module, "move", noted)
    model = memory.net(32, 1)
    whole, none = trained(model)
    monkeypatch.setattr(task_module, "RESIDENT_BYTES", 1000)
    apart, some = trained(model)
    assert whole == apart
    assert (none, some > 5) == (0, True)
