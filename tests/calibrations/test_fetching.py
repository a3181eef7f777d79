"""Numbers fetched from devices: as they were, in one copy from each."""

from __future__ import annotations

import pytest
import torch

from autoinit.calibrations.fetching import fetched


def test_what_lies_on_the_host_is_not_copied() -> None:
    tensors = [torch.ones(3), torch.zeros((), dtype=torch.float64), torch.tensor([True, False])]
    found = fetched(tensors)
    assert [one.data_ptr() for one in found] == [one.data_ptr() for one in tensors]
    assert not any(one.requires_grad for one in fetched([torch.ones(2, requires_grad=True)]))
    assert fetched([]) == []


def test_a_device_is_asked_once_for_tensors_of_all_shapes_and_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for another one: what is copied from there is made up here, by its place."""
    shapes = {torch.float32: (2, 3), torch.float64: (), torch.bool: (4,)}
    away = [torch.empty(shape, dtype=dtype, device="meta") for dtype, shape in shapes.items()]
    copied: list[torch.Tensor] = []

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor)
        return torch.arange(tensor.numel(), dtype=tensor.dtype)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    here = torch.full((2,), 7.0)
    first, last, *rest = fetched([away[0], here, *away[1:]])
    assert [one.dtype for one in copied] == [torch.float64]
    assert torch.equal(first, torch.arange(6.0).reshape(2, 3))
    assert torch.equal(last, here)
    assert torch.equal(rest[0], torch.tensor(6.0, dtype=torch.float64))
    assert rest[1].tolist() == [True] * 4
