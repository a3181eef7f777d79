from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import autoinit
from autoinit.cli import arguments
from autoinit.cli import main as cli
from autoinit.errors import FactoryError
from autoinit.recipes.catalogue import ENTRIES, NAMED
from autoinit.version import __version__

FACTORIES = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)]
    return nn.Sequential(*layers, nn.Linear(8, 2))

def data():
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()

def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)

def step(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def no_model():
    return [1, 2]

def broken():
    return 1 / 0

def empty():
    return torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)

class Holder:
    model = staticmethod(model)

def wide(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))

made = [1, 2]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module of factories; import state is put back afterwards."""
    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "unimportable.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("factories", "unimportable"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def run(*arguments: str) -> int:
    """Runs the command line in this process and returns its exit code."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main(list(arguments))
    return int(exit_info.value.code or 0)


# Usage


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"autoinit {__version__}\n"


@pytest.mark.parametrize("command", ["demo", "select", "diagnose", "apply", "report", "catalogue"])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "Usage: autoinit" in capsys.readouterr().out


def test_help_is_quick_and_loads_no_heavy_library() -> None:
    code = (
        "import sys, autoinit.cli.main as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'optuna', 'pandas', 'pydantic', 'rich') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage"),
        (["choose"], "choose"),
        (["select", "factories:model"], "--data"),
        (["select", "factories:model", "--data", "factories:data", "--lr", "fast"], '"search"'),
        (["select", "factories:model", "--data", "factories:data", "--out", "nowhere/a.json"], "nowhere"),
        (["apply", "factories:model", "he_normal", "--plan", "nowhere/a.json"], "nowhere"),
        (["apply", "factories:model", "lsuv"], "add --data"),
        (["catalogue", "lsuv", "--markdown"], "the whole page"),
        (["catalogue", "--json", "--markdown"], "the whole page"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err + captured.out


# module:callable


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("factories", "module:callable"),
        (":model", "module:callable"),
        ("factories.py:model", "factories:model"),
        ("code/factories.py:model", "code.factories:model"),
        ("no_such_module:model", "there is no module 'no_such_module'"),
        ("factories:modle", "Did you mean 'model'?"),
        ("factories:made", "is a list"),
        ("unimportable:model", "No module named 'no_such_library' (unimportable.py, line 1)"),
        ("factories:no_model", "returned a list"),
        ("factories:broken", "ZeroDivisionError: division by zero (factories.py, line 24)"),
        ("factories:step", "calling factories:step without arguments raised TypeError"),
    ],
)
def test_bad_factory_is_one_message_that_says_why(spec: str, said: str) -> None:
    with pytest.raises(FactoryError) as error:
        arguments.model_of(spec)
    assert said in str(error.value)


def test_the_place_of_a_mistake_is_the_users_or_none(folder: Path) -> None:
    for spec in ("factories:step", "spelled:model"):
        (folder / "spelled.py").write_text("def model(:\n")
        with pytest.raises(FactoryError) as error:
            arguments.model_of(spec)
        assert "main.py" not in str(error.value)
        assert "__init__.py" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "spelled"),
    [
        ("Pass data=, batches", "Pass --data, batches"),
        ("or pass loss=callable(output, target).", "or pass --loss callable(output, target)."),
        ("batch 0 of val_data; pass val_data.", "batch 0 of --val-data; pass --val-data."),
        ("autoinit.catalogue() lists all.", "`autoinit catalogue` lists all."),
        ("model.to_empty(device=…)", "model.to_empty(device=…)"),
    ],
)
def test_messages_name_options(said: str, spelled: str) -> None:
    assert cli._as_options(said) == spelled


@pytest.mark.parametrize("command", ["apply", "select"])
def test_help_names_the_catalogue(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "autoinit catalogue" in " ".join(capsys.readouterr().out.split())


def test_callable_may_be_an_attribute_of_a_class() -> None:
    assert isinstance(arguments.model_of("factories:Holder.model"), torch.nn.Module)


def test_loss_may_be_a_function_or_a_class() -> None:
    assert arguments.loss_of("torch.nn.functional:mse_loss") is torch.nn.functional.mse_loss
    assert isinstance(arguments.loss_of("torch.nn:MSELoss"), torch.nn.MSELoss)
    assert arguments.loss_of(None) is None


@pytest.mark.parametrize(("given", "read"), [(None, None), ("search", "search"), ("1e-2", 0.01)])
def test_learning_rate(given: str | None, read: float | str | None) -> None:
    assert arguments.learning_rate(given) == read


@pytest.mark.parametrize("command", [["select"], ["diagnose"]])
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "factories:model", "--data", "factories:empty") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("autoinit: ")
    assert "Traceback" not in captured.err


