"""The suite itself: a right draw passes, and for each property there is a wrong one that fails it."""

from __future__ import annotations

import doctest
import math
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autoinit import testing
from autoinit.errors import ArgumentError
from autoinit.initializers.draws import DRAWS, Draw
from autoinit.initializers.geometry import Geometry
from autoinit.testing import PROPERTIES, Claims, check_draw

ORTHOGONAL = Claims(moments="exactly", orthogonal="matrix")


def altered(name: str, change: Callable[[Tensor, float], object]) -> Draw:
    """A draw of ours, followed by a mistake."""

    def draw(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        DRAWS[name](tensor, geometry, std, generator)
        change(tensor, std)

    return draw


def scaled(factor: float) -> Draw:
    return altered("normal", lambda tensor, std: tensor.mul_(factor))


def uncorrected(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    torch.nn.init.trunc_normal_(tensor, 0.0, max(std, 1e-30), -2 * std - 1e-30, 2 * std + 1e-30, generator=generator)


def from_the_global_generator(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    tensor.normal_(0.0, std)


def from_python(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    DRAWS["normal"](tensor, geometry, std, generator)
    random.random()


def of_fixed_size(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    tensor.normal_(0.0, 0.25, generator=generator)


def in_float32(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    tensor.copy_(torch.empty(tensor.shape).normal_(0.0, std, generator=generator))


def ends_early(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    tensor.flatten()[:-1].normal_(0.0, std, generator=generator)


def nearly_orthogonal(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    DRAWS["orthogonal"](tensor, geometry, std, generator)
    tensor.add_(torch.empty_like(tensor).normal_(0.0, 3e-5 * std, generator=generator))


WRONG: dict[str, tuple[str, Draw, Claims, str]] = {
    "He for Xavier": ("moments", scaled(math.sqrt(2)), Claims(), "root mean square 0.3[456]"),
    "fan_out for fan_in": ("moments", scaled(math.sqrt(96 / 64)), Claims(), "root mean square 0.30"),
    "truncation not corrected": ("moments", uncorrected, Claims(), "root mean square 0.2[12]"),
    "not centred": ("moments", altered("normal", lambda t, std: t.add_(0.1 * std)), Claims(), "mean 0.02"),
    "beyond its support": ("support", DRAWS["normal"], Claims(support=2.0), "beyond 2.0"),
    "short of its support": ("support", DRAWS["uniform"], Claims(support=2.0), "not at 2.0"),
    "nearly orthogonal": ("orthogonality", nearly_orthogonal, ORTHOGONAL, "above 16·eps"),
    "global generator": ("determinism", from_the_global_generator, Claims(), "two results"),
    "Python's generator": ("determinism", from_python, Claims(), "global random generator"),
    "always the same": ("determinism", DRAWS["identity"], Claims(), "another seed gave the same"),
    "one entry missed": ("every entry", ends_early, Claims(), "not written"),
    "std ignored": ("scale", of_fixed_size, Claims(), "twice the std"),
    "float32 for float64": ("dtypes", in_float32, Claims(), "drawn in float32"),
}


def test_every_draw_of_ours_that_claims_nothing_special_passes() -> None:
    check_draw(DRAWS["normal"])
    check_draw(DRAWS["orthogonal"], ORTHOGONAL)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_draw_fails_the_property_and_is_told_why(name: str) -> None:
    check, draw, claims, message = WRONG[name]
    with pytest.raises(AssertionError, match=message):
        PROPERTIES[check](draw, claims)
    with pytest.raises(AssertionError, match=rf"^({check}|moments|every entry): "):
        check_draw(draw, claims)


def test_fill_is_what_the_other_properties_hold_to_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta, empty, strided and recorded tensors are the business of `fill_`: a careless one fails."""

    def careless(tensor: Tensor, draw: Draw, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        plain = torch.empty(tensor.shape)
        draw(plain, geometry, std, generator)
        if not tensor.is_meta:
            tensor.data = plain

    def overflowing(tensor: Tensor, draw: Draw, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        base = tensor if tensor._base is None else tensor._base
        with torch.no_grad():
            base.zero_()
            plain = torch.empty(tensor.shape)
            draw(plain, geometry, std, generator)
            tensor.copy_(plain)

    monkeypatch.setattr(testing, "fill_", careless)
    for check in ("meta", "parameters"):
        with pytest.raises(AssertionError):
            PROPERTIES[check](DRAWS["normal"], Claims())
    monkeypatch.setattr(testing, "fill_", overflowing)
    with pytest.raises(AssertionError, match="outside the tensor"):
        PROPERTIES["layouts"](DRAWS["normal"], Claims())


def test_an_accelerator_must_get_the_bits_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(tensor: Tensor, draw: Draw, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        draw(tensor, geometry, std, generator.manual_seed(1))

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cpu"))  # as if it were one
    PROPERTIES["devices"](DRAWS["normal"], Claims())
    monkeypatch.setattr(testing, "fill_", elsewhere)
    with pytest.raises(AssertionError, match="another draw on cpu"):
        PROPERTIES["devices"](DRAWS["normal"], Claims())


def test_empty_tensors_are_not_drawn() -> None:
    def fails(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        raise AssertionError("the tensor was drawn")

    PROPERTIES["empty"](fails, Claims())
    with pytest.raises(AssertionError, match="was drawn"):
        PROPERTIES["parameters"](fails, Claims())


def test_claimed_cases_alone_are_tried() -> None:
    seen: set[tuple[int, ...]] = set()

    def note(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
        assert geometry.heads == 2
        seen.add(tuple(tensor.shape))
        DRAWS["normal"](tensor, geometry, std, generator)

    check_draw(note, Claims(cases=("wide", "one row"), heads=2))
    assert seen == {(40, 100), (1, 30)}


def test_the_example_in_the_docstring_runs() -> None:
    names = dict(vars(testing))
    example = doctest.DocTestParser().get_doctest(testing.__doc__ or "", names, "testing", None, 0)
    assert len(example.examples) == 2
    assert doctest.DocTestRunner().run(example).failed == 0


def test_it_needs_no_test_runner() -> None:
    code = "import sys, autoinit.testing; print('pytest' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


@pytest.mark.parametrize("wrong", [{"cases": ("linaer",)}, {"orthogonal": "yes"}, {"moments": "exact"}])
def test_claims_that_would_test_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"linaer|one of"):
        Claims(**wrong)
