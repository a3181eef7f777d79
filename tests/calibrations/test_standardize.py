"""One pass that sets every layer right, against the paper's way, and on a device that the host must not wait for."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from autoinit.calibrations import standardize as module
from autoinit.calibrations import units
from autoinit.calibrations.projections import Projections
from autoinit.calibrations.standardize import reason_to_skip, standardize
from autoinit.calibrations.units import free_bias, moments, scale, set_bias
from autoinit.graph import Graph, Layer
from autoinit.task.assign import read
from autoinit.task.products import watch_products
from autoinit.task.task import Task, example_task
from autoinit.tracing.tracing import trace_task


def plain() -> tuple[nn.Module, Any]:
    sizes = [12, *[24] * 9]
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*parts, nn.Linear(24, 3)), rows(12)


def convolutional() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Unflatten(1, (1, 10, 10)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 3, groups=2), nn.GELU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 3),
    ), rows(100)  # fmt: skip


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, bias=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(6))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.unflatten(1, (1, 10, 10)))
        for one, norm, other, last in zip(
            self.convolutions[::2], self.norms[::2], self.convolutions[1::2], self.norms[1::2], strict=True
        ):
            x = (x + last(other(norm(one(x)).relu()))).relu()
        found: Tensor = self.head(x.mean((2, 3)))
        return found


def residual() -> tuple[nn.Module, Any]:
    return Residual(), rows(100)


class Attending(nn.Module):
    """Encoder layers of torch's own attention."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.inside, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.inside(x.unflatten(1, (5, 6)))).mean(1))
        return found


def weight_normed() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(12, 24)), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(24, 3)),
    ), rows(12)  # fmt: skip


class Bare(nn.Module):
    """Weights of no layer, by einsum and by @, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.randn(12, 3, 8))
        self.merge = nn.Parameter(torch.randn(24, 16))
        self.twice, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("bi,ihe->bhe", x, self.heads).tanh().flatten(1)
        x = self.twice(self.twice((x @ self.merge).tanh()).relu())
        found: Tensor = self.head(x.tanh())
        return found


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 16, "vocab_size": 50, "use_cache": False}
        rest = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        self.body = GPT2LMHeadModel(GPT2Config(**sizes, **rest, bos_token_id=0, eos_token_id=0))

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.body(tokens).logits.flatten(0, 1)
        return found


def language() -> tuple[nn.Module, Any]:
    tokens = torch.randint(50, (8, 16))
    return Language(), (tokens, tokens.flatten())


NETS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "plain": plain,
    "convolutional": convolutional,
    "residual": residual,
    "pre-LN": lambda: (Attending(norm_first=True), rows(30)),
    "post-LN": lambda: (Attending(norm_first=False), rows(30)),
    "weight norm": weight_normed,
    "language": language,
    "bare": lambda: (Bare(), rows(12)),
}
WAYS = {"lsuv": {}, "lsuv_centred": {"centre": True}, "within_layer": {"centre": True, "per_unit": True}}


def rows(width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(64, width), torch.randint(3, (64,))


def prepared(kind: str) -> tuple[Task, Graph]:
    """A net with biases of zero and weights far from their targets."""
    torch.manual_seed(0)
    model, data = NETS[kind]()
    task = example_task(model, [data], loss=nn.functional.cross_entropy, whole=True)
    graph = trace_task(task)
    with torch.no_grad():
        for layer in graph.layers:
            value = read(model, layer.name)
            if layer.role == "bias":
                value.zero_()
            elif not reason_to_skip(layer):
                scale(model, [(layer, 10 ** torch.empty(1).uniform_(-0.5, 0.5))])
    return task, graph


def one_after_the_other(task: Task, graph: Graph, *, per_unit: bool = False, centre: bool = False) -> list[str]:
    """The paper's way: a forward pass for each layer, which is then scaled, and centred, in the model."""
    model, order = task.model, []

    def outputs(name: str) -> Tensor | None:
        seen: list[Tensor] = []
        watch = Projections(lambda weight, value, output: (value, None))

        def keep(weight: str, output: Tensor) -> None:
            if weight not in order:
                order.append(weight)
            if weight == name and not seen:
                seen.append(output.clone())

        with torch.no_grad(), watch_products(model, keep), watch:
            task.loss(task.train[0])
        return moments_of(graph[name], seen[0], watch.parts) if name else None

    def moments_of(layer: Layer, output: Tensor, parts: Sequence[int]) -> Any:
        found = moments(layer, output, parts)
        assert found is not None
        whole = output.var(correction=0).reshape(1)
        centred = centre and bool(free_bias(model, graph, layer)) and layer.role != "gate"
        return found[0] if centred else None, found[1] if per_unit else found[1].mean().reshape(1) if centred else whole

    outputs("")
    calibrated = [name for name in order if not reason_to_skip(graph[name])]
    for name in calibrated:
        mean, variance = outputs(name)  # type: ignore[misc]
        factors = torch.where(variance > 1e-8, variance.rsqrt(), 1.0)
        scale(model, [(graph[name], factors)])
        if mean is not None:
            set_bias(model, free_bias(model, graph, graph[name]), -mean * factors)
    return calibrated


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("way", WAYS)
def test_one_pass_is_as_many_as_there_are_layers(way: str, kind: str) -> None:
    task, graph = prepared(kind)
    slow = copy.deepcopy(task.model)
    passes: list[Tensor] = []
    with task.preserved():
        found = standardize(
            task.model, graph, lambda: passes.append(task.loss(task.train[0])), iterations=1, tolerance=0.0, **WAYS[way]
        )
        ours = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    assert len(passes) == 1
    other = example_task(slow, [task.train[0]], loss=nn.functional.cross_entropy, whole=True)
    with other.preserved():
        calibrated = one_after_the_other(other, graph, **WAYS[way])
        theirs = {name: value.detach().clone() for name, value in slow.named_parameters()}
    assert set(calibrated) <= found.keys()
    assert len(calibrated) >= 3
    for name, value in ours.items():
        near = 1e-4 * theirs[name].abs().max().item() + 1e-6
        torch.testing.assert_close(
            value, theirs[name], rtol=2e-3, atol=near, msg=lambda text, name=name: f"{name} {text}"
        )


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("way", WAYS)
def test_two_passes_whatever_the_net(way: str, kind: str) -> None:
    task, graph = prepared(kind)
    passes: list[Tensor] = []
    with task.preserved():
        standardize(task.model, graph, lambda: passes.append(task.loss(task.train[0])), **WAYS[way])
    assert len(passes) == 2