# Progress


def test_on_a_terminal_the_result_is_neither_wrapped_nor_sent_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run("select", "factories:model", "--data", "factories:data", "--budget", "3s") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(("Your own weights are kept", "From "))
    assert "why" not in captured.err


# The commands


def test_select_saves_a_plan_and_prints_one_json_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "factories:sgd", "--budget", "3s", "--out", "init.json", "--json", "--quiet"]
    assert run("select", "factories:model", "--data", "factories:data", *options) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert isinstance(answer["kept"], bool)
    assert answer["out"] == "init.json"
    assert [trial["recipe"] for trial in answer["trials"][:1]] in ([], ["as_is"])  # none where time is short

    assert run("apply", "factories:model", "init.json", "--out", "weights.pt") == 0
    assert torch.load(folder / "weights.pt", weights_only=True).keys() == {
        f"{name}.{kind}" for name in ("0.0", "1.0", "2.0", "3.0", "4") for kind in ("weight", "bias")
    }


def test_select_makes_its_own_proxy_and_says_what_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "factories:sgd", "--proxy", "auto", "--training-steps", "1000", "--json", "--quiet"]
    assert run("select", "factories:model", "--data", "factories:data", *options, "--recipe", "orthogonal") == 0
    answer = json.loads(capsys.readouterr().out)
    assert "searched on a proxy of" in answer["proxy"]
    assert answer["cost"]["training_steps"] == 1000
    assert "5 % of a training of 1,000 steps would be 50" in answer["cost"]["budget"]
    assert (answer["payback"] is None) == answer["kept"]


def test_select_prints_progress_and_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "factories:data", "--step", "factories:step", "--budget", "3s"]
    assert run("select", "factories:model", *arguments) == 0
    captured = capsys.readouterr()
    assert "%  search" in captured.err
    assert captured.out.startswith(("Your own weights are kept", "From "))


def test_diagnose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "factories:model", "--data", "factories:data", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"findings", "signals"} == answer.keys()
    assert len(answer["signals"]["layers"]) >= 5


