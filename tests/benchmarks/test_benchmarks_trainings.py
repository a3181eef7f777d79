"""Trainings that are no single loss: that each is one, what it measures, and the tables of three starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")

import autoinit
from benchmarks.common.jobs import Row
from benchmarks.common.training import EVALUATION_SEEDS
from benchmarks.trainings import diffusion, digits, features, side_by_side, tables, two_towers, wgan_gp
from benchmarks.trainings.registry import REGISTRY, chosen, load
from benchmarks.trainings.training import Training

HERE = ["dcgan", "wgan_gp", "diffusion", "two_towers"]
LEARNED = {"dcgan": (60, 0.9), "wgan_gp": (60, 0.7), "diffusion": (30, 0.7), "two_towers": (50, 0.9)}
"""Steps, and the share of what is yielded at first that it is below afterwards, with much room."""


def first(training: Training, model: nn.Module, seed: int, count: int) -> list[float]:
    """Trains the model for a few steps, and returns what they yield; the training is closed."""
    steps: Any = training.train(model, seed)
    values = [float(value) for value in itertools.islice(steps, count)]
    steps.close()
    return values


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class TestRegistry:
    @pytest.mark.parametrize("name", HERE)
    def test_every_training_has_its_name(self, name: str) -> None:
        assert load(name).name == name
        assert name in REGISTRY

    def test_names_come_in_its_order(self) -> None:
        assert chosen("wgan_gp,dcgan") == ["dcgan", "wgan_gp"]
        assert chosen("") == list(REGISTRY)
        with pytest.raises(SystemExit, match="unknown trainings gan; known: dcgan"):
            chosen("dcgan,gan")
        with pytest.raises(SystemExit, match="unknown training gan"):
            load("gan")


@pytest.mark.parametrize("name", HERE)
class TestEachTraining:
    def test_one_seed_is_one_training(self, name: str) -> None:
        training = load(name)
        models = [training.build(seed) for seed in (3, 3, 3)]
        assert same(state(models[0]), state(models[1]))
        assert not same(state(models[0]), state(training.build(4)))
        globally = torch.get_rng_state()
        values, again, others = (first(training, one, seed, 4) for one, seed in zip(models, (1, 1, 2), strict=True))
        assert values == again
        assert same(state(models[0]), state(models[1]))
        assert not same(state(models[0]), state(models[2]))
        assert values != others
        assert all(math.isfinite(value) for value in values)
        assert torch.equal(torch.get_rng_state(), globally)

    def test_every_parameter_is_trained(self, name: str) -> None:
        training = load(name)
        model = training.build(0)
        before = state(model)
        first(training, model, 0, wgan_gp.CRITIC_STEPS)
        still = [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]
        # A shift of all of a critic's numbers is nothing to a difference of their means.
        assert still == (["critic.5.bias"] if name == "wgan_gp" else [])

    def test_its_metric_falls(self, name: str) -> None:
        training = load(name)
        steps, share = LEARNED[name]
        values = first(training, training.build(0), 0, steps)
        assert np.mean(values[-5:]) < share * np.mean(values[:5])

    def test_validation_leaves_the_model_and_has_two_parts(self, name: str) -> None:
        training = load(name)
        model = training.build(0)
        before = state(model)
        parts = [np.atleast_1d(training.validate(model, part)) for part in (0, 1, 0)]
        assert parts[0].tolist() == parts[2].tolist()
        assert parts[0].shape == parts[1].shape
        assert (parts[0] != parts[1]).all()
        assert same(state(model), before)
        assert all(module.training for module in model.modules())

    def test_its_example_touches_every_part(self, name: str) -> None:
        training = load(name)
        model = training.build(0)
        training.example(model).backward()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_what_the_literature_draws_suits_it(self, name: str) -> None:
        training = load(name)
        model = training.build(0)
        before = state(model)
        assert side_by_side.drawn(model, training, training.literature, 0) > 3
        assert not same(state(model), before)
        assert math.isfinite(first(training, model, 0, 1)[0])


@pytest.mark.parametrize("name", ["dcgan", "wgan_gp"])
def test_adversaries_are_read_as_two_networks(name: str) -> None:
    training = load(name)
    model = training.build(0)
    plan = autoinit.apply_(model, "he_normal", [torch.zeros(1, 1)], step=lambda gan, _: training.example(gan))
    for side in ("generator", "critic"):
        weights = [key for key in plan if key.startswith(side) and dict(model.named_parameters())[key].dim() > 1]
        roles = [plan[key].role for key in weights]
        assert (roles[0], roles[-1]) == ("input", "output")


class TestDigits:
    def test_what_is_held_back_is_apart(self) -> None:
        groups = [digits.to_train_on()[0], digits.held_back(0)[0], digits.held_back(1)[0]]
        assert [tuple(group.shape) for group in groups] == [(4000, 1, 14, 14), (500, 1, 14, 14), (500, 1, 14, 14)]
        rows = [{row.numpy().tobytes() for row in group} for group in groups]
        assert len(set.union(*rows)) == sum(map(len, rows))
        assert groups[0].aminmax() == (-1, 1)

    def test_a_pass_is_a_permutation(self) -> None:
        order = digits.orders(10, 3, torch.Generator().manual_seed(0))
        passes = [torch.cat(list(itertools.islice(order, 3))).tolist() for _ in range(2)]
        assert all(len(set(one)) == 9 for one in passes)
        assert passes[0] != passes[1]


def usual_distance(one: features.Moments, other: features.Moments) -> float:
    """As torch-fidelity and others compute it: the root of the matrix Σ₁Σ₂ itself."""
    first, second = one.covariance.numpy(), other.covariance.numpy()
    root = scipy.linalg.sqrtm(first @ second).real
    difference = (one.mean - other.mean).numpy()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * np.trace(root))


class TestFrechetDistance:
    def test_it_is_that_of_others(self) -> None:
        held = features.features(digits.held_back(0)[0])
        ones = digits.held_back(0)[0][digits.held_back(0)[1] == 1]
        noisy = features.features(digits.held_back(0)[0] + 0.5 * torch.randn(500, 1, 14, 14))
        for rows in (held, noisy, features.features(ones)):
            moments = features.Moments.of(rows)
            found = features.frechet_distance(features.real(), moments)
            assert found == pytest.approx(usual_distance(features.real(), moments), rel=1e-6, abs=1e-9)
            assert found == pytest.approx(features.frechet_distance(moments, features.real()), rel=1e-6)

    def test_of_shifted_and_stretched_gaussians(self) -> None:
        still = features.Moments(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
        moved = features.Moments(still.mean + 2, 9 * still.covariance)
        assert features.frechet_distance(still, moved) == pytest.approx(3 * 4 + 3 * (3 - 1) ** 2)
        assert features.frechet_distance(moved, moved) == pytest.approx(0, abs=1e-9)

    def test_singular_covariances_are_no_trouble(self) -> None:
        few = torch.randn(5, 16, dtype=torch.float64)
        moments, point = features.Moments.of(few), features.Moments.of(few[:1].repeat(2, 1))
        assert features.frechet_distance(moments, moments) == pytest.approx(0, abs=1e-9)
        expected = (few.mean(0) - few[0]).square().sum() + moments.covariance.trace()
        assert features.frechet_distance(moments, point) == pytest.approx(float(expected))

    def test_what_is_not_finite_is_infinitely_far(self) -> None:
        rows = features.features(digits.held_back(0)[0][:20])
        for broken in (math.nan, math.inf):
            rows[0, 0] = broken
            assert features.frechet_distance(features.real(), features.Moments.of(rows)) == math.inf

    def test_digits_are_near_and_noise_and_one_digit_are_far(self) -> None:
        assert features.frechet_distance(features.real(), features.real_held_back(1)) < 0.02
        noise = features.Moments.of(features.features(2 * torch.rand(500, 1, 14, 14) - 1))
        assert features.frechet_distance(features.real(), noise) > 0.5
        average = features.Moments(features.real().mean, torch.zeros(16, 16, dtype=torch.float64))
        assert features.frechet_distance(features.real(), average) == pytest.approx(1.0)

    def test_the_classifier_tells_digits_and_is_the_same_again(self) -> None:
        classifier = features.classifier()
        x, y = digits.held_back(0)
        assert (classifier(x).argmax(1) == y).float().mean() > 0.88
        torch.manual_seed(7)
        with torch.no_grad():
            again = features.classifier.__wrapped__()
        assert same(state(classifier), state(again))

    def test_a_collapse_that_moves_is_seen(self) -> None:
        """A generator that draws one class in one stretch of steps, and another in the next."""
        x, y = digits.to_train_on()
        recent, whole = features.Recent(), features.Recent()
        zeros, ones = x[y == 0].split(32), x[y == 1].split(32)
        moving = [recent.distance(batch) for batch in (*zeros[:9], *ones[:9])]
        right = [whole.distance(batch) for batch in x.split(32)[:18]]
        assert moving[-1] > 10 * right[-1]
        assert moving[-1] == pytest.approx(features.Recent(99).distance(torch.cat(ones[1:9])))


class TestGradientPenalty:
    def test_of_a_plane_it_is_its_slope_less_one(self) -> None:
        plane = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
        images = torch.randn(2, 5, 1, 2, 3)
        penalty = wgan_gp.gradient_penalty(plane, images[0], images[1], torch.Generator())
        expected = (plane[1].weight.norm() - 1).square()
        torch.testing.assert_close(penalty, expected)
        penalty.backward()
        assert plane[1].weight.grad is not None
        assert plane[1].weight.grad.norm() > 0

    def test_a_flat_critic_gives_no_nan(self) -> None:
        flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
        nn.init.zeros_(flat[1].weight)
        images = torch.randn(2, 5, 1, 2, 3)
        penalty = wgan_gp.gradient_penalty(flat, images[0], images[1], torch.Generator())
        penalty.backward()
        assert penalty.item() == pytest.approx(1, abs=1e-5)
        assert flat[1].weight.grad is not None
        assert flat[1].weight.grad.isfinite().all()


class TestDiffusion:
    def test_what_is_held_back_is_apart(self) -> None:
        groups = [diffusion._images()[0], diffusion.held_back(0)[0], diffusion.held_back(1)[0]]
        assert [len(group) for group in groups] == [1438, 174, 174]
        rows = [{row.numpy().tobytes() for row in group} for group in groups]
        assert len(set.union(*rows)) == sum(map(len, rows))

    def test_noise_is_mixed_in_as_the_schedule_says(self) -> None:
        images = torch.randn(40, 1, 8, 8)
        noisy, times, noise = diffusion.noised(images, torch.Generator().manual_seed(0))
        kept = torch.tensor([np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: time + 1]) for time in times.tolist()])
        kept = kept.float().reshape(-1, 1, 1, 1)
        torch.testing.assert_close(noisy, kept.sqrt() * images + (1 - kept).sqrt() * noise, rtol=1e-4, atol=1e-4)
        assert diffusion.kept_share()[-1] < 1e-4

    def test_times_are_spread_evenly(self) -> None:
        _, times, _ = diffusion.noised(torch.zeros(50, 1, 8, 8), torch.Generator().manual_seed(1))
        gaps = times.sort().values.diff()
        assert set(gaps.tolist()) <= {19, 20, 21}

    def test_patches_are_put_where_they_were(self) -> None:
        model = diffusion.build(0)
        nn.init.zeros_(model.head.weight)
        model.head.bias.data = torch.arange(4.0)
        out = model(torch.randn(2, 1, 8, 8), torch.tensor([0, 999]), torch.tensor([1, 2]))
        tile = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(4, 4)
        torch.testing.assert_close(out, tile.expand(2, 1, 8, 8))

    def test_places_times_and_classes_are_told_apart(self) -> None:
        assert len(diffusion.positions(4, 4).unique(dim=0)) == 16
        model = diffusion.build(0)
        digit = torch.randn(1, 1, 8, 8).repeat(3, 1, 1, 1)
        out = model(digit, torch.tensor([5, 500, 5]), torch.tensor([1, 1, 2]))
        assert (out[0] - out[1]).abs().max() > 1e-3
        assert (out[0] - out[2]).abs().max() > 1e-3


class TestTwoTowers:
    def test_guessing_costs_the_log_of_the_rows(self) -> None:
        assert float(two_towers.info_nce(torch.zeros(50, 50))) == pytest.approx(math.log(50))
        scores = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
        rows = math.log(1 + math.exp(-2)) + math.log(1 + math.e)
        columns = math.log(1 + math.exp(-1)) + math.log(2)
        assert float(two_towers.info_nce(scores)) == pytest.approx((rows + columns) / 4)

    def test_each_tower_sees_its_half(self) -> None:
        model = two_towers.build(0)
        images = torch.randn(3, 1, 14, 14)
        other = images.clone()
        other[1, :, :, 7:] += 1  # the right half of the second
        changed = (model(images) - model(other)).abs() > 1e-6
        assert changed.any(dim=0).tolist() == [False, True, False]

    def test_the_scale_has_an_end(self) -> None:
        model = two_towers.build(0)
        images = torch.randn(4, 1, 14, 14)
        with torch.no_grad():
            cosines = model(images) * 0.07
            assert cosines.abs().max() <= 1
            model.log_scale.fill_(50.0)
            torch.testing.assert_close(model(images), 100 * cosines, rtol=1e-3, atol=1e-3)


# Side by side


def steps_of(values: list[float], closed: list[int]) -> Any:
    """Returns a training that yields these values, and notes its seed when it is closed."""

    def train(model: nn.Module, seed: int) -> Iterator[float]:
        try:
            for value in values:
                next(model.parameters()).data += 1
                yield value
        finally:
            closed.append(seed)

    return train


def pretended(values: list[float], closed: list[int], held_back: Any = 2.0) -> Training:
    """A training of a linear layer with known values, in as many steps."""
    return Training(
        name="dcgan", build=lambda seed: nn.Linear(2, 1), train=steps_of(values, closed), example=torch.zeros(3, 2),
        validate=lambda model, part: held_back if part == 1 else -1.0, literature="he_normal", steps=8, budget=200,
        about="",
    )  # fmt: skip


class TestJudging:
    def test_the_last_quarter_counts_and_the_training_is_closed(self) -> None:
        closed: list[int] = []
        training = pretended([float(value) for value in range(100)], closed, held_back=[1.0, 2.0, 6.0])
        model = training.build(0)
        before = state(model)
        closed_before: list[list[int]] = []

        def validate(model: nn.Module, part: int) -> float | list[float]:
            closed_before.append(list(closed))
            held_back = training.validate(model, part)
            return held_back if isinstance(held_back, float) else list(held_back)

        row = side_by_side.judge(model, dataclasses.replace(training, validate=validate), 5)
        assert row["last"] == 6.5
        assert row["held_back"] == 3.0
        assert row["steps_done"] == 8
        assert closed_before == [[EVALUATION_SEEDS + 5]]
        assert same(state(model), before)

    def test_a_divergence_is_infinite(self) -> None:
        closed: list[int] = []
        row = side_by_side.judge(nn.Linear(2, 1), pretended([1.0, math.nan, 1.0, 1.0], closed), 0)
        assert (row["last"], row["held_back"], row["steps_done"]) == (math.inf, math.inf, 2)
        assert closed

    def test_a_held_back_value_that_is_not_finite_is_infinite(self) -> None:
        row = side_by_side.judge(nn.Linear(2, 1), pretended([1.0] * 9, [], held_back=math.nan), 0)
        assert (row["last"], row["held_back"]) == (1.0, math.inf)

    def test_curves_are_thinned_to_means(self) -> None:
        assert side_by_side.thinned([1.0, 2.0]) == [1.0, 2.0]
        assert side_by_side.thinned([float(place) for place in range(80)]) == [2 * place + 0.5 for place in range(40)]

    def test_an_input_is_an_example_too(self) -> None:
        training = pretended([1.0], [])
        model = training.build(0)
        side_by_side.drawn(model, training, "he_normal", 0)
        assert not model.bias.any()


class TestRuns:
    def test_what_is_done_is_not_run_again(self) -> None:
        rows = [{"training": "dcgan", "seed": 0, "start": start} for start in ("as-is", "selected")]
        found = side_by_side.pending(["dcgan"], 2, rows, smoke=False)
        assert found[0] == ("dcgan", 0, "literature", False)
        assert [job[:3] for job in found[1:]] == [("dcgan", 1, start) for start in tables.STARTS]

    def test_three_starts_of_one_model(self) -> None:
        rows = {start: side_by_side.run_one("two_towers", 0, start, True) for start in tables.STARTS}
        assert all(row["steps"] == side_by_side.SMOKE_STEPS == row["steps_done"] for row in rows.values())
        assert rows["as-is"]["curve"][0] != rows["literature"]["curve"][0]
        assert (rows["selected"]["curve"] == rows["as-is"]["curve"]) == rows["selected"]["kept"]
        assert rows["selected"]["select"]["steps"] <= side_by_side.SMOKE_BUDGET
        assert rows["as-is"].keys() >= {"commit", "date", "torch", "training_seconds", "start_seconds"}
        told = tables.report(list(rows.values()))
        assert "| two_towers | 1 |" in told


def rows_of(name: str, by: dict[str, list[float]], kept: bool = False) -> list[Row]:
    """Returns the rows of three starts, a value per seed."""
    rest = {"date": "d", "commit": "c", "torch": "t", "steps": 10, "training_seconds": 2.0, "recipe": "he_normal"}
    search = {"kept": kept, "select": {"seconds": 3.0, "steps": 100.0}}
    return [
        {"training": name, "seed": seed, "start": start, "last": value, "held_back": value, **rest,
         **(search if start == "selected" else {})}
        for start, values in by.items() for seed, value in enumerate(values)
    ]  # fmt: skip


class TestTables:
    def test_positive_values_are_compared_by_log_ratios(self) -> None:
        rows = rows_of("dcgan", {"as-is": [1.0, 2.0, 4.0], "selected": [0.5, 1.0]})
        found = tables.pairs(rows, "dcgan", "selected", "last")
        assert found == tables.Pairs((-math.log(2), -math.log(2)), logs=True)

    def test_values_that_may_be_negative_are_compared_by_as_is_size(self) -> None:
        rows = rows_of("dcgan", {"as-is": [-100.0, -100.0], "selected": [-150.0, -90.0], "literature": [math.inf]})
        assert tables.pairs(rows, "dcgan", "selected", "last") == tables.Pairs((-0.5, 0.1), logs=False)
        assert tables.pairs(rows, "dcgan", "literature", "last").differences == (tables.LIMIT,)

    def test_a_mean_near_zero_is_not_the_size(self) -> None:
        assert tables.size([-1.0, 1.0]) == pytest.approx(math.sqrt(2))
        assert tables.size([5.0]) == 5.0
        assert tables.size([]) == 1.0

    def test_verdicts(self) -> None:
        assert tables.verdict([-0.5, -0.4, -0.6], kept=False) == "better"
        assert tables.verdict([0.5, 0.4, 0.6], kept=False) == "worse"
        assert tables.verdict([-0.5, 0.4, -0.1], kept=False) == "no difference"
        assert tables.verdict([0.5, -0.4, 0.1], kept=False) == "no difference"
        assert tables.verdict([0.0, 0.0], kept=True) == "kept"
        assert tables.verdict([-0.5], kept=False) == "one seed"

    def test_harm_is_judged_over_all_trainings(self) -> None:
        alone = [0.0, 0.02, 0.01, 0.03, 0.0]
        assert tables.harms([alone]) == ["no harm"]
        assert tables.harms([[0.2, 0.21, 0.2], [], [0.0, 0.0], [0.3, -0.3, 0.0]]) == [
            "HARM", "-", "no harm", "not shown"
        ]  # fmt: skip
        barely = [0.0, 0.05, -0.02, 0.06, 0.0]  # p is between 0.10/9 and 0.10
        assert tables.harms([barely]) == ["no harm"]
        assert tables.harms([barely, *[[0.3, -0.3, 0.0]] * 8])[0] == "not shown"

    def test_a_table_has_its_three_starts(self) -> None:
        assert tables.report([]) == "There is no result yet."
        rows = rows_of("dcgan", {"as-is": [1.0, 1.0], "literature": [2.0, 2.0], "selected": [0.5, 0.5]})
        rows += rows_of("diffusion", {"as-is": [-3.0, -3.0], "selected": [-3.0, -3.0]}, kept=True)
        lines = tables.report(rows).splitlines()
        wanted = (
            "| dcgan | 2 | 1 | 2 | 0.5 | 0.69 [0.69, 0.69] | -0.69 [-0.69, -0.69] | 0/2 | better | no harm |",
            "| diffusion | 2 | -3 | - | -3 | - | ± 0.00 [0.00, 0.00] | 2/2 | kept | no harm |",
            "| dcgan | 10 | 2 s | 100 | 3 s | he_normal (2) | he_normal |",
            "| diffusion | 10 | 2 s | 100 | 3 s | as-is | - |",
        )
        for line in wanted:
            assert line in lines
