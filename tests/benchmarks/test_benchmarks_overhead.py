"""What the benchmark of the harness counts, and that the harness does no idle work. Nothing here is timed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit import Recipe
from autoinit.calibrations import standardize
from autoinit.drawing import fills, memory, weights
from autoinit.initializers.draws import DRAWS
from autoinit.judging.trials import Candidate, Job
from autoinit.probing.bench import Bench
from autoinit.task.snapshot import preserved_random, seed_generators
from autoinit.task.task import make_task
from autoinit.tracing.choices import keep_choices
from autoinit.tracing.tracing import trace_task

pytest.importorskip("mlxtend")

from benchmarks.common.clock import Clock
from benchmarks.speed.select_time import CALIBRATE, OPTIMIZERS, REST, SETTINGS, places, run_select, split_calibrations

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


class Ticks:
    """A timer that a test sets: every reading takes `each`, and `pass_` lets time go by."""

    def __init__(self, each: float = 0.0) -> None:
        self.now = 0.0
        self.each = each

    def __call__(self) -> float:
        self.now += self.each
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def test_each_moment_counts_once_for_the_innermost_region() -> None:
    ticks = Ticks()
    clock = Clock("rest", ticks)
    inner = clock.wrap("inner", lambda: ticks.pass_(3))

    def body() -> None:
        ticks.pass_(1)
        inner()
        inner()
        ticks.pass_(1)

    outer = clock.wrap("outer", body)
    clock.start()
    ticks.pass_(10)
    outer()
    assert clock.stop() == 18
    assert clock.seconds == {"rest": 10, "outer": 2, "inner": 6}
    assert clock.calls == {"outer": 1, "inner": 2}


def test_what_the_clock_takes_counts_for_no_region() -> None:
    ticks = Ticks(each=1.0)
    clock = Clock("rest", ticks)
    nothing = clock.wrap("inner", lambda: None)
    clock.start()
    nothing()
    # Of the readings after the first, one ends each region (3 in all) and one each count (2).
    assert clock.stop() == 3
    assert clock.itself == 2


def test_a_call_that_raises_is_counted_and_left() -> None:
    ticks = Ticks()
    clock = Clock("rest", ticks)

    def fail() -> None:
        ticks.pass_(2)
        raise ValueError("no")

    clock.start()
    with pytest.raises(ValueError, match="no"):
        clock.wrap("inner", fail)()
    ticks.pass_(5)
    clock.stop()
    assert clock.seconds == {"inner": 2, "rest": 5}


def test_calls_within_a_region_have_a_region_of_their_own() -> None:
    ticks = Ticks()
    clock = Clock("rest", ticks)
    forward = clock.wrap("forward", lambda: ticks.pass_(1), within="calibrating")
    clock.start()
    forward()
    clock.wrap("calibrating", forward)()
    assert clock.calls == {"forward": 1, "calibrating": 1, "forward in calibrating": 1}


def test_watched_functions_are_put_back() -> None:
    before = [owner[name] if isinstance(owner, dict) else vars(owner)[name] for _, (owner, name) in places()]
    with Clock().watching(places()):
        during = [owner[name] if isinstance(owner, dict) else vars(owner)[name] for _, (owner, name) in places()]
    after = [owner[name] if isinstance(owner, dict) else vars(owner)[name] for _, (owner, name) in places()]
    assert before == after
    assert not any(one is other for one, other in zip(before, during, strict=True))


def test_a_watched_pass_counts_as_a_plain_one_and_the_rest_as_calibration() -> None:
    seconds = {"forward": 10.0, f"forward in {CALIBRATE}": 6.0, CALIBRATE: 1.0}
    calls = {"forward": 20, f"forward in {CALIBRATE}": 4}
    found = split_calibrations(seconds, calls)
    assert found == {"forward": 12.0, CALIBRATE: 5.0}  # four passes of half a second
    assert sum(found.values()) == sum(seconds.values())


@pytest.mark.parametrize("inferred", [False, True])
def test_shares_of_a_select_add_up_to_one(inferred: bool) -> None:
    setting = SETTINGS[1]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (40, 16), generator=generator)
    batches = [(torch.randn(16, 784, generator=generator), label) for label in labels]
    found = run_select(setting, "SGD", batches, 1.0, Clock(REST), seed=0, inferred=inferred)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0 < found.outside < 1
    assert found.calls["forward"] > found.calls["backward"] >= found.calls["optimizer step"] > 0
    assert set(OPTIMIZERS) == {"SGD", "Adam"}


@pytest.fixture
def bench() -> Iterator[Bench]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    with task.preserved() as snapshot:
        yield Bench(task, keep_choices(model, trace_task(task)), snapshot, seed=0)


def counting(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[int]:
    """Replaces a function of a module by one that counts its calls."""
    count = [0]
    function = vars(module)[name]

    def counted(*args: object, **kwargs: object) -> object:
        count[0] += 1
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return count


def test_a_trial_takes_no_fingerprints(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = counting(monkeypatch, weights, "digest")
    rescaled = Recipe(log2_gain=1.0)  # the owner's draw, rescaled: a plan tells it by its fingerprint
    bench.perform(Job(0, "search", Candidate(rescaled), seed=0, steps=2), lambda curve: True)
    assert digests == [0]
    plan = bench.draw(rescaled)
    assert digests == [3]
    assert all(plan[name].result for name in ("0.weight", "2.weight", "4.weight"))


def test_lsuv_measures_units_only_where_it_centres_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    by_unit = counting(monkeypatch, standardize, "moments")
    bench.draw(Recipe(base="orthogonal", calibration="lsuv"))
    assert by_unit == [0]
    bench.draw(Recipe(base="orthogonal", calibration="lsuv_centred"))
    assert by_unit[0] >= 3


def test_a_costly_draw_is_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.draw(Recipe(base="orthogonal"))
    assert len(bench.memory) == 3
    monkeypatch.setitem(DRAWS, "orthogonal", None)
    bench.draw(Recipe(base="orthogonal", log2_gain=1.0))


@pytest.mark.parametrize("name", ["lsuv", "within_layer"])
def test_what_is_calibrated_is_drawn_once_and_with_the_same_bits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = Recipe(base="he_normal", depth_slope=0.5, log2_gain=1.0, calibration=name)
    draws = counting(monkeypatch, fills, "_draw")
    bench.draw(recipe)
    assert draws == [3]  # one for each matrix
    once = [parameter.clone() for parameter in bench.task.model.parameters()]
    monkeypatch.setattr(memory, "CALIBRATED", 4000)  # of 2,048, 1,024 and 320 weights the last ones
    plan = bench.draw(recipe)
    assert draws == [3 + 5]
    assert all(one.equal(two) for one, two in zip(bench.task.model.parameters(), once, strict=True))
    bench.set(plan)
    assert all(one.equal(two) for one, two in zip(bench.task.model.parameters(), once, strict=True))


def test_seeding_one_device_draws_what_seeding_all_does() -> None:
    with preserved_random():
        seed_generators(5, torch.device("cpu"))
        found = torch.randn(4)
        torch.manual_seed(5)
        assert torch.equal(found, torch.randn(4))
