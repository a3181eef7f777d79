"""A worker's own work, without its process: a task is built, described, trained and put back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from study_plans import TASK, plan
from torch import Tensor, nn

from autoinit.errors import ArgumentError, FactoryError, ModelError, SourceError
from autoinit.recipes.catalogue import as_recipe
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.seeds import seed_of_use
from autoinit.study.jobs import Described, StudyJob, dense_jobs
from autoinit.study.performer import Performer, failed_line
from autoinit.study.spec import TaskSpec
from autoinit.study.workbench import Workbench

TIMES = ("seconds", "finished")
RECIPES = ["he_normal", "xavier_uniform", "lsuv", "orthogonal"]


def stateful() -> nn.Module:
    """A network with dropout, whose training depends on the global random state."""
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 10))


def explosive() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 10))


def word() -> str:
    return "a model"


def batches() -> list[tuple[Tensor, Tensor]]:
    rows, labels = load_digits(return_X_y=True)
    return list(zip(torch.tensor(rows[:960] / 16).float().split(32), torch.tensor(labels[:960]).split(32), strict=True))


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A whole step, of whose loss no constant predictor's is known."""
    x, y = batch
    return ((model(x) - nn.functional.one_hot(y, 10)) ** 2).mean() + 1


def spec(**changes: Any) -> TaskSpec:
    return TaskSpec.model_validate({**TASK, **changes})


@pytest.fixture
def performer() -> Iterator[Performer]:
    made = Performer(plan(space={"recipes": RECIPES}))
    yield made
    made.close()


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in TIMES}


def lines(study: Any, seed: int | None = None) -> list[dict[str, Any]]:
    """Returns the lines of all trials of the first task, run by one performer."""
    performer = Performer(study)
    try:
        described = performer.describe(study.tasks[0].name)
        jobs = dense_jobs(study, study.tasks[0].name, described)
        return list(performer.run([job for job in jobs if seed in (None, job.seed)], described))
    finally:
        performer.close()


# The workbench


def test_workbench_puts_random_states_back() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    at = Workbench(spec(model="test_performer:stateful"), 3, [])
    at.described(plan())
    at.close()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workbench_that_cannot_be_built_puts_random_states_back_too() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(FactoryError, match=r"tasks mlp: model: .*weights\.bin is not here"):
        Workbench(spec(model="study_models:broken"), 3, [])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_seed_decides_the_weights_and_not_the_data() -> None:
    models, data = [], []
    for seed in (0, 0, 1):
        at = Workbench(spec(), seed, [])
        models.append(at.bench.task.model[0].weight.detach().clone())
        data.append(at.bench.task.train[0][0].clone())
        at.close()
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])
    assert torch.equal(data[0], data[1])
    assert torch.equal(data[0], data[2])


def test_batches_have_the_size_that_the_study_says() -> None:
    at = Workbench(spec(batch_size=48), 0, [])
    assert {len(batch[0]) for batch in at.bench.task.train} == {48}
    at.close()


def test_a_task_starts_from_its_checkpoint_and_what_that_has_stays(tmp_path: Path) -> None:
    at = Workbench(spec(), 0, [])
    first = {name: value.clone() for name, value in at.bench.task.model.state_dict().items() if name.startswith("0.")}
    told = at.described(plan()).fingerprint
    at.close()
    save_file(first, tmp_path / "body.safetensors")
    at = Workbench(spec(checkpoint="body.safetensors"), 7, [tmp_path])
    assert torch.equal(at.bench.task.model[0].weight, first["0.weight"])
    assert {layer.name for layer in at.graph.trained} == {"0.weight", "0.bias"}
    at.bench.draw(Recipe(base="orthogonal"))
    assert torch.equal(at.bench.task.model[0].weight, first["0.weight"])
    assert at.described(plan()).fingerprint != told
    at.close()
    with pytest.raises(SourceError, match=r"There is no .*lost\.safetensors"):
        Workbench(spec(checkpoint="lost.safetensors"), 0, [tmp_path])


