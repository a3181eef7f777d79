from __future__ import annotations

import pytest
import torch
from torch import nn

import autoinit
from autoinit.threads import using_threads


def test_the_number_is_put_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with using_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["orthogonal", "looks_linear", "butterfly_orthogonal"])
def test_a_plan_gives_the_same_bits_on_any_number_of_threads(name: str) -> None:
    def drawn(threads: int) -> torch.Tensor:
        model = nn.Sequential(nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        with using_threads(threads):
            autoinit.apply_(model, name, torch.zeros(4, 192))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(drawn(1), drawn(2))
