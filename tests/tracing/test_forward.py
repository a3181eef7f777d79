"""What the model's own forward pass does is its architecture; what the loss does with its output is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoinit.apply import apply_
from autoinit.graph import Graph
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.tracing import read_graph, trace

STATES, ACTIONS = torch.randn(16, 5), torch.randint(0, 3, (16,))


class Block(nn.Module):
    """A gated block on a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(5, 8), nn.Sequential(Block(8), Block(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)))
        return y


def plain(model: nn.Module) -> Tensor:
    return F.mse_loss(model(STATES), torch.zeros(16, 3))


def entropy(model: nn.Module) -> Tensor:
    policy = torch.distributions.Categorical(logits=model(STATES))
    return -policy.log_prob(ACTIONS).mean() - 0.01 * policy.entropy().mean()


def entropy_by_hand(model: nn.Module) -> Tensor:
    logits = model(STATES)
    return F.cross_entropy(logits, ACTIONS) + 0.01 * (logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def distillation(model: nn.Module) -> Tensor:
    logits = model(STATES)
    weights = torch.sigmoid(logits.max(-1).values)
    return (weights * F.kl_div(logits.log_softmax(-1), torch.full((16, 3), 1 / 3), reduction="none").sum(-1)).mean()


def lipschitz(model: nn.Module) -> Tensor:
    x = STATES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return model(STATES).mean() + F.relu(slope.norm(dim=1) - 1).square().mean()


def gradient_alone(model: nn.Module) -> Tensor:
    x = STATES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(outputs=model(x).sum(), inputs=x, create_graph=True)
    return (slope - x).square().mean()


def jacobian(model: nn.Module) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(model))(STATES).square().mean()


def laplacian(model: nn.Module) -> Tensor:
    return torch.func.vmap(torch.func.hessian(lambda x: model(x).sum()))(STATES).square().mean()


def forward_mode(model: nn.Module) -> Tensor:
    return torch.func.jvp(model, (STATES,), (torch.ones_like(STATES),))[1].square().mean()


def two_passes_and_a_penalty_on_weights(model: nn.Module) -> Tensor:
    a, b = model(STATES), model(STATES + 0.1)
    likeness = (a @ b.t()).softmax(-1)
    size = torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum()
    return -(likeness * torch.eye(16)).sum() + 1e-4 * size


def own_backward(model: nn.Module) -> Tensor:
    loss = entropy(model)
    loss.backward()
    lipschitz(model).backward()
    return loss.detach()


def adapted(model: nn.Module) -> Tensor:
    """The loss after one step of gradient descent, as in MAML."""
    weights = dict(model.named_parameters())
    slopes = torch.autograd.grad(plain(model), list(weights.values()), create_graph=True)
    fast = {name: weight - 0.1 * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)}
    return F.mse_loss(torch.func.functional_call(model, fast, (STATES,)), torch.ones(16, 3))


