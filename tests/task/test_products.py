"""Every product of data with a named weight is seen while a model runs, and none afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from zoo import ZOO

from autoinit.task.products import watch_products


def products(model: nn.Module, *inputs: object) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        seen.setdefault(name, output)

    with torch.no_grad(), watch_products(model, keep):
        model(*inputs)
    return seen


def test_products_of_linear_layers_convolutions_and_embeddings() -> None:
    model, (inputs, _), _ = ZOO["cnn_bn"]()
    seen = products(model, inputs)
    assert set(seen) == {"0.weight", "4.weight", "10.weight"}
    torch.testing.assert_close(seen["0.weight"], model.get_submodule("0")(inputs))
    model, (tokens, _), _ = ZOO["tied_characters"]()
    assert set(products(model, tokens)) == {"tokens.weight", "places.weight", "block.up.weight", "block.down.weight"}


def test_products_of_bare_parameters_and_transformers_layers() -> None:
    model, (inputs, _), _ = ZOO["einsum_attention"]()
    assert set(products(model, inputs)) >= {"wq", "wk", "wv", "wo", "w1", "w2", "stem.weight", "head.weight"}
    model, (batch, _), _ = ZOO["gpt2"]()
    seen = products(model, batch["input_ids"])
    assert seen["transformer.h.0.mlp.c_fc.weight"].shape[-1] == 64


def test_products_of_parametrized_weights_have_the_derived_name() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    seen = products(model, x)
    assert set(seen) == {"0.weight", "2.weight"}
    torch.testing.assert_close(seen["0.weight"], model[0](x))


def test_products_inside_multihead_attention() -> None:
    model = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 4)
    seen = products(model, x, x, x)
    assert seen["in_proj_weight"].numel() == 3 * x.numel()
    torch.testing.assert_close(seen["out_proj.weight"].transpose(0, 1), model(x, x, x)[0])
    mixed = nn.MultiheadAttention(4, 2, kdim=3, vdim=2)
    shapes = products(mixed, torch.randn(5, 3, 4), torch.randn(6, 3, 3), torch.randn(6, 3, 2))
    assert set(shapes) == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}


def test_views_and_casts_of_a_weight_are_followed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w.T.double().contiguous()

    assert set(products(Model(), torch.randn(2, 4).double())) == {"w"}


def test_nothing_is_watched_after_the_context() -> None:
    seen: list[str] = []
    model = nn.Linear(2, 2)
    with watch_products(model, lambda name, output: seen.append(name)):
        pass
    model(torch.randn(1, 2))
    assert seen == []


def test_a_weight_can_be_given_other_data() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3)
    met: list[tuple[str, tuple[int, ...]]] = []

    def doubled(name: str, value: Tensor) -> Tensor:
        met.append((name, tuple(value.shape)))
        return 2 * value if name == "2.weight" else value

    with watch_products(model, lambda name, output: None, doubled):
        found = model(x)
    assert met == [("0.weight", (5, 3)), ("2.weight", (5, 4))]
    assert torch.equal(found, model[2](2 * model[1](model[0](x))))
