from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import graphs
import pytest
from pydantic import ValidationError

from autoinit.errors import ArgumentError
from autoinit.graph import Graph
from autoinit.recipes.calibrations import CALIBRATION_ROWS
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import space_of
from autoinit.study.spec import DIMENSIONS, LongSpec, ProbeSpec, SpaceSpec, Study, TaskSpec

TASK = {"name": "mlp.digits", "model": "networks:mlp", "data": "real_data:digits"}
LEAST: dict[str, Any] = {"name": "quick", "tasks": [TASK], "space": {"recipes": ["he_normal"]}}


def full() -> Study:
    """A study with every field away from its default."""
    task = TaskSpec(
        name="mlp.digits.sgd",
        family="mlp",
        dataset="digits",
        model="networks:mlp",
        model_args={"features": 64, "shape": (1, 2), "inner": {"deep": True}},
        data="real_data:digits",
        data_args={"share": 0.5},
        batch_size=32,
        loss="networks:Losses.hinge",
        optimizer="torch.optim:SGD",
        optimizer_args={"lr": 0.1, "momentum": 0.9},
    )
    recipes = ("gpt2", Recipe(base="orthogonal", head="zero", rules=(("output", "zeros"),)), {"log2_gain": 1})
    return Study(
        name="full",
        description="All of it.",
        tasks=(task, TaskSpec(name="other", model="a:b", data="c:d", step="e:f")),
        space=SpaceSpec(
            recipes=recipes,  # type: ignore[arg-type]  # a Recipe becomes its fields
            opening=True,
            random=4,
            dimensions=("base", "head"),
            gain=(-1.5, 2),
            calibrations=("none", "lsuv"),
        ),
        seeds=(3, 1, 2),
        lr_steps=(-1, 2),
        mode="search",
        trials=40,
        batch=4,
        probe=ProbeSpec(steps=150, rungs=(10, 150)),
        long=LongSpec(steps=2000, top=5),
        stack=8,
        budget="90m",
        timeout="10m",
        storage="postgresql://server/studies",
        executor="ray",
        workers=3,
        threads=2,
    )


def test_every_field_away_from_its_default_comes_back_from_json() -> None:
    study = full()
    data = study.model_dump(mode="json")
    plain = Study.model_validate(LEAST).model_dump(mode="json")
    assert [name for name in data if data[name] == plain[name]] == [], "the example must use every field"
    assert Study.model_validate(data) == study
    assert Study.model_validate(json.loads(json.dumps(data))) == study
    assert data["tasks"][0]["model_args"] == {"features": 64, "shape": [1, 2], "inner": {"deep": True}}


def test_defaults() -> None:
    study = Study(**LEAST)
    assert (study.seeds, study.lr_steps, study.mode, study.batch, study.stack, study.threads) == (
        (0,),
        (),
        "dense",
        8,
        1,
        1,
    )
    assert study.probe == ProbeSpec(steps=200, rungs=(20, 50, 100))
    assert study.tasks[0].optimizer == "torch.optim:AdamW"
    assert (study.long, study.budget, study.storage, study.executor, study.workers) == (None, None, None, "local", None)


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Study(**LEAST).name = "other"  # type: ignore[misc]


def test_chosen_recipes_are_recipes_each_once_in_order() -> None:
    space = SpaceSpec(recipes=("kaiming_normal", {"base": "he_normal"}, "as_is", {"base": "normal", "head": "zero"}))
    assert space.chosen == (Recipe(base="he_normal"), Recipe(), Recipe(base="normal", head="zero"))


def test_shorter_probe_leaves_out_the_default_rungs_beyond_it() -> None:
    assert ProbeSpec(steps=60).rungs == (20, 50)
    assert ProbeSpec(steps=20).rungs == ()


@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.parametrize("budget", ["8h", "90s", "5m", None])
def test_allowed_values_pass(executor: str, budget: str | None) -> None:
    study = Study(**{**LEAST, "executor": executor, "budget": budget})
    assert (study.executor, study.budget) == (executor, budget)


@pytest.mark.parametrize("calibration", ["none", *CALIBRATION_ROWS])
def test_every_calibration_is_allowed(calibration: str) -> None:
    assert SpaceSpec(calibrations=(calibration,)).calibrations == (calibration,)


def test_dimensions_are_all_that_any_architecture_has() -> None:
    """A dimension that is added to the space must be known to study files."""
    nets = [graphs.mlp(), graphs.transformer(), graphs.lstm(), graphs.relu_rnn(), graphs.spiking(), graphs.adapted()]
    nets += [graphs.generator(), graphs.modulated()]
    nets.append(dataclasses.replace(graphs.mlp(), grows=("clone",)))
    nets.append(Graph((dataclasses.replace(graphs.linear("head", 4, 4), keep="trained", new_rows=3),)))
    found = {dimension.name for graph in nets for dimension in space_of(graph, lr_searched=False).dimensions}
    assert found == set(DIMENSIONS)


def with_task(**changed: Any) -> dict[str, Any]:
    return {"tasks": [{**TASK, **changed}]}


