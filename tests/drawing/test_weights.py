"""A plan's weights: the same bits on any number of threads, and where they are drawn."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import autoinit
from autoinit.apply import apply_plan
from autoinit.drawing import weights
from autoinit.drawing.generators import CHUNK
from autoinit.initializers import orthogonal
from autoinit.plans.plan import Plan
from autoinit.probing.bench import Bench
from autoinit.recipes.catalogue import NAMED
from autoinit.task import snapshot as snapshot_module
from autoinit.task.machine import using_threads
from autoinit.task.snapshot import Snapshot
from autoinit.task.task import make_task
from autoinit.tracing.choices import keep_choices
from autoinit.tracing.tracing import trace_task
from benchmarks.speed.memory import LiveBytes


def net() -> nn.Sequential:
    """Returns a net with a table that is drawn in pieces, and matrices that are factorized."""
    torch.manual_seed(0)
    table = nn.Embedding(3000, 512, padding_idx=7)
    return nn.Sequential(table, nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 300))


def state(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


@pytest.mark.parametrize("name", ["he_normal", "he_uniform", "he_truncated", "orthogonal", "butterfly_orthogonal"])
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    found = []
    for threads in (1, 2, 3):
        with using_threads(threads):
            model = net()
            autoinit.apply_(model, name)
            assert torch.get_num_threads() == threads
        found.append(state(model))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
    assert not found[0][0][7].any()


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.fill_whole.__globals__["DRAWS"], "orthogonal", None)
    with using_threads(2), pytest.raises(TypeError, match="NoneType"):
        autoinit.apply_(net(), "orthogonal")
    assert torch.is_grad_enabled()


def test_a_model_off_meta_gets_the_bits_of_one_that_never_was_there() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    plan = autoinit.resolve("orthogonal", autoinit.trace(model))
    assert plan.drawn_on == ""
    filled = model.to_empty(device="cpu")
    autoinit.apply_(filled, plan)
    fresh = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    assert autoinit.apply_(fresh, "orthogonal").drawn_on == "cpu"
    assert all(map(torch.equal, state(filled), state(fresh)))


class Tied(nn.Module):
    """A language model's table and head, which are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(64, 16), nn.Linear(16, 16), nn.Linear(16, 64, bias=False)
        self.tie()

    def tie(self) -> None:
        self.head.weight = self.table.weight

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.body(self.table(codes)).relu())


def test_what_leaving_meta_takes_apart_is_said_with_what_to_do() -> None:
    codes = torch.zeros(2, 3, dtype=torch.long)
    with torch.device("meta"):
        model = Tied()
    plan = autoinit.resolve("he_normal", autoinit.trace(model, codes))
    assert "what a plan keeps needs some before it is applied" in plan.notes[-1]
    assert not autoinit.resolve("he_normal", autoinit.trace(nn.Linear(4, 2, device="meta"))).notes[1:]  # it keeps none
    filled = model.to_empty(device="cpu")
    with pytest.raises(autoinit.PlanMismatchError, match=r"nothing about head\.weight.*tie_weights.*to_empty"):
        autoinit.apply_(filled, plan)
    fresh = Tied()
    filled.table.load_state_dict(fresh.table.state_dict())  # it is kept
    filled.tie()
    autoinit.apply_(filled, plan)
    autoinit.apply_(fresh, "he_normal", codes)
    assert all(map(torch.equal, state(filled), state(fresh)))
    other = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10))
    with pytest.raises(autoinit.PlanMismatchError, match=r"apply its recipe: apply_\(model, plan\.recipe\)"):
        autoinit.apply_(other, plan)


