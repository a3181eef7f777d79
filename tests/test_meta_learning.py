"""The verbs of learned starts; what they compute is tested in tests/episodic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoinit


def test_a_wrapped_model_is_the_one_inside_of_it() -> None:
    x = torch.linspace(-1, 1, 6)[:, None]
    task = ((x, 2 * x), (x, 2 * x))
    model = nn.Linear(1, 1)
    plain = autoinit.meta_learn(model, [task], rounds=2)
    wrapped = autoinit.meta_learn(nn.DataParallel(model), [task], rounds=2)
    assert torch.equal(plain.parameters["weight"], wrapped.parameters["weight"])


def test_what_has_no_weights_is_refused() -> None:
    with pytest.raises(autoinit.ModelError, match="meta device"):
        autoinit.meta_learn(nn.Linear(1, 1, device="meta"), [])
    with pytest.raises(autoinit.ModelError, match="no trainable parameter"):
        autoinit.evaluate_episodes(nn.ReLU(), [])