def test_a_task_has_candidates_for_longer_tables_and_for_stale_weights(tmp_path: Path) -> None:
    at = Workbench(spec(), 0, [])
    trained = {name: value.clone() for name, value in at.bench.task.model.state_dict().items()}
    at.close()
    save_file(trained, tmp_path / "stale.safetensors")
    at = Workbench(spec(checkpoint="stale.safetensors"), 7, [tmp_path])
    plan = at.bench.draw(as_recipe("shrink_and_perturb"))
    assert plan.base == "trained"
    found = at.bench.task.model[0].weight.detach()
    assert float(torch.corrcoef(torch.stack([found.flatten(), trained["0.weight"].flatten()]))[0, 1]) > 0.3
    at.bench.draw(OWN)
    assert torch.equal(at.bench.task.model[0].weight, trained["0.weight"])
    at.close()
    shorter = {name: value[:8].clone() if name.startswith("2.") else value for name, value in trained.items()}
    save_file(shorter, tmp_path / "shorter.safetensors")
    at = Workbench(spec(checkpoint="shorter.safetensors"), 7, [tmp_path])
    at.bench.draw(as_recipe("rows_zero"))
    assert torch.equal(at.bench.task.model[2].weight[:8], shorter["2.weight"])
    assert not at.bench.task.model[2].weight[8:].any()
    at.close()


def test_a_task_may_take_after_a_trained_network(tmp_path: Path) -> None:
    at = Workbench(spec(), 0, [])
    small = {name: value[..., :4].clone() if name == "2.weight" else value.clone() for name, value in
             at.bench.task.model.state_dict().items()}  # fmt: skip
    small |= {"0.weight": small["0.weight"][:4].clone(), "0.bias": small["0.bias"][:4].clone()}
    at.close()
    save_file(small, tmp_path / "small.safetensors")
    at = Workbench(spec(source="small.safetensors"), 0, [tmp_path])
    assert "clone" in at.graph.grows
    at.bench.draw(Recipe(growth="zero_pad"))
    assert torch.equal(at.bench.task.model[0].weight[:4], small["0.weight"])
    at.close()


def test_reference_is_a_constant_guess_or_the_owners_own_training() -> None:
    at = Workbench(spec(), 0, [])
    assert (at.reference.loss, at.reference.guess) == (pytest.approx(math.log(10), abs=0.01), True)
    at.close()
    own = {"data": "test_performer:batches", "batch_size": None, "loss": None}
    at = Workbench(spec(**own, step="test_performer:squared"), 0, [])
    before = [parameter.detach().clone() for parameter in at.bench.task.model.parameters()]
    with torch.no_grad():
        first = float(squared(at.bench.task.model, at.bench.task.train[0]))
    assert (at.reference.loss, at.reference.guess) == (pytest.approx(first, rel=0.1), False)
    after = at.bench.task.model.parameters()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True)), "its weights were put back"
    at.close()


def test_fingerprint_is_of_what_is_trained_and_not_of_its_name() -> None:
    def fingerprint(seed: int = 0, **changes: Any) -> str:
        at = Workbench(spec(**changes), seed, [])
        found = at.described(plan(tasks=[{**TASK, **changes}])).fingerprint
        at.close()
        return found

    same = fingerprint()
    assert fingerprint(name="other", family="net", dataset="digit rows") == same
    assert fingerprint(seed=4) == same
    changed = [
        fingerprint(model_args={"width": 33}),
        fingerprint(batch_size=31),
        fingerprint(optimizer_args={"lr": 0.06}),
        fingerprint(loss=None),
    ]
    assert len({same, *changed}) == 5


def test_description_tells_what_the_task_is() -> None:
    study = plan(space={"recipes": ["he_normal", "fixup"], "random": 3})
    performer = Performer(study)
    found = performer.describe("mlp")
    assert found == performer.describe("mlp")
    performer.close()
    assert (found.lr, found.features["parameters"], found.features["loss"]) == (0.05, 3466, "cross_entropy")
    assert [recipe.key for recipe in found.candidates[:2]] == ["as_is", "he_normal"]
    assert len(found.candidates) == 5
    assert len(found.left_out) == 1
    assert Described.from_data(json.loads(json.dumps(found.to_data()))) == found


def test_learning_rate_is_a_dimension_of_a_search_over_it_only() -> None:
    search = {"mode": "search", "trials": 4}
    for changes, searched in (({}, False), ({"lr_steps": [1]}, False), (search, False)):
        assert Performer(plan(**changes)).describe("mlp").space.has("lr_step") == searched
    assert Performer(plan(**search, lr_steps=[1])).describe("mlp").space.has("lr_step")


WRONG = [
    ({"model": "test_performer:word"}, ModelError, "returned a str"),
    ({"model": "study_models:mlpp"}, FactoryError, "mlp"),
    ({"model_args": {"depth": 3}}, FactoryError, "depth"),
    ({"data": "nowhere:digits"}, FactoryError, "nowhere"),
    ({"optimizer": "torch.optim:SDG"}, FactoryError, "SGD"),
    ({"loss": "study_models:no_loss"}, FactoryError, "no_loss"),
    ({"data": "test_performer:batches"}, ArgumentError, "Leave it out, and let the data's factory make"),
]