def test_a_plan_from_meta_holds_no_second_copy_of_the_weights() -> None:
    """What a model of a billion weights needs: a process of its own, whose highest memory is that of its weights."""
    script = """
import resource, torch, autoinit
from torch import nn
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with torch.device("meta"):
    parts = [part for _ in range(12) for part in (nn.Linear(2048, 2048), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Linear(2048, 10))
autoinit.apply_(nn.Linear(2048, 2048), "he_normal")  # what torch itself takes for a draw
plan = autoinit.resolve("he_normal", autoinit.trace(model, torch.zeros(2, 2048)))
before, size = peak(), sum(4 * parameter.numel() for parameter in model.parameters())
autoinit.apply_(model.to_empty(device="cpu"), plan)
print((peak() - before) / size)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3


def test_a_plan_says_where_it_was_drawn_and_so_does_its_file(tmp_path: Path) -> None:
    model = net()
    plan = autoinit.apply_(model, "he_normal", draw_on="cpu")
    assert plan.drawn_on == "cpu"
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    again = net()
    assert autoinit.apply_(again, tmp_path / "plan.json") == plan
    assert all(map(torch.equal, state(model), state(again)))


def test_a_plan_of_a_device_that_is_not_here_says_that_its_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model, other = net(), net()
    plan = autoinit.apply_(model, "he_normal")
    elsewhere = dataclasses.replace(plan, drawn_on="cuda", drawn_with="autoinit 1, torch 2, NVIDIA H100")
    with pytest.warns(UserWarning, match=r"drawn on 'cuda' \(.*H100\), which is not here.*draw_on='cpu'"):
        assert autoinit.apply_(other, elsewhere).drawn_on == "cpu"
    assert all(map(torch.equal, state(model), state(other)))
    with pytest.warns(UserWarning, match="which is not here"):
        autoinit.apply_(net(), elsewhere, draw_on=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoinit.apply_(net(), elsewhere, draw_on="cpu")


def test_a_plan_of_another_model_of_gpu_says_that_its_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    plan = dataclasses.replace(autoinit.apply_(net(), "he_normal", draw_on="cpu"), drawn_on="cuda")
    drawn = {
        name: dataclasses.replace(plan, drawn_with=f"autoinit 1, torch 2, NVIDIA {name}") for name in ("A100", "H100")
    }
    with pytest.warns(UserWarning, match="drawn on NVIDIA H100, and is drawn here on NVIDIA A100"):
        weights.located(drawn["H100"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weights.located(drawn["A100"]).drawn_on == "cuda"
        assert weights.located(drawn["H100"], "cpu").drawn_on == "cpu"


def test_a_plan_of_before_says_where_its_numbers_have_changed() -> None:
    plan = autoinit.apply_(net(), "orthogonal")
    before = dataclasses.replace(plan, drawn_on="", drawn_with="autoinit 0.1.0, torch 2.13.0, cpu")
    with pytest.warns(UserWarning, match=r"made with autoinit 0\.1\.0.*other numbers for 1.weight, 3.weight"):
        autoinit.apply_(net(), before)
    small = nn.Linear(4, 2)
    plan = autoinit.apply_(small, "he_normal")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what it draws has not changed
        autoinit.apply_(small, dataclasses.replace(plan, drawn_on=""))


@pytest.mark.parametrize("recipe", ["he_normal", "lsuv"])
def test_inside_the_owners_autocast_the_weights_that_are_set_are_those_that_count(recipe: str) -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    data = [(x, x[:, :1])] if recipe == "lsuv" else None
    outside, inside = (nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
                       for _ in range(2))  # fmt: skip
    autoinit.apply_(outside, recipe, data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside(x)  # its weights are cast, and the casts kept until the block ends
        autoinit.apply_(inside, recipe, data)
        found = inside(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found, inside(x))
    for weight, other in zip(outside.parameters(), inside.parameters(), strict=True):
        torch.testing.assert_close(other, weight, rtol=0.05, atol=1e-3)


def test_large_weights_in_half_precision_need_a_piece_beside_them() -> None:
    """Not a copy of a weight in float32: as much as the draw of one piece."""
    model = nn.Linear(4096, 2048, bias=False, dtype=torch.bfloat16)
    plan = autoinit.apply_(model, "he_normal")
    with using_threads(1), LiveBytes(model) as counter:
        held = counter.live
        apply_plan(model, plan)
    assert held == 2 * 4096 * 2048
    assert 4 * CHUNK <= counter.peak - held <= 2 * 4 * CHUNK


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8, padding_idx=0)
        self.convolution, self.cell = nn.Conv1d(8, 8, 3, padding=1), nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.normed, self.head = parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 3)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.convolution(self.table(tokens).mT).relu().mT
        x = self.frozen(self.attention(self.cell(x)[0]))
        found: Tensor = self.head(self.normed(x).relu().mean(1))
        return found


@pytest.mark.parametrize("name", [name for name, recipe in NAMED.items() if recipe.calibration == "none"])
def test_what_a_plan_overwrites_may_hold_anything(name: str) -> None:
    torch.manual_seed(0)
    model, tokens = Mixed(), torch.randint(20, (6, 9))
    before = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    try:
        plan = autoinit.apply_(model, name, tokens)
    except autoinit.RecipeError:
        return  # for other networks
    expected = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    model.load_state_dict(before)
    plan = dataclasses.replace(plan, fills=tuple(dataclasses.replace(fill, result="") for fill in plan.fills))
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    found = weights.overwritten(model, plan)
    with torch.no_grad():
        for parameter in found:
            parameter.fill_(torch.nan)
    apply_plan(model, plan)
    assert all(parameter.equal(expected[path]) for path, parameter in model.named_parameters())
    assert not any("parametrizations" in names[id(parameter)] or not parameter.requires_grad for parameter in found)
    kept = [fill.name for fill in plan.fills if fill.distribution == "keep"]
    assert not {names[id(parameter)] for parameter in found} & set(kept)


def test_a_calibration_brings_no_weight_from_the_host_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(64, 12)
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    task = make_task(model, (x, x[:, :1]))
    brought: list[set[int]] = []
    copy_back = snapshot_module._copy_back
    rewind = Snapshot.rewind

    def spy(targets: list[Tensor], values: list[Tensor]) -> None:
        brought[-1].update(target.data_ptr() for target in targets)
        copy_back(targets, values)

    def begun(self: Snapshot, *but: Collection[nn.Parameter]) -> None:
        brought.append(set())
        rewind(self, *but)

    monkeypatch.setattr(snapshot_module, "_copy_back", spy)
    monkeypatch.setattr(Snapshot, "rewind", begun)
    with task.preserved() as snapshot:
        bench = Bench(task, keep_choices(task.model, trace_task(task)), snapshot, 0)
        for base, back in (("orthogonal", False), ("as_is", True)):
            brought.clear()
            bench.draw(autoinit.Recipe(base=base, calibration="lsuv"))
            assert [model[0].weight.data_ptr() in targets for targets in brought] == [True, back]
            assert all(model[1].running_mean.data_ptr() in targets for targets in brought)


def test_a_search_draws_where_it_is_told() -> None:
    x = torch.randn(200, 8)
    with pytest.raises(autoinit.ArgumentError, match="draw_on is"):
        autoinit.select(nn.Linear(8, 1), (x, x[:, :1]), draw_on="tpu")
    task = make_task(nn.Linear(8, 1), (x, x[:, :1]))
    with task.preserved() as snapshot:
        bench = Bench(task, keep_choices(task.model, trace_task(task)), snapshot, 0, "cpu")
        assert bench.draw(autoinit.Recipe(base="he_normal")).drawn_on == "cpu"


@pytest.mark.parametrize("by", ["recipe", "function"])
def test_an_autocast_around_a_draw_changes_nothing(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products inside of a draw would be in half precision, and decompositions have no such form on a device."""
    monkeypatch.setattr(torch.linalg, "householder_product", orthogonal._product)  # as a device has it
    found = []
    for autocast in (False, True):
        model = net()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), using_threads(1):
            if by == "recipe":
                autoinit.apply_(model, "orthogonal")
            else:
                autoinit.init.orthogonal_(model[3].weight, generator=torch.Generator().manual_seed(1))
        found.append(state(model))
    assert all(map(torch.equal, *found))