def test_diagnose_checks_coordinates_over_widths(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diagnose", "factories:wide", "--data", "factories:data", "--widths", "8,16,32"]
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith("Mean change of each layer's outputs after 3 steps of adam, lr 0.003, by width (he_normal")
    assert re.search(r"^weight +role +8 +16 +32 +width\^ +start +verdict$", said, re.MULTILINE)
    assert run(*arguments, "--recipe", "he_normal", "--optimizer", "sgd", "--lr", "0.01", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["recipe"], answer["optimizer"], answer["lr"]) == ("he_normal", "sgd", 0.01)
    assert answer["widths"] == [8, 16, 32]
    assert run("diagnose", "factories:model", "--data", "factories:data", "--widths", "8,16") == 2
    assert "calling factories:model with the width 8 raised TypeError" in capsys.readouterr().err
    assert run(*arguments[:-1], "8;16") == 2
    assert "no list of whole numbers such as 64,128" in capsys.readouterr().err


def test_apply_draws_the_same_weights_from_the_plan_it_saved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", "factories:model", "he_normal", "--out", "a.pt", "--plan", "plan.json") == 0
    assert capsys.readouterr().out.endswith("\n\nSaved a.pt.\nSaved plan.json.\n")
    assert run("apply", "factories:model", "plan.json", "--out", "b.pt") == 0
    first, second = (torch.load(folder / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_apply_draws_a_member_from_a_recipe_and_from_its_plan(folder: Path) -> None:
    assert run("apply", "factories:model", "he_normal", "--plan", "plan.json", "--out", "zeroth.pt") == 0
    assert run("apply", "factories:model", "he_normal", "--member", "2", "--out", "a.pt") == 0
    assert run("apply", "factories:model", "plan.json", "--member", "2", "--out", "b.pt") == 0
    zeroth, first, second = (torch.load(folder / f"{name}.pt", weights_only=True) for name in ("zeroth", "a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], zeroth[name]) for name in first)


def test_apply_refuses_what_is_no_member(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", "factories:model", "he_normal", "--member", "-1") == 2
    assert "member must be a whole number, 0 or more. Got -1." in capsys.readouterr().err


@pytest.mark.parametrize(("given", "near"), [("he_nromal", "he_normal"), ("kaiming_nromal", "kaiming_normal")])
def test_apply_names_the_nearest_recipe(given: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", "factories:model", given) == 2
    assert f"Did you mean '{near}'? `autoinit catalogue` lists all." in capsys.readouterr().err


REFUSED = {
    "fixup": "residual branches",
    "t_fixup": "attention in residual branches (Transformers)",
    "mimetic": "self-attention",
    "siren": "sines as activations",
    "selu": "SELU activations",
    "looks_linear": "activations for which",
    "irnn": "recurrent layers of ReLU units",
    "chrono": "an LSTM or GRU",
    "admin": "a normalization right after each residual add",
    "fluctuation_driven": "spiking neurons",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_for_other_networks_is_one_line_that_says_what_to_use(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("apply", "factories:model", name, "--data", "factories:data") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"autoinit: '{name}' is for networks with {REFUSED[name]}")
    assert "this one has none. Use " in line


# The catalogue


def test_catalogue_prints_every_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run("catalogue") == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(NAMED) <= {line.split()[0] for line in lines if line.strip()}
    assert max(map(len, lines)) <= 100


def test_catalogue_prints_one_entry_by_any_of_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalogue", "rezero") == 0
    out = capsys.readouterr().out
    assert out.startswith("zero_residual: Zero residual")
    assert 'autoinit.apply_(model, "zero_residual", data)' in out


def test_catalogue_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, autoinit.cli.main as cli\n"
        "try: cli.main(['catalogue', 'fixup'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'optuna', 'pandas') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_catalogue_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalogue", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == list(NAMED)
    assert answer["fixup"]["source"] == ENTRIES["fixup"].about.source
    assert answer["fixup"]["recipe"] == json.loads(NAMED["fixup"].to_json())
    assert answer["fixup"]["needs"] == {"residuals": "residual branches"}
    assert run("catalogue", "fixup", "--json") == 0
    assert json.loads(capsys.readouterr().out) == answer["fixup"]


def test_catalogue_as_a_page_is_the_file_in_docs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalogue", "--markdown") == 0
    assert capsys.readouterr().out == (Path(cli.__file__).parents[2] / "docs" / "catalogue.md").read_text()


def test_catalogue_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalogue", "fixpu") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Did you mean 'fixup'?" in line


# Ctrl-C


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own, which can be interrupted."""
    code = "from autoinit.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_interrupt_while_loading_exits_with_130(folder: Path) -> None:
    code = "import time\ndef model():\n    print('ready', flush=True)\n    time.sleep(60)\n"
    (folder / "endless.py").write_text(code)
    with start("apply", "endless:model", "as_is") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in error


def test_interrupted_search_prints_and_saves_what_it_found_and_exits_with_130(folder: Path) -> None:
    options = ["--data", "factories:data", "--budget", "120s", "--out", "init.json", "--json"]
    with start("select", "factories:model", *options) as process:
        assert process.stderr is not None
        assert "search" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert json.loads(out)["interrupted"]
    assert (folder / "init.json").exists()


def test_the_package_runs_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "autoinit", "--version"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, f"autoinit {autoinit.__version__}\n")


def test_a_selection_that_was_saved_whole_is_made_a_page_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "factories:sgd", "--budget", "3s", "--out", "init.json", "--full", "--quiet"]
    assert run("select", "factories:model", "--data", "factories:data", *options) == 0
    assert run("report", "init.json", "init.html") == 0
    assert capsys.readouterr().out.endswith("Written init.html.\n")
    assert (folder / "init.html").read_text().startswith("<!DOCTYPE html>")


def test_a_page_needs_the_whole_selection(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.json").write_text("{}")
    assert run("report", "plan.json", "init.html") == 2
    assert "plan.json" in capsys.readouterr().err
    arguments = ["select", "factories:model", "--data", "factories:data"]
    assert run(*arguments, "--full") == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["study"], ["recommender"]])
def test_a_list_of_commands_says_of_each_what_it_does_in_whole_words(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    commands = capsys.readouterr().out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(commands) >= 3
    assert all(line.endswith(".") and not line.endswith("..") for line in commands), commands
