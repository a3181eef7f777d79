"""A learning that is interrupted, by a killed process too, goes on to the very bits of one that was not."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import bits, unchanged
from torch import nn

import autoinit
from autoinit.episodic import state


def network(width: int = 8) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(1, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 1)
        )


def drawn() -> Iterator[Any]:
    """Episodes from the global generator, as many samplers draw them."""
    while True:
        x = torch.rand(2, 6, 1)
        slope = torch.randn(1)
        yield (x[0], slope * x[0]), (x[1], slope * x[1])


def same(one: autoinit.LearnedStart, other: autoinit.LearnedStart) -> bool:
    mine, theirs = ({**found.parameters, **found.buffers} for found in (one, other))
    return (
        one.history == other.history
        and mine.keys() == theirs.keys()
        and all(bits(mine[name]) == bits(theirs[name]) for name in mine)
    )


OPTIONS: dict[str, Any] = {"inner_steps": 2, "inner_lr": 0.05, "meta_batch": 2, "seed": 4}


@pytest.mark.parametrize("method", ["reptile", "maml", "anil"])
def test_more_rounds_go_on_to_the_bits_of_an_uninterrupted_run(method: Any, tmp_path: Path) -> None:
    whole = autoinit.meta_learn(network(), drawn, method=method, rounds=9, **OPTIONS)
    path = tmp_path / "state"
    for rounds in (4, 9, 9):
        parts = autoinit.meta_learn(network(), drawn, method=method, rounds=rounds, state=path, **OPTIONS)
    assert same(parts, whole)
    assert not same(autoinit.meta_learn(network(), drawn, method=method, rounds=8, **OPTIONS), whole)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_resumed import OPTIONS, drawn, network
import autoinit
autoinit.meta_learn(network(), drawn, method="maml", rounds=100_000, state={path!r}, every=3, **OPTIONS)
"""


def test_a_killed_process_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    path = tmp_path / "state"
    here = Path(__file__).parent
    program = PROGRAM.format(tests=str(here), path=str(path))
    places = os.pathsep.join([str(here.parents[1]), str(here.parent)])
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": places})
    try:
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    facts, _ = state.files.read(path, state.KIND)
    rounds = facts["rounds"] + 2
    assert facts["rounds"] % 3 == 0
    learned = autoinit.meta_learn(network(), drawn, method="maml", rounds=rounds, state=path, **OPTIONS)
    assert same(learned, autoinit.meta_learn(network(), drawn, method="maml", rounds=rounds, **OPTIONS))


def test_what_fails_leaves_the_last_state(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield from itertools.islice(drawn(), 9)
        raise OSError("the disk is gone")

    path = tmp_path / "state"
    with pytest.raises(autoinit.DataError, match="fetching episode 9 of tasks failed: OSError: the disk is gone"):
        autoinit.meta_learn(network(), failing, rounds=9, state=path, every=2, **OPTIONS)
    learned = autoinit.meta_learn(network(), drawn, rounds=9, state=path, **OPTIONS)
    assert same(learned, autoinit.meta_learn(network(), drawn, rounds=9, **OPTIONS))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (network(), {"inner_lr": 0.1}, "inner_lr was 0.05 and is 0.1"),
        (network(), {"method": "fomaml"}, "method was 'reptile' and is 'fomaml'"),
        (network(), {"seed": 5}, "the seed was 4 and is 5"),
        (network(9), {}, "other names, shapes"),
        (network().requires_grad_(False)[:4].append(nn.Linear(8, 1)), {}, "other parameters of the model are frozen"),
        (network().eval(), {}, "other modules"),
    ],
)
def test_the_state_of_another_learning_is_refused(model: nn.Module, options: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    autoinit.meta_learn(network(), drawn, rounds=1, state=path, **OPTIONS)
    before = path.read_bytes()
    with unchanged(model), pytest.raises(autoinit.SourceError, match=said):
        autoinit.meta_learn(model, drawn, rounds=2, state=path, **{**OPTIONS, **options})
    assert path.read_bytes() == before


def test_other_weights_and_other_episodes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    autoinit.meta_learn(network(), drawn, rounds=1, state=path, **OPTIONS)
    other = network()
    with torch.no_grad():
        other[0].bias[0] += 1
    with pytest.raises(autoinit.SourceError, match="begins with other weights"):
        autoinit.meta_learn(other, drawn, rounds=2, state=path, **OPTIONS)
    stream = drawn()
    next(stream)
    x = torch.zeros(3, 1)
    with pytest.raises(autoinit.DataError, match="do not give the episodes"):
        autoinit.meta_learn(network(), [((x, x), (x, x))], rounds=2, state=path, **OPTIONS)