@pytest.mark.parametrize(("changes", "error", "message"), WRONG)
def test_what_is_wrong_with_a_task_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Workbench(spec(**changes), 0, [])


def test_modules_are_found_in_the_studys_folder(tmp_path: Path) -> None:
    source = "from torch import nn\n\ndef small():\n    return nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10))\n"
    (tmp_path / "networks_of_the_folder.py").write_text(source)
    at = Workbench(spec(model="networks_of_the_folder:small"), 0, [tmp_path])
    assert at.bench.task.model[0].weight.shape == (8, 64)
    at.close()


# Trials


def test_each_job_gives_its_line_in_order(performer: Performer) -> None:
    described = performer.describe("mlp")
    jobs = dense_jobs(plan(lr_steps=[1], seeds=[0, 1]), "mlp", described)
    found = list(performer.run(jobs, described))
    assert [(line["recipe"], line["seed"], line["lr_step"]) for line in found] == [
        (job.recipe.key, job.seed, job.lr_step) for job in jobs
    ]
    assert len({line["id"] for line in found}) == len(found)
    for line in found:
        assert (line["state"], line["reason"], line["steps"], line["attempts"]) == ("complete", "", 4, 1)
        assert len(line["curve"]["losses"]) == 4
        assert line["lr"] == pytest.approx(0.05 * 10 ** (line["lr_step"] / 2), rel=1e-5)
        assert line["fingerprint"] == described.fingerprint
        assert line["seconds"] > 0
        assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_same_trial_gives_the_same_line_whatever_ran_before(performer: Performer) -> None:
    described = performer.describe("mlp")
    jobs = dense_jobs(plan(space={"recipes": RECIPES}, seeds=[0, 1]), "mlp", described)
    forth = {line["id"]: timeless(line) for line in performer.run(jobs, described)}
    torch.manual_seed(77)
    performer.layers("mlp", Recipe(base="zeros"))
    back = {line["id"]: timeless(line) for job in reversed(jobs) for line in performer.run([job], described)}
    assert forth == back
    other = Performer(plan(space={"recipes": RECIPES}))
    assert timeless(next(other.run(jobs[3:4], described))) == forth[next(iter(other.run(jobs[3:4], described)))["id"]]
    other.close()


def test_dropout_and_batch_norm_start_afresh_in_each_trial() -> None:
    study = plan(tasks=[{**TASK, "model": "test_performer:stateful"}], space={"recipes": ["he_normal"]})
    assert [timeless(line) for line in lines(study)] == [timeless(line) for line in lines(study)]
    performer = Performer(study)
    described = performer.describe("mlp")
    own, he = dense_jobs(study, "mlp", described)
    first, _, again = performer.run([own, he, own], described)
    performer.close()
    assert timeless(first) == timeless(again)


def test_seeds_differ_in_weights_and_batch_order(performer: Performer) -> None:
    described = performer.describe("mlp")
    jobs = [StudyJob("mlp", place, "probe", OWN, seed, 0, 4) for place, seed in enumerate((0, 1))]
    first, second = performer.run(jobs, described)
    assert first["curve"]["losses"] != second["curve"]["losses"]


