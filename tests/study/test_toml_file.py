from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from autoinit.errors import ArgumentError
from autoinit.study.spec import ProbeSpec, Study
from autoinit.study.toml_file import difference, json_schema, line_of, read_study, study_fingerprint

QUICK = """\
# A study of a few minutes.
name = "quick"
seeds = [0, 1]
lr_steps = [-1, 1]
budget = "10m"

[space]
recipes = [
    "he_normal",
    # a comment within
    "gpt2",
    { base = "orthogonal", head = "zero" },
]
calibrations = ["none", "lsuv"]

[probe]
steps = 100
rungs = [20, 50]

[[tasks]]
name = "alone"
model = "networks:mlp"
data = "real_data:digits"

[tasks.model_args]
width = 64

[[grids]]
optimizers = [
    { name = "adam", optimizer_args = { lr = 1e-3 } },
    { name = "sgd", optimizer = "torch.optim:SGD", optimizer_args = { lr = 0.1 } },
]

[[grids.models]]
name = "mlp"
model = "networks:mlp"
takes = "rows"
model_args = { width = 32 }

[[grids.models]]
name = "cnn"
family = "convolutional"
model = "networks:cnn"
takes = ["images", "photos"]

[[grids.models]]
name = "any"
model = "networks:any"
model_args = { outputs = 1 }
step = "networks:step"

[[grids.data]]
name = "digits"
data = "real_data:digits"
kind = "rows"
gives = { features = 64, outputs = 10 }
batch_size = 16
loss = "cross_entropy"

[[grids.data]]
name = "shapes"
dataset = "digits"
data = "real_data:images"
data_args = { size = 8 }
kind = "images"
gives = { channels = 1, outputs = 10 }
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


def test_file_becomes_the_study(quick: Path) -> None:
    study = read_study(quick)
    assert type(study) is Study
    assert (study.name, study.seeds, study.lr_steps, study.budget) == ("quick", (0, 1), (-1, 1), "10m")
    assert study.probe == ProbeSpec(steps=100, rungs=(20, 50))
    assert [recipe.key for recipe in study.space.chosen] == [
        "he_normal",
        "normal residual_out=scaled",
        "orthogonal head=zero",
    ]
    assert study.tasks[0].model_args == {"width": 64}
    assert Study.model_validate(json.loads(json.dumps(study.model_dump(mode="json")))) == study


def test_the_same_study_can_be_built_in_python(quick: Path) -> None:
    data = tomllib.loads(QUICK)
    del data["grids"]
    quick.write_text(QUICK[: QUICK.index("[[grids]]")])
    assert read_study(quick) == Study(**data)


def test_grid_is_expanded_where_kinds_fit(quick: Path) -> None:
    tasks = {task.name: task for task in read_study(quick).tasks}
    assert list(tasks) == [
        "alone",
        *("mlp.digits.adam", "mlp.digits.sgd"),
        *("cnn.shapes.adam", "cnn.shapes.sgd"),
        *("any.digits.adam", "any.digits.sgd", "any.shapes.adam", "any.shapes.sgd"),
    ]
    mlp, cnn, other = tasks["mlp.digits.sgd"], tasks["cnn.shapes.adam"], tasks["any.digits.adam"]
    assert mlp.model_args == {"features": 64, "outputs": 10, "width": 32}
    assert (mlp.optimizer, mlp.optimizer_args) == ("torch.optim:SGD", {"lr": 0.1})
    assert (mlp.family, mlp.dataset, mlp.batch_size, mlp.loss) == ("mlp", "digits", 16, "cross_entropy")
    assert (cnn.family, cnn.dataset, cnn.data_args, cnn.batch_size) == ("convolutional", "digits", {"size": 8}, None)
    assert (cnn.optimizer, cnn.optimizer_args) == ("torch.optim:AdamW", {"lr": 1e-3})
    assert other.model_args["outputs"] == 1, "the model's own argument wins"
    assert (other.step, other.loss) == ("networks:step", None), "the model's own step replaces the data's loss"


def test_data_without_a_kind_fit_every_model(quick: Path) -> None:
    quick.write_text(QUICK.replace('kind = "rows"\n', ""))
    assert "cnn.digits.adam" in {task.name for task in read_study(quick).tasks}


WRONG = [  # what stands there, what is put in its place, the message, and its line where that is another one
    ('name = "quick"', 'name = "quick"\nsedes = [1]', "sedes: there is no such key. Did you mean 'seeds'?", ""),
    (
        "lr_steps = [-1, 1]",
        "lr_steps = [-1, 5]",
        "lr_steps[1]: A place of the learning-rate grid is one of -2, -1, 1, 2",
        "",
    ),
    ('budget = "10m"', 'budget = "10 minutes"', "budget: A budget is a number of seconds, a text such as", ""),
    ('    "gpt2",', '    "gpt3",', "space.recipes[1]: No recipe is called 'gpt3'. Did you mean 'gpt2'?", ""),
    ("head =", "heed =", "space.recipes[2]: A recipe has no field 'heed'. Did you mean 'head'?", ""),
    ('["none", "lsuv"]', '["none", "luv"]', "space.calibrations[1]: Got 'luv'. Allowed: 'none', 'lsuv'", ""),
    ("rungs = [20, 50]", "rungs = [20, 500]", "probe.rungs: rungs must grow and end at steps = 100 at most", ""),
    (
        "width = 64",
        "width = nan",
        "tasks[0].model_args: Arguments may hold texts, finite numbers",
        "[tasks.model_args]",
    ),
    (
        "lr = 0.1",
        'lr = "0.1"',
        "grids[0]: This is not a valid TaskSpec: optimizer_args.lr: lr must be a positive number. Got '0.1'",
        "[[grids]]",
    ),
    (
        '{ name = "sgd", optimizer =',
        '{ name = "sgd", optimiser =',
        "grids[0].optimizers[1].optimiser: there is no such",
        "",
    ),
    (
        'model = "networks:cnn"',
        'model = "networks.cnn"',
        "grids[0].models[1].model: Got 'networks.cnn'. Allowed: module:",
        "",
    ),
    (
        "data_args = { size",
        "dat_args = { size",
        "grids[0].data[1].dat_args: there is no such key. Did you mean 'data_args'?",
        "",
    ),
    (
        'name = "alone"',
        'name = "mlp.digits.sgd"',
        "grids[0]: Two tasks are called 'mlp.digits.sgd'; give each a name of its own.",
        "[[grids]]",
    ),
]


@pytest.mark.parametrize(("old", "new", "message", "at"), WRONG, ids=[row[1] for row in WRONG])
def test_mistake_is_told_with_file_line_and_key(quick: Path, old: str, new: str, message: str, at: str) -> None:
    assert QUICK.count(old) == 1
    text = QUICK.replace(old, new)
    quick.write_text(text)
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    rows = text.splitlines()
    line = rows.index(at) + 1 if at else next(n for n, row in enumerate(rows, 1) if new.splitlines()[-1] in row)
    assert str(raised.value).startswith(f"{quick}, line {line}: {message}")


def test_two_models_of_one_name_are_fine_while_no_data_fit_both(quick: Path) -> None:
    assert "mlp.shapes.adam" in {task.name for task in changed(quick, ('name = "cnn"', 'name = "mlp"')).tasks}


def test_missing_key_is_told_at_its_table(quick: Path) -> None:
    quick.write_text(QUICK.replace('name = "cnn"\n', ""))
    line = QUICK.splitlines().index('name = "cnn"')
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    assert str(raised.value) == f"{quick}, line {line}: grids[0].models[1].name: it is missing."


def test_several_mistakes_are_told_a_line_each_and_the_rest_counted(quick: Path) -> None:
    quick.write_text('name = "a b"\nseeds = []\nworkers = 0\nbatch = 0\nstack = 0\nthreads = 0\ntrials = 0\n')
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    rows = str(raised.value).splitlines()
    assert [row.split(": ")[1] for row in rows[:-1]] == ["name", "seeds", "trials", "batch", "stack"]
    assert rows[-1] == f"{quick}: and 2 more."


def test_grid_of_which_nothing_fits_is_told(quick: Path) -> None:
    start = QUICK.index('[[grids.models]]\nname = "any"')
    text = QUICK[:start] + QUICK[QUICK.index("[[grids.data]]") :].replace("rows", "texts").replace(
        'images"\ng', 'sounds"\ng'
    )
    quick.write_text(text)
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    line = text.splitlines().index("[[grids]]") + 1
    told = "grids[0]: No model of this grid takes any of its data. Kinds of the data: sounds, texts."
    assert str(raised.value) == f"{quick}, line {line}: {told}"


def test_study_without_tasks_is_told(quick: Path) -> None:
    quick.write_text('name = "empty"\nspace = { random = 3 }\n')
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    assert str(raised.value) == f"{quick}: tasks: A study needs one task at least."


def test_study_without_candidates_is_told_at_its_space(quick: Path) -> None:
    start, end = QUICK.index("recipes = ["), QUICK.index("calibrations =")
    quick.write_text(QUICK[:start] + QUICK[end:])
    with pytest.raises(ArgumentError) as raised:
        read_study(quick)
    told = "space: A dense study has nothing to compare with as-is; give recipes, opening = true or random."
    assert str(raised.value) == f"{quick}, line {QUICK.splitlines().index('[space]') + 1}: {told}"


def test_what_is_no_toml_or_no_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(ArgumentError, match=r"The study file .*a\.toml cannot be read: No such file or directory\."):
        read_study(path)
    with pytest.raises(ArgumentError, match="cannot be read: Is a directory"):
        read_study(tmp_path)
    path.write_text('name = "a"\nseeds = [1, 2\nmode = "dense"\n')
    with pytest.raises(ArgumentError, match=r"a\.toml is not TOML: Unclosed array \(at line 3, column 1\)\."):
        read_study(path)
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(ArgumentError, match=r"a\.toml is not UTF-8 text: byte 8 is 0xff\."):
        read_study(path)


def paths(data: Any, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    return [path] * bool(path) + [found for key, value in items for found in paths(value, (*path, key))]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_of_every_path_holds_its_key(newline: str) -> None:
    rows = QUICK.split("\n")
    found = paths(tomllib.loads(QUICK))
    assert len(found) > 80
    for path in found:
        line = line_of(QUICK.replace("\n", newline), path)
        assert line is not None
        key = next(part for part in reversed(path) if isinstance(part, str))
        in_a_list = isinstance(path[-1], int) and rows[line - 1].startswith("    ")
        assert in_a_list or key in rows[line - 1], (path, line, rows[line - 1])


def test_lines_around_long_texts_and_nested_lists() -> None:
    text = 'a = """\nb = [\n[[c]]\n"""\n\nd = [\n  [1,\n   2],\n  [3],\n]\ne = 1'
    assert [line_of(text, path) for path in (["a"], ["d"], ["d", 0, 1], ["d", 1, 0], ["e"], ["b"])] == [
        1,
        6,
        8,
        9,
        11,
        None,
    ]


def test_schema_knows_every_key_and_every_choice() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == {*Study.model_fields, "grids"}
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["executor"]["enum"] == ["local", "ray"]
    task, space = schema["$defs"]["TaskSpec"], schema["$defs"]["SpaceSpec"]
    assert set(task["required"]) == {"name", "model"}
    assert task["anyOf"] == [{"required": ["data"]}, {"required": ["train"]}]
    assert "log2_gain" in json.dumps(space["properties"]["dimensions"])
    assert "fluctuation_driven" in json.dumps(space["properties"]["calibrations"])
    assert {"ModelEntry", "DataEntry", "OptimizerEntry", "Grid"} <= set(schema["$defs"])
    json.dumps(schema, allow_nan=False)


# What may change


def changed(quick: Path, *replacements: tuple[str, str]) -> Study:
    text = QUICK
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    quick.write_text(text)
    return read_study(quick)


FREE = 'description = "Again."\nbudget = "8h"\nstorage = "sqlite:///x.db"\nexecutor = "ray"\nworkers = 2'
GROWN = '[[tasks]]\nname = "new"\nmodel = "a:b"\ndata = "c:d"\n\n[[grids]]'


def test_budget_executor_and_a_grown_task_list_may_change(quick: Path) -> None:
    study = read_study(quick)
    later = changed(quick, ('budget = "10m"', FREE), ("[[grids]]", GROWN))
    assert len(later.tasks) == len(study.tasks) + 1
    assert difference(study.model_dump(mode="json"), later) == []
    assert study_fingerprint(study) == study_fingerprint(later)


CHANGES = [
    ("seeds = [0, 1]", "seeds = [0, 1, 2]", ["seeds: 2 new"]),
    ("seeds = [0, 1]", "seeds = [1, 0]", ["seeds: the order changed"]),
    ("steps = 100", "steps = 101", ["probe.steps: was 100, is now 101"]),
    ('    "gpt2",', '    "mup",', ['space.recipes: "gpt2" gone; "mup" new']),
    ("[probe]", "[long]\nsteps = 9\n\n[probe]", ['long: was null, is now {"steps": 9, "top": 3}']),
    ("seeds = [0, 1]", "seeds = [0, 1]\nthreads = 2", ["threads: was 1, is now 2"]),
    ('name = "quick"', 'name = "slow"', ['name: was "quick", is now "slow"']),
]


@pytest.mark.parametrize(("old", "new", "told"), CHANGES, ids=[new for _, new, _ in CHANGES])
def test_change_of_what_is_measured_is_named(quick: Path, old: str, new: str, told: list[str]) -> None:
    study = read_study(quick)
    later = changed(quick, (old, new))
    assert difference(study.model_dump(mode="json"), later) == told
    assert study_fingerprint(study) != study_fingerprint(later)


def test_task_that_changed_or_went_is_named(quick: Path) -> None:
    study = read_study(quick)
    later = changed(quick, ("width = 64", "width = 65\ndepth = 2"), ('name = "sgd"', 'name = "plain"'))
    assert difference(study.model_dump(mode="json"), later) == [
        "task 'alone': model_args.width: was 64, is now 65",
        "task 'alone': model_args.depth: was null, is now 2",
        *(f"task '{name}.sgd' is gone" for name in ("mlp.digits", "cnn.shapes", "any.digits", "any.shapes")),
    ]


def test_study_begun_before_a_field_existed_goes_on_with_its_default(quick: Path) -> None:
    study = read_study(quick)
    old = study.model_dump(mode="json")
    del old["stack"]
    assert difference(old, study) == []


def test_study_of_another_version_is_told(quick: Path) -> None:
    study = read_study(quick)
    with pytest.raises(
        ArgumentError, match=r"begun by another version of autoinit, and does not read: later: there is no"
    ):
        difference({**study.model_dump(mode="json"), "later": 1}, study)
