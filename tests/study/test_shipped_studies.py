"""The studies that ship: every task of every file builds and takes a step, and the counts are as promised."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
pytest.importorskip("mnist1d")
pytest.importorskip("snntorch")
pytest.importorskip("transformers")
pytest.importorskip("x_transformers")

from study_runs import run, start, timeless

from autoinit.knowledge.files import shipped
from autoinit.knowledge.lines import read_lines
from autoinit.knowledge.tables import Knowledge
from autoinit.study.jobs import StudyJob
from autoinit.study.performer import Performer
from autoinit.study.spec import Study, TaskSpec
from autoinit.study.toml_file import read_study
from autoinit.study.workbench import Workbench
from studies import real_data
from studies.cost import cost, table
from studies.knowledge import described

FOLDER = Path(__file__).parents[2] / "studies"


@functools.cache
def study(name: str) -> Study:
    return read_study(FOLDER / f"{name}.toml")


TASKS = [(name, task.name) for name in ("quick", "overnight", "scale", "architectures") for task in study(name).tasks]


def spec_of(name: str, task: str) -> TaskSpec:
    return next(spec for spec in study(name).tasks if spec.name == task)


@pytest.mark.parametrize(("name", "task"), TASKS, ids=[f"{name}:{task}" for name, task in TASKS])
def test_every_task_takes_a_step_and_has_its_candidates(name: str, task: str) -> None:
    at = Workbench(spec_of(name, task), 0, [FOLDER])
    try:
        optimizer, _ = at.bench.task.build_optimizer()
        before = [parameter.detach().clone() for parameter in at.bench.task.model.parameters()]
        assert math.isfinite(at.bench.task.backward(at.bench.task.train[0]))
        optimizer.step()
        after = at.bench.task.model.parameters()
        assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
        # The entry's own learning rate has arrived, not the library's.
        assert at.bench.task.lr == pytest.approx(spec_of(name, task).optimizer_args["lr"])
        candidates = at.described(study(name)).candidates
        least, most = {"overnight": (33, 52), "architectures": (24, 40), "scale": (20, 45), "quick": (5, 7)}[name]
        assert least <= len(candidates) <= most
        if name == "architectures":
            assert 1e5 <= sum(parameter.numel() for parameter in at.bench.task.model.parameters()) <= 5e6
    finally:
        at.close()


@pytest.mark.slow
def test_quick_study_gives_the_same_records_here_and_on_a_ray_cluster(tmp_path: Path) -> None:
    """It is run as a person runs it, by a worker of this machine and by two of a cluster that is started for it."""
    pytest.importorskip("ray")
    found = {}
    for executor, workers in (("local", "1"), ("ray", "2")):
        storage, out = f"sqlite:///{tmp_path / executor}.db", tmp_path / f"{executor}.jsonl"
        process = start(
            "run", FOLDER / "quick.toml", "--storage", storage, "--executor", executor, "--workers", workers
        )
        told, err = process.communicate(timeout=300)
        assert "Done." in told, err
        run("export", FOLDER / "quick.toml", out, "--storage", storage)
        found[executor] = timeless(read_lines(out).lines)
    assert len(found["local"]) == 68
    assert {line["state"] for line in found["local"]} == {"complete"}
    assert found["ray"] == found["local"]


@pytest.mark.parametrize(
    ("task", "stacks"),
    [
        ("mlp_residual.wine.adamw", True),
        ("cnn_plain_6.digits.sgd", True),
        ("gpt.prose.adamw", True),
        ("gru.digits.adam", False),
        ("lstm.digits.adam", False),
        ("spiking_3.digits.adam", False),
    ],
)
def test_overnight_stacks_the_models_that_can_be(task: str, stacks: bool) -> None:
    assert study("overnight").stack > 1
    at = Workbench(spec_of("overnight", task), 0, [FOLDER])
    try:
        assert at.stackable is stacks
    finally:
        at.close()


def test_model_that_cannot_be_stacked_is_trained_one_after_the_other() -> None:
    """The trials of an LSTM are the same in a study that stacks and in one that does not, to the bit."""
    overnight, name = study("overnight"), "lstm.digits.adam"
    alone = overnight.model_copy(update={"stack": 1})
    lines = []
    for plan in (overnight, alone):
        performer = Performer(plan, [FOLDER])
        described = performer.describe(name)
        jobs = [StudyJob(name, place, "probe", one, 0, 0, 5) for place, one in enumerate(described.candidates[:3])]
        lines.append(timeless(list(performer.run(jobs, described))))
        performer.close()
    assert [line["state"] for line in lines[0]] == ["complete"] * 3
    assert lines[0] == lines[1]


def test_overnight_is_as_large_as_promised() -> None:
    overnight = study("overnight")
    assert len(overnight.tasks) >= 150
    assert len({task.family for task in overnight.tasks}) >= 10
    assert len({task.dataset for task in overnight.tasks}) >= 10
    assert len({task.optimizer for task in overnight.tasks}) >= 4
    assert overnight.mode == "dense"
    assert overnight.seeds == (0, 1, 2)
    assert overnight.lr_steps == (-2, -1, 1, 2)
    assert overnight.probe.steps == 200
    assert len(overnight.space.chosen) == len(overnight.space.recipes)  # no recipe is named twice


def test_architectures_are_many_real_and_of_a_size_that_people_train() -> None:
    architectures = study("architectures")
    assert len(architectures.tasks) >= 60
    assert len({task.family for task in architectures.tasks}) >= 25
    assert 100 <= architectures.probe.steps <= 200
    assert len(architectures.seeds) == 2
    assert not any("timm" in task.model or "torchvision" in task.model for task in architectures.tasks)


def test_quick_is_small() -> None:
    quick = study("quick")
    assert len({task.family for task in quick.tasks}) == len(quick.tasks) == 6
    assert len(quick.space.recipes) == 6
    assert (len(quick.seeds), quick.lr_steps, quick.probe.steps) == (2, (), 60)


@pytest.mark.parametrize("name", ["quick", "overnight", "architectures"])
def test_names_are_unique_and_no_two_tasks_are_the_same(name: str) -> None:
    def content(task: TaskSpec) -> str:
        return task.model_dump_json(exclude={"name", "family", "dataset"})

    tasks = study(name).tasks
    assert [task for task, count in Counter(task.name for task in tasks).items() if count > 1] == []
    assert [task for task, count in Counter(map(content, tasks)).items() if count > 1] == []


@pytest.mark.parametrize("of", real_data.LOADERS)
def test_every_data_set_is_finite_and_cut_in_two(of: str) -> None:
    split = real_data.LOADERS[of]()
    assert all(part.isfinite().all() for part in (split.train_x, split.train_y, split.val_x, split.val_y))
    assert len(split.train_x) == len(split.train_y) > 3 * len(split.val_x) > 0
    assert len(split.val_x) == len(split.val_y)
    assert split.train_y.float().std() > 0


def test_mnist1d_is_the_same_every_time_and_leaves_the_global_generators_alone() -> None:
    before = np.random.get_state()[1].copy()
    first = real_data.mnist1d.__wrapped__()
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert torch.equal(first.train_x, real_data.mnist1d.__wrapped__().train_x)


def test_unknown_data_sets_are_named() -> None:
    with pytest.raises(ValueError, match="digitz"):
        real_data.training_rows("digitz")


def test_cost_counts_the_trials_of_a_task() -> None:
    quick = study("quick")
    found = cost(quick, quick.tasks[0], FOLDER)
    assert found.trials == found.candidates * 2
    assert found.hours * 3600 >= found.trials * 60 * found.step > 0
    assert f"| mlp | 1 | {1000 * found.step:.1f} | {found.trials} |" in table([found])


def test_studied_tasks_are_described_again_as_features_are_now() -> None:
    known = shipped().tasks[0]
    few = dataclasses.replace(known, features={"net_depth": 0.0}, tried=known.tried[:2])
    (found,) = described(Knowledge((few,)), FOLDER / "overnight.toml", again=True).tasks
    assert found.fingerprint == known.fingerprint
    assert found.features == pytest.approx(known.features, rel=1e-2, abs=1e-2)
    assert [one.outcomes for one in found.tried] == [one.outcomes for one in few.tried]
    assert found.tried[1].features == pytest.approx(known.tried[1].features, rel=1e-2, abs=1e-2)