LOSSES = (
    entropy, entropy_by_hand, distillation, lipschitz, gradient_alone, jacobian, laplacian, forward_mode,
    two_passes_and_a_penalty_on_weights, own_backward, adapted,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch.func.jvp says so
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_changes_nothing_of_the_architecture(loss: Callable[[nn.Module], Tensor]) -> None:
    model = Net()
    assert read_graph(model, lambda: loss(model)) == read_graph(model, lambda: plain(model))


def test_a_head_of_zeros_is_that_of_the_model_under_a_penalty() -> None:
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    model.append(nn.Linear(12, 1))

    def step(model: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        score = model(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return F.softplus(score).mean() + slope.square().sum(1).mean()

    apply_(model, Recipe(base="he_normal", head="zero"), STATES, step=step)
    zeros = {name for name, parameter in model.named_parameters() if name.endswith("weight") and not parameter.any()}
    assert zeros == {"6.weight"}


class Potential(nn.Module):
    """Energy and forces, or forces alone, differentiated inside the forward pass."""

    def __init__(self, energy: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1))
        self.energy = energy

    def forward(self, places: Tensor) -> tuple[Tensor, ...]:
        places = places.detach().requires_grad_()
        energy = self.net(places).sum()
        forces = -torch.autograd.grad(energy, places, create_graph=True)[0]
        return (energy, forces) if self.energy else (forces,)


@pytest.mark.parametrize("energy", [True, False])
def test_a_model_that_differentiates_itself(energy: bool) -> None:
    model, places = Potential(energy), torch.randn(6, 3)
    graph = read_graph(model, lambda: torch.stack([output.square().mean() for output in model(places)]).sum())
    plain_graph = read_graph(model.net, lambda: model.net(places).mean())
    assert [layer.role for layer in graph.layers] == [layer.role for layer in plain_graph.layers]
    assert [layer.fan_in for layer in graph.weights] == [3, 8, 8]


class Parts(nn.Module):
    """Parts that a step puts together; it has no forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.first, self.shift = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6))
        self.second, self.offset = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(3))
        self.log_noise, self.temperature = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))


def roles(graph: Graph, *names: str) -> list[str]:
    return [graph[name].role for name in names]


TOKENS = torch.randint(0, 11, (4, 7))


def test_parameters_that_a_step_uses_without_a_module_are_the_models() -> None:
    parts = Parts()

    def step() -> Tensor:
        hidden = torch.relu(parts.body(parts.table(TOKENS)) @ parts.first + parts.shift)
        policy = torch.distributions.Categorical(logits=hidden @ parts.second + parts.offset)
        return -policy.entropy().mean()

    graph = read_graph(parts, step)
    assert roles(graph, "body.2.weight", "first", "shift", "second", "offset") == (
        ["hidden", "hidden", "bias", "output", "bias"]
    )
    assert (graph["shift"].of, graph["offset"].of, str(graph["first"].activation)) == ("first", "second", "relu")


def test_a_tied_head_of_the_step_is_the_models_and_a_penalty_on_the_same_weight_is_not() -> None:
    parts = Parts()

    def tied() -> Tensor:
        return F.cross_entropy(
            (parts.body(parts.table(TOKENS)) @ parts.table.weight.t()).flatten(0, 1), TOKENS.flatten()
        )

    def contractive() -> Tensor:
        code = torch.sigmoid(parts.body[0](torch.randn(4, 8)))
        slope = (code * (1 - code)).square() @ parts.body[0].weight.square().sum(1)
        return parts.body[2](code).mean() + slope.mean()

    assert roles(read_graph(parts, tied), "body.0.weight", "body.2.weight") == ["hidden", "hidden"]
    assert roles(read_graph(parts, contractive), "body.0.weight", "body.2.weight") == ["input", "output"]


class Recogniser(nn.Module):
    """An encoder whose last layer is gated, and what recognises a class in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 12), nn.GLU(), nn.Linear(6, 8), nn.GELU())
        self.top = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.encoder(x))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("order", ["before", "after", "around"])
def test_an_encoder_that_is_also_run_by_itself_has_the_whole_behind_it(length: int, order: str) -> None:
    model = Recogniser()
    own = model.encoder[:length]

    def step() -> Tensor:
        early = own(STATES).std(0).mean() if order != "after" else torch.zeros(())
        loss = F.cross_entropy(model(STATES), ACTIONS)
        late = own(STATES.flip(0)).std(0).mean() if order != "before" else torch.zeros(())
        return loss - early - late

    graph = read_graph(model, step)
    assert graph == read_graph(model, lambda: F.cross_entropy(model(STATES), ACTIONS))
    assert [str(graph[f"encoder.{at}.weight"].activation) for at in (0, 2, 4)] == ["tanh", "sigmoid", "gelu"]
    assert (graph["encoder.2.weight"].slices, graph["encoder.4.weight"].role) == (2, "hidden")