def test_training_is_plain_training_of_the_owners_model(performer: Performer) -> None:
    """A line's losses are those of a loop that anybody would write, over the task's own batches."""
    described = performer.describe("mlp")
    (line,) = performer.run([StudyJob("mlp", 0, "probe", OWN, 0, 1, 6)], described)
    at = Workbench(spec(), 0, [])
    task = at.bench.task
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05 * 10**0.5)
    losses = []
    for x, y in task.order(seed_of_use(0, "study order"), 6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(task.model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    at.close()
    assert line["curve"]["losses"] == pytest.approx(losses, rel=1e-5)


def test_divergence_is_a_result_and_an_error_is_a_failure_with_its_reason() -> None:
    wild = {**TASK, "model": "test_performer:explosive", "optimizer_args": {"lr": 1e25}}
    (own, *_) = lines(plan(tasks=[wild], probe={"steps": 8}))
    assert own["state"] == "diverged"
    assert own["curve"]["diverged_at"] is not None
    assert math.isfinite(own["score"]["total"])
    study = plan(space={"recipes": ["he_normal"]})
    performer = Performer(study)
    described = performer.describe("mlp")
    bad = StudyJob("mlp", 1, "probe", Recipe(calibration="fluctuation_driven"), 0, 0, 4)
    good = StudyJob("mlp", 2, "probe", OWN, 0, 0, 4)
    failed, fine = performer.run([bad, good], described)
    performer.close()
    assert (failed["state"], failed["score"], failed["curve"]) == ("failed", None, None)
    assert "spiking" in failed["reason"]
    assert fine["state"] == "complete"


@pytest.mark.parametrize("model", ["study_models:mlp", "test_performer:stateful"])
@pytest.mark.parametrize("optimizer", ["torch.optim:SGD", "torch.optim:AdamW", "torch.optim:Adafactor"])
def test_stacked_trials_agree_with_single_ones_to_rounding(model: str, optimizer: str) -> None:
    task = {**TASK, "model": model, "optimizer": optimizer}
    single = lines(plan(tasks=[task], space={"recipes": RECIPES}))
    stacked = lines(plan(tasks=[task], space={"recipes": RECIPES}, stack=3))
    assert [line["id"] for line in stacked] == [line["id"] for line in single]
    for one, other in zip(single, stacked, strict=True):
        assert one["curve"]["losses"] == pytest.approx(other["curve"]["losses"], rel=1e-3), one["recipe"]
        assert one["score"]["total"] == pytest.approx(other["score"]["total"], abs=0.01)


def test_line_of_a_trial_that_nobody_lived_to_tell_of_is_whole(performer: Performer) -> None:
    described = performer.describe("mlp")
    job = StudyJob("mlp", 0, "probe", OWN, 0, 0, 4)
    (line,) = performer.run([job], described)
    dead = failed_line(plan(), job, described, "the worker process ended with code 1")
    assert set(dead) == set(line)
    assert dead["id"] == line["id"], "the same trial"
    assert (dead["state"], dead["reason"], dead["score"]) == ("failed", "the worker process ended with code 1", None)


def test_learning_rate_that_nobody_knows_is_left_open(performer: Performer) -> None:
    described = dataclasses.replace(performer.describe("mlp"), lr=None)
    assert failed_line(plan(), StudyJob("mlp", 0, "probe", OWN, 0, 1, 4), described, "gone")["lr"] is None


def test_layers_are_measured_before_any_training_and_put_back(performer: Performer) -> None:
    own, wide = performer.layers("mlp", OWN), performer.layers("mlp", Recipe(base="he_normal", log2_gain=2.0))
    assert [layer["name"] for layer in own] == [layer["name"] for layer in wide] == ["0.weight", "2.weight", "4.weight"]
    assert own != wide
    assert performer.layers("mlp", OWN) == own


def test_task_that_is_not_in_the_study_is_refused(performer: Performer) -> None:
    with pytest.raises(KeyError, match="cnn"):
        performer.describe("cnn")


OWN_TASK = {
    "name": "mlp",
    "model": "study_models:mlp",
    "train": "study_models:descent",
    "example": "study_models:touched",
    "validate": "study_models:held_back",
}


def test_a_training_of_ones_own_is_run_as_any_other() -> None:
    found = lines(plan(tasks=[OWN_TASK], space={"recipes": RECIPES}, probe={"steps": 24, "rungs": [8]}))
    assert [line["recipe"] for line in found] == [recipe.key for recipe in (OWN, *map(as_recipe, RECIPES))]
    assert {line["state"] for line in found} == {"complete"}
    assert all(len(line["curve"]["losses"]) == 24 for line in found)
    assert all([step for step, _ in line["curve"]["held_back"]] == [8, 24] for line in found)
    assert found[0]["features"]["loss"] == "train"
    again = lines(plan(tasks=[OWN_TASK], space={"recipes": RECIPES}, probe={"steps": 24, "rungs": [8]}, stack=3))
    assert list(map(timeless, again)) == list(map(timeless, found)), "what does not stack runs one by one"


def test_without_an_example_its_modules_are_read_and_calibrations_left_out() -> None:
    task = {name: value for name, value in OWN_TASK.items() if name != "example"}
    performer = Performer(plan(tasks=[task], space={"recipes": RECIPES, "opening": True}))
    described = performer.describe("mlp")
    performer.close()
    assert "is measured on a batch; there is none" in described.left_out["orthogonal calibration=lsuv"]
    assert not [recipe for recipe in described.candidates if recipe.calibration != "none"]
