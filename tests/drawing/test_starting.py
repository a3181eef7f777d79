"""Learned starts and tickets as candidates of a search, on digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit
from autoinit.drawing.starting import held, parted, start_of, with_starts
from autoinit.errors import RecipeError, SourceError
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import Space
from autoinit.stacks.stackable import why_not
from autoinit.study.candidates import candidates_of
from autoinit.study.spec import SpaceSpec, TaskSpec
from autoinit.study.workbench import Workbench
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DEPTH = 8


def deep(seed: int = 0, width: int = 24) -> nn.Sequential:
    """A tanh network that hardly trains from torch's own draw."""
    torch.manual_seed(seed)
    layers = [nn.Linear(64, width), nn.Tanh()]
    for _ in range(DEPTH):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


@pytest.fixture(scope="module")
def learned(data: tuple[Tensor, Tensor]) -> autoinit.LearnedStart:
    """From orthogonal weights, which train, a few rounds of Reptile on digits."""
    model = deep(1)
    autoinit.apply_(model, "orthogonal", data)
    tasks = autoinit.episodes(*data, ways=10, shots=2, queries=2)
    return autoinit.meta_learn(model, tasks, method="reptile", rounds=3, meta_batch=1, inner_steps=2)


@pytest.fixture(scope="module")
def sparse(data: tuple[Tensor, Tensor]) -> autoinit.Ticket:
    model = deep(1)
    autoinit.apply_(model, "orthogonal", data)
    return autoinit.ticket(model, data, 0.3, method="snip")


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


BUDGET = autoinit.Budget(steps=500)


def test_a_learned_start_wins_and_its_plan_is_whole(
    data: tuple[Tensor, Tensor], learned: autoinit.LearnedStart, tmp_path: Path
) -> None:
    model = deep()
    found = autoinit.select(model, data, recipes=[learned], optimizer=sgd, budget=BUDGET)
    assert found.recipe.start.startswith("learned-")
    assert not found.kept
    assert same(state(model), {**learned.parameters, **learned.buffers})
    assert "learned start" in str(found)
    assert found.sparse == ""  # nothing of it is removed
    found.save(tmp_path / "init.json")
    other = deep(5)
    autoinit.apply_(other, tmp_path / "init.json")
    assert same(state(other), state(model))


def test_files_stand_for_what_they_hold(
    learned: autoinit.LearnedStart, sparse: autoinit.Ticket, tmp_path: Path
) -> None:
    learned.save(tmp_path / "a.safetensors")
    sparse.save(tmp_path / "b.safetensors")
    recipes, starts = parted([tmp_path / "a.safetensors", str(tmp_path / "b.safetensors"), "he_normal"])
    assert [one.name for one in starts] == [start_of(learned).name, start_of(sparse).name]
    assert recipes == [*(Recipe(start=one.name) for one in starts), "he_normal"]
    changed = dataclasses.replace(learned, parameters={k: v + 1 for k, v in learned.parameters.items()})
    assert start_of(changed).name != start_of(learned).name


def test_a_ticket_wins_and_keeps_its_masks(data: tuple[Tensor, Tensor], sparse: autoinit.Ticket) -> None:
    model, like = deep(), deep()
    found = autoinit.select(model, data, recipes=[sparse, "as_is"], optimizer=sgd, budget=BUDGET)
    assert found.recipe.start.startswith("ticket-")
    sparse.apply_(like)
    assert same(state(model), state(like))
    assert "Ticket.load(path).apply_(model)" in str(found.plan)
    assert "at equal multiply-adds" in str(found).replace("\n         ", " ")
    assert "Ticket.apply_(model)" in found.sparse


def test_a_probe_trains_under_the_masks(data: tuple[Tensor, Tensor], sparse: autoinit.Ticket) -> None:
    """With weight decay, momentum and an optimizer that moves entries without a gradient."""
    model = deep()
    task = make_task(model, data=data, optimizer=sgd, seed=0)
    start = start_of(sparse)
    graph = with_starts(task, trace_task(task), [start])
    before = state(model)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, 0)
        bench.draw(Recipe(start=start.name))
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with held(task, Recipe(start=start.name)):
            for _ in range(3):
                optimizer.zero_grad()
                task.backward(task.train[0])
                assert all(not model.get_parameter(n).grad[~m].any() for n, m in sparse.masks.items())  # type: ignore[index]
                with torch.no_grad():
                    model.get_parameter("0.weight").add_(0.01)
                optimizer.step()
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())
        assert all(model.get_parameter(name)[mask].any() for name, mask in sparse.masks.items())
        assert all(one._backward_hooks is None for one in model.parameters())
        assert "ticket" in why_not(bench)
    assert same(state(model), before)