def test_biases_that_stay_take_further_passes() -> None:
    """Within a pass they are scaled along with the output, and in the model they are not."""
    task, graph = prepared("plain")
    with torch.no_grad():
        for layer in graph.layers:
            if layer.role == "bias":
                read(task.model, layer.name).uniform_(-0.2, 0.2)  # about as PyTorch draws them
    start = copy.deepcopy(task.model.state_dict())
    passes: list[Tensor] = []

    def off() -> float:
        found: dict[str, float] = {}
        with torch.no_grad(), watch_products(task.model, lambda name, z: found.setdefault(name, z.std().item())):
            task.model(task.train[0][0])
        return max(abs(std - 1) for std in found.values())

    for iterations, exact in ((1, False), (module.ITERATIONS, True)):
        task.model.load_state_dict(start)
        passes.clear()
        standardize(task.model, graph, lambda: passes.append(task.loss(task.train[0])), iterations=iterations)
        assert (off() < 0.006) == exact
    assert 2 < len(passes) <= 5


MODE = FakeTensorMode(allow_non_fake_inputs=True)


def faked(tensor: Tensor) -> Tensor:
    """A tensor of shape only on a GPU that is not there: operations with others on the host are refused as well."""
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return FakeTensor(MODE, empty, torch.device("cuda"))


def away(tensor: Tensor) -> Tensor:
    """A tensor on the meta device, for modules whose kernels ask torch for a GPU."""
    return tensor.to("meta")


def move(model: nn.Module, to: Callable[[Tensor], Tensor]) -> None:
    for part in model.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(to(parameter.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = to(buffer)


DEVICES = {
    "plain": faked,
    "convolutional": faked,
    "weight norm": faked,
    "bare": faked,
    "residual": away,
    "pre-LN": away,
    "post-LN": away,
}


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("way", WAYS)
def test_the_host_waits_once_in_a_pass(way: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, graph = prepared(kind)
    move(task.model, DEVICES[kind])
    x = DEVICES[kind](task.train[0][0])
    with pytest.raises((DataDependentOutputException, RuntimeError)):
        x.sum().item()
    events: list[str] = []

    def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
        events.extend(["fetch"] * bool(tensors))
        return [torch.full(one.shape, 1.5 if one.is_floating_point() else 1.0, dtype=one.dtype) for one in tensors]

    def run() -> None:
        events.append("pass")
        with MODE if DEVICES[kind] is faked else contextlib.nullcontext():
            task.model(x)

    def scaled(model: nn.Module, factors: Sequence[tuple[Layer, Tensor]]) -> dict[str, bool]:
        assert all(values.device.type == "cpu" for _, values in factors)
        return {layer.name: True for layer, _ in factors}

    def set_bias(model: nn.Module, name: str, values: Tensor) -> None:
        assert values.device == x.device

    monkeypatch.setattr(module, "fetched", fetch)
    monkeypatch.setattr(module, "set_bias", set_bias)
    monkeypatch.setattr(module, "scale", scaled)
    standardize(task.model, graph, run, iterations=3, **WAYS[way])
    biases = ["fetch"] if way != "lsuv" else []
    assert events == ["pass", "fetch"] * 3 + biases


class Reads(TorchDispatchMode):
    """Counts the numbers that the host asks for one by one."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_weights_behind_parametrizations_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(
        parametrizations.orthogonal(nn.Linear(6, 6)), parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6)
    )
    graph = trace_task(example_task(model, [rows(6)], loss=nn.functional.cross_entropy, whole=True))
    before = {name: read(model, name).detach().clone() for name in ("0.weight", "1.weight", "2.weight")}
    fetches: list[int] = []
    monkeypatch.setattr(units, "fetched", lambda tensors: fetches.append(len(tensors)) or list(tensors))
    with Reads() as reads:
        found = scale(model, [(graph[name], torch.full((6,), 3.0)) for name in before])
    assert found == {"0.weight": False, "1.weight": True, "2.weight": True}
    assert fetches == [2]
    assert reads.count == 2  # what was fetched
    for name, taken in found.items():
        torch.testing.assert_close(read(model, name), before[name] * (3.0 if taken else 1.0), rtol=1e-4, atol=1e-5)