@pytest.mark.parametrize("kind", ["noise", "code"])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_decoder_that_is_also_run_by_itself_has_the_encoder_before_it(kind: str, start: int) -> None:
    class Coder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8))
            self.decoder = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(x))

    def alone(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        code = torch.randn(3, 8) if kind == "noise" else model.get_submodule("encoder")(batch[0]).detach()
        return model.get_submodule("decoder")[start:](code).square().mean() + rebuilt(model, batch)

    def rebuilt(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    model = Coder()
    graph = trace(model, (STATES, STATES), step=alone)
    assert graph == trace(model, (STATES, STATES), step=rebuilt)
    assert [graph[f"decoder.{at}.weight"].depth for at in (1, 2, 4)] == [2, 3, 4]


def test_a_state_that_begins_as_zeros_is_a_recurrent_networks() -> None:
    """Its weights first meet what is no input, and then what came of one."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.state, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(len(x), 8)
            for _ in range(3):
                state = torch.tanh(self.inner(x) + self.state(state))
            return self.head(state)

    def twice(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1]) + model(batch[0].flip(0)).square().mean()

    assert trace(Written(), (STATES, ACTIONS), step=twice)["state.weight"].role == "recurrent"


def test_what_only_the_loss_uses_is_named_and_kept() -> None:
    parts = Parts()

    def step() -> Tensor:
        output = parts.body(parts.table(TOKENS))
        losses = torch.stack([output.square().mean(), output.abs().mean()])
        likeness = parts.temperature.exp() * (output[:, 0] @ output[:, 1].t())
        weighted = (losses * torch.exp(-parts.log_noise) + parts.log_noise).sum()
        return weighted + F.cross_entropy(likeness, torch.arange(4))

    graph = read_graph(parts, step)
    assert roles(graph, "log_noise", "temperature", "body.2.weight") == ["other", "scalar", "output"]
    assert all("only the loss uses it" in graph[name].keep for name in ("log_noise", "temperature"))
    assert "no gradient reaches it" in graph["first"].keep


def test_a_head_that_the_step_rectifies_is_not_set_to_zero() -> None:
    model = Net()
    assert read_graph(model, lambda: torch.relu(model(STATES)).mean())["head.weight"].rectified
    assert not read_graph(model, lambda: plain(model))["head.weight"].rectified


def test_an_entropy_that_the_forward_pass_returns_routes_nothing() -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.head(torch.tanh(self.body(x)))
            return logits, -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)

    model = Policy()

    def step() -> Tensor:
        logits, uncertainty = model(STATES)
        return F.cross_entropy(logits, ACTIONS) - uncertainty.mean()

    graph = read_graph(model, step)
    assert (graph["head.weight"].role, graph["head.weight"].keep) == ("output", "")


def test_a_head_whose_output_the_loss_leaves_out_gets_no_gradient() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.main, self.spare = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(self.body(x))
            return self.main(h), self.spare(h)

    model = TwoHeads()
    graph = read_graph(model, lambda: model(STATES)[0].mean())
    assert "no gradient reaches it" in graph["spare.weight"].keep
    assert roles(graph, "body.weight", "main.weight") == ["input", "output"]


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")
def test_scripted_parts_take_no_hook_and_are_read_all_the_same() -> None:
    torch.manual_seed(0)
    plain_parts = [nn.Linear(5, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)), nn.Linear(8, 3)]
    model = nn.Sequential(*plain_parts)
    scripted = nn.Sequential(plain_parts[0], torch.jit.script(plain_parts[1]), plain_parts[2])
    assert read_graph(scripted, lambda: entropy(scripted)) == read_graph(model, lambda: plain(model))


def test_no_hook_is_left_when_the_step_fails() -> None:
    model = Net()

    def step() -> Tensor:
        model(STATES)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        read_graph(model, step)
    assert not any(module._forward_hooks for module in model.modules())