WRONG = [
    ({"name": "my study"}, "name: Got 'my study'. Allowed: letters, digits and _ . + -"),
    ({"name": "a/b"}, "name: Got 'a/b'"),
    ({"tasks": []}, "tasks: A study needs one task at least"),
    ({"tasks": [TASK, TASK]}, "tasks[1].name: Two tasks are called 'mlp.digits'; give each a name of its own"),
    (with_task(model="mlp"), "tasks[0].model: Got 'mlp'. Allowed: module:callable, such as train:make_model"),
    (with_task(loss="crossentropy"), 'tasks[0].loss: Got \'crossentropy\'. Allowed: "cross_entropy", "mse", or module'),
    (with_task(loss="mse", step="a:b"), "tasks[0].step: Give loss or step, not both"),
    (with_task(optimizer_args={"lr": "fast"}), "tasks[0].optimizer_args.lr: lr must be a positive number. Got 'fast'"),
    (with_task(optimizer_args={"lr": 0}), "tasks[0].optimizer_args.lr: lr must be a positive number. Got 0"),
    (with_task(model_args={"kind": object}), "tasks[0].model_args: Arguments may hold texts, finite numbers, true"),
    (with_task(model_args={"gain": float("nan")}), "tasks[0].model_args: Arguments may hold texts, finite numbers"),
    (with_task(batchsize=3), "tasks[0].batchsize: there is no such key. Did you mean 'batch_size'?"),
    ({"tasks": [{"name": "a", "model": "b:c"}]}, "tasks[0].data: it is missing"),
    (
        {"space": {"recipes": ["he_norml"]}},
        "space.recipes[0]: No recipe is called 'he_norml'. Did you mean 'he_normal'?",
    ),
    (
        {"space": {"recipes": ["as_is", {"heed": "zero"}]}},
        "space.recipes[1]: A recipe has no field 'heed'. Did you mean",
    ),
    ({"space": {"recipes": [{"head": "none"}]}}, "space.recipes[0]: The recipe is not a valid Recipe: head"),
    ({"space": {"recipes": [7]}}, 'space.recipes[0]: A recipe is a name such as "he_normal", or a table'),
    ({"space": {"opening": 1}}, "space.opening: Got 1"),
    ({"space": {"random": -1}}, "space.random: Got -1"),
    (
        {"space": {"random": 1, "dimensions": ["gain"]}},
        "space.dimensions[0]: There is no dimension 'gain'. Did you mean",
    ),
    ({"space": {"random": 1, "dimensions": []}}, "space.dimensions: The list is empty"),
    ({"space": {"random": 1, "gain": [2, -2]}}, "space.gain: gain is a range, the lower end first. Got [2.0, -2.0]"),
    ({"space": {"random": 1, "gain": [0, 31]}}, "space.gain[1]: Got 31"),
    ({"space": {"random": 1, "calibrations": ["luv"]}}, "space.calibrations[0]: Got 'luv'. Allowed: 'none', 'lsuv'"),
    ({"space": {}}, "space: A dense study has nothing to compare with as-is"),
    ({"seeds": []}, "seeds: The list is empty"),
    ({"seeds": [0, 1, 0]}, "seeds: Each value may stand there once. Twice or more: 0"),
    ({"seeds": [True]}, "seeds[0]: Got True"),
    ({"lr_steps": [0]}, "lr_steps[0]: A place of the learning-rate grid is one of -2, -1, 1, 2. Got 0"),
    ({"lr_steps": [1, 1]}, "lr_steps: Each value may stand there once"),
    ({"mode": "sparse"}, "mode: Got 'sparse'. Allowed: 'dense' or 'search'"),
    ({"mode": "search"}, 'mode: mode = "search" needs trials'),
    ({"trials": 5}, 'trials: trials is for mode = "search"'),
    ({"probe": {"rungs": [50, 20]}}, "probe.rungs: rungs must grow and end at steps = 200 at most. Got [50, 20]"),
    ({"probe": {"steps": 30, "rungs": [40]}}, "probe.rungs: rungs must grow and end at steps = 30 at most"),
    ({"probe": {"steps": "200"}}, "probe.steps: Got '200'"),
    ({"long": {"top": 2}}, "long.steps: it is missing"),
    ({"budget": "8 days"}, "budget: A budget is a number of seconds, a text such as"),
    ({"executor": "slurm"}, "executor: Got 'slurm'. Allowed: 'local' or 'ray'"),
    ({"workers": 0}, "workers: Got 0"),
    ({"sedes": [1]}, "sedes: there is no such key. Did you mean 'seeds'? Known: "),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_value_is_named_with_what_is_allowed(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        Study(**{**LEAST, **changed})
    assert str(raised.value).startswith("This is not a valid Study: ")
    assert message in str(raised.value)


def test_parts_raise_the_packages_own_error_too() -> None:
    with pytest.raises(ArgumentError, match=r"^This is not a valid TaskSpec: name: it is missing\.$"):
        TaskSpec(model="a:b")  # type: ignore[call-arg]


def test_it_needs_no_torch() -> None:
    code = "import sys, autoinit.study.toml_file, autoinit.factories; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_training_of_ones_own_stands_in_the_place_of_data_and_optimizer() -> None:
    own = {"name": "agent", "model": "mine:model", "train": "mine:train", "validate": "mine:returns"}
    task = TaskSpec.model_validate(own)
    assert (task.data, task.train, task.validation) == (None, "mine:train", "mine:returns")
    assert TaskSpec.model_validate(task.model_dump(mode="json")) == task
    for changes, said in (
        ({"data": "mine:data", "optimizer_args": {"lr": 0.1}}, "leave out data, optimizer_args"),
        ({"loss": "mse"}, "leave out loss"),
        ({"train": None}, "give data to train on, or train"),
        ({"train": None, "data": "mine:data"}, "validate belongs to train, which is not given"),
        ({"train": "train"}, "Allowed: module:callable"),
    ):
        with pytest.raises(ArgumentError, match=said):
            TaskSpec(**{**own, **changes})
    with pytest.raises(ArgumentError, match="lr_steps: agent trains by its own train"):
        Study(name="mine", tasks=[own], space={"recipes": ["he_normal"]}, lr_steps=[1])
