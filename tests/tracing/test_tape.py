"""What the tape records, and the products that it reports."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoinit.task.products import parameter_names
from autoinit.tracing.tape import Call, Complete, Ref, Tape, leaves


def test_calls_are_found_by_the_node_of_their_result() -> None:
    x = torch.randn(3, requires_grad=True)
    tape = Tape({})
    with tape:
        y = torch.tanh(2.0 * x)
    call = tape.calls[y.grad_fn]
    assert isinstance(call, Call)
    assert call.func is torch.tanh
    assert isinstance(call.args[0], Ref)


def test_a_function_that_hands_back_its_argument_is_no_call_of_its_own() -> None:
    x = torch.randn(3, requires_grad=True)
    tape = Tape({})
    with tape:
        y = F.dropout(F.gelu(x), 0.0)
        z = y.to(torch.float32)
    assert z is y
    assert "gelu" in str(tape.calls[y.grad_fn].func)


def test_backward_is_recorded_and_left_out() -> None:
    x = torch.randn(3, requires_grad=True)
    tape = Tape({})
    with tape:
        loss = (x * x).sum()
        loss.backward()
    assert tape.losses == [loss]
    assert x.grad is None


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch.func.jvp says so
def test_gradients_that_the_step_takes_are_recorded_with_what_they_differentiate() -> None:
    model, x = nn.Linear(3, 1), torch.randn(4, 3, requires_grad=True)
    square = nn.Sequential(model, nn.Tanh())
    with Tape({}) as tape:
        total = square(x).sum()
        (slope,) = torch.autograd.grad(total, x, create_graph=True)
        torch.autograd.grad(square(x).sum(), x)
    assert tape.gradients == {slope.grad_fn: (total.grad_fn,)}
    with Tape({}) as tape:
        _, tangent = torch.func.jvp(square, (x.detach(),), (torch.ones_like(x),))
    assert tangent.grad_fn in tape.gradients


def test_a_recurrent_call_keeps_its_weights_in_order() -> None:
    model = nn.LSTM(2, 3)
    tape = Tape(parameter_names(model))
    with tape:
        out, _ = model(torch.randn(4, 1, 2))
    call = tape.recurrent[out.grad_fn]
    assert call.name == "lstm"
    assert call.weights == ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def test_a_step_ends_once_every_trainable_parameter_is_met() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    parts = list(torch.randn(4, 2, 3))
    done: list[int] = []

    def step(used: nn.Module) -> None:
        for index, part in enumerate(parts):
            used(part).sum().backward()
            done.append(index)

    with pytest.raises(Complete), Tape({}, model.parameters()) as tape:
        step(model)
    assert (done, len(tape.losses)) == ([], 1)
    with Tape({}, model.parameters()) as tape:  # the last layer is never met
        step(model[0])
    assert (done, len(tape.losses)) == ([0, 1, 2, 3], 4)


def test_leaves_are_what_gets_a_gradient() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    assert leaves(model(x).sum().grad_fn) == {id(model.weight), id(model.bias), id(x)}
    assert leaves(None) == set()
