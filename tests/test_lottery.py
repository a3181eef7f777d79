"""The verb `ticket`: what each method is told, what is refused, and that the model stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from lots import Plain, data, dense, images

import autoinit
from autoinit.errors import ArgumentError, OptimizerError

METHODS = ("magnitude", "snip", "grasp", "synflow", "random")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_norms_is_ranked_and_left_alone_and_a_seed_repeats_it(method: Any) -> None:
    model = dense().eval()
    options: dict[str, Any] = {"steps": 4, "rounds": 2} if method == "magnitude" else {}
    with unchanged(model):
        first = autoinit.ticket(model, data(), 0.75, method=method, **options)
        second = autoinit.ticket(model, data(), 0.75, method=method, **options)
    assert sum(int(mask.sum()) for mask in first.masks.values()) == 156
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)
    assert all(torch.equal(first.weights[name], value) for name, value in dense().state_dict().items())
    assert first.method == method


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 0.0}, "between 0 and 1"),
        ({"sparsity": float("nan")}, "between 0 and 1"),
        ({"sparsity": 0.9999}, r"largest possible here is 0\.9"),
        ({"method": "magnitud"}, "Did you mean 'magnitude'"),
        ({"method": None}, "method is None"),
        ({"method": "snip", "rounds": 3}, "rounds is given, and method='snip' does not use it"),
        ({"method": "synflow", "steps": 3}, "steps is given"),
        ({"densities": {}}, "densities is given"),
        ({"rounds": 0}, "rounds is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": 10, "rewind_to": 10}, "rewind_to is 10, but a training has 10 steps"),
        ({"rewind_to": -1}, "rewind_to is -1"),
        ({"scope": "layers"}, "Did you mean 'layer'"),
        ({"seed": -1}, "seed"),
        ({"lr": "search"}, "only select does"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any], said: str) -> None:
    model = dense()
    with unchanged(model), pytest.raises(ArgumentError, match=said):
        autoinit.ticket(model, data(), **{"sparsity": 0.5, **options})


def test_an_optimizer_that_cannot_be_used_is_refused() -> None:
    model = dense()
    with unchanged(model), pytest.raises(OptimizerError):
        autoinit.ticket(model, data(), 0.5, optimizer=3)


def test_a_layer_that_collapses_is_named_in_a_note() -> None:
    torch.manual_seed(0)
    found = autoinit.ticket(Plain(), images(), 0.999, method="snip")
    empty = [name for name, density in found.densities.items() if density == 0]
    assert empty
    (note,) = (note for note in found.notes if "collapse" in note)
    assert empty[0] in note
    assert note in str(found).replace("\n  ", " ")


def test_a_scope_of_layers_gives_one_density() -> None:
    found = autoinit.ticket(dense(), data(), 0.75, method="grasp", scope="layer")
    assert set(found.densities.values()) == {0.25}


def test_the_name_stays_a_function_when_its_parts_are_imported() -> None:
    import autoinit.lottery
    import autoinit.tickets.ticket

    assert callable(autoinit.ticket)