@pytest.mark.parametrize("which", ["learned", "sparse"])
def test_another_architecture_is_refused_by_its_layers(
    data: tuple[Tensor, Tensor], which: str, request: pytest.FixtureRequest
) -> None:
    model = deep(width=16)
    before = state(model)
    with pytest.raises(SourceError, match=r"0\.weight"):
        autoinit.select(model, data, recipes=[request.getfixturevalue(which)], optimizer=sgd, budget=BUDGET)
    assert same(state(model), before)


def test_bad_candidates_are_refused(
    data: tuple[Tensor, Tensor], learned: autoinit.LearnedStart, tmp_path: Path
) -> None:
    model = deep()
    before = state(model)
    (tmp_path / "damaged.safetensors").write_bytes(b"no safetensors")
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(2)}, tmp_path / "plain.safetensors")
    for wrong, error, said in [
        (3, RecipeError, "Pass names, recipes, learned starts or tickets"),
        ([3], RecipeError, "Got int"),
        ([tmp_path / "damaged.safetensors"], SourceError, "holds no learned start and no ticket"),
        ([tmp_path / "plain.safetensors"], SourceError, "holds no learned start and no ticket"),
        ([str(tmp_path / "missing.safetensors")], SourceError, "There is no file .*missing"),
        ([Recipe(start=start_of(learned).name)], RecipeError, "is not at hand"),
    ]:
        with pytest.raises(error, match=said):
            autoinit.select(model, data, recipes=wrong, optimizer=sgd, budget=BUDGET)  # type: ignore[arg-type]
    assert same(state(model), before)
    with pytest.raises(RecipeError, match="start"):
        Recipe(start="learned-3fa2b1c4", base="he_normal")


def test_frozen_weights_are_respected_or_refused(
    data: tuple[Tensor, Tensor], learned: autoinit.LearnedStart, sparse: autoinit.Ticket
) -> None:
    model = deep()
    model.get_parameter("0.weight").requires_grad_(False)
    task = make_task(model, data=data, optimizer=sgd, seed=0)
    graph = trace_task(task)
    with pytest.raises(SourceError, match=r"0\.weight.*frozen"):
        with_starts(task, graph, [start_of(sparse)])
    start = start_of(learned)
    graph = with_starts(task, graph, [start])
    with task.preserved() as snapshot:
        Bench(task, graph, snapshot, 0).draw(Recipe(start=start.name))
        assert torch.equal(model.get_parameter("0.weight"), deep().get_parameter("0.weight"))
        assert torch.equal(model.get_parameter("2.weight"), learned.parameters["2.weight"])


def test_parametrized_weights_are_refused(data: tuple[Tensor, Tensor], sparse: autoinit.Ticket) -> None:
    model = deep()
    nn.utils.parametrizations.weight_norm(model[0])
    task = make_task(model, data=data, optimizer=sgd, seed=0)
    with pytest.raises(SourceError, match=r"0\."):
        with_starts(task, trace_task(task), [start_of(sparse)])


def test_recommend_names_a_start_that_fits(data: tuple[Tensor, Tensor], learned: autoinit.LearnedStart) -> None:
    found = autoinit.recommend(deep(), data, starts=[learned])
    assert "reptile" in found.starts[0]
    assert "not known" in found.starts[0]
    assert "a start learned by reptile" in str(found)
    assert autoinit.recommend(deep(width=16), data, starts=[learned]).starts == ()


def test_a_study_tries_the_starts_of_a_task(learned: autoinit.LearnedStart, tmp_path: Path) -> None:
    learned.save(tmp_path / "a.safetensors")
    (tmp_path / "starting_nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def data():\n    return torch.randn(64, 64), torch.arange(64) % 10\n"
        "def net():\n"
        f"    inner = [m for _ in range({DEPTH}) for m in (nn.Linear(24, 24), nn.Tanh())]\n"
        "    return nn.Sequential(nn.Linear(64, 24), nn.Tanh(), *inner, nn.Linear(24, 10))\n"
    )
    spec = TaskSpec(name="a", model="starting_nets:net", data="starting_nets:data", start="a.safetensors")
    assert spec == TaskSpec.model_validate({**spec.model_dump(), "start": ["a.safetensors"]})
    bench = Workbench(spec, 0, [tmp_path])
    try:
        found, _ = candidates_of(SpaceSpec(recipes=["he_normal"]), bench.graph, Space((), ()), seed=0)
        assert found[1] == Recipe(start=start_of(learned).name)
        bench.bench.draw(found[1])
        weight = bench.bench.task.model.get_parameter("0.weight")
        assert torch.equal(weight, learned.parameters["0.weight"])
    finally:
        bench.close()
