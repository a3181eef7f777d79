"""The Graph of every model in the zoo: as its golden file says, and the same on the CPU and the meta device.

The golden files were read through by eye. After a change that is meant, write them anew and read the difference:

    PYTHONPATH=tests python tests/tracing/test_tracing.py && git diff tests/tracing/golden
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import ZOO, Case, on_meta, wav2vec2

from autoinit.errors import ModelError
from autoinit.graph import Graph, Layer
from autoinit.task.snapshot import preserved
from autoinit.tracing.tracing import read_graph, trace

GOLDEN = Path(__file__).parent / "golden"


def graph_of(case: Case) -> Graph:
    return read_graph(case.model, lambda: case.loss(case.model, case.batch))


def line(layer: Layer) -> str:
    """One layer in words: name, role, kind, and whatever differs from a plain weight."""
    parts = [layer.name, layer.role, layer.kind, "x".join(map(str, layer.shape)) or "scalar"]
    if layer.is_matrix:
        parts.append(f"fans {layer.fan_in}->{layer.fan_out} in {layer.in_axes} out {layer.out_axes}")
        parts.append(f"then {layer.activation}")
    parts.append(f"depth {layer.depth} after {layer.residual_depth} adds")
    if layer.in_branch and layer.role == "layer_scale":
        parts.append("in a branch")
    if layer.in_branch and layer.is_matrix:
        parts.append(f"branch of {layer.branch_weights}{', closes it' if layer.closes_branch else ''}")
    heads = f"{layer.heads} heads of {layer.attention}{', crossed' if layer.cross else ''}" if layer.attention else ""
    named = {
        "attention": heads,
        "stack": layer.stack,
        "post-norm": "yes" if layer.post_norm else "",
        "on the skip": "yes" if layer.on_skip else "",
        "groups": layer.groups if layer.groups > 1 else "",
        "slices": layer.slices if layer.slices > 1 else "",
        "cell": layer.cell,
        "normalized": "yes" if layer.normalized else "",
        "multiplied by": f"{layer.multiplier:.4g}" if layer.multiplier != 1 else "",
        "of": layer.of,
        "modulates": "yes" if layer.modulates else "",
        "conditions": "yes" if layer.conditions else "",
        "tied to": ", ".join(layer.tied_to),
        "parametrized": layer.parametrized,
        "kept": layer.keep,
    }
    return " | ".join([*parts, *(f"{key}: {value}" for key, value in named.items() if value)])


def text(graph: Graph) -> str:
    steps = f", {graph.sequence_length} time steps" if graph.sequence_length else ""
    lines = [f"{graph.residual_adds} residual adds{steps}", *(line(layer) for layer in graph.layers), *graph.notes]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ZOO)
def test_graph_is_golden_and_equal_on_the_meta_device(name: str) -> None:
    case = ZOO[name]()
    model = on_meta(case.model)
    graph = graph_of(case)
    assert text(graph) == (GOLDEN / f"{name}.txt").read_text()
    batch = on_meta(case.batch)
    assert read_graph(model, lambda: case.loss(model, batch)) == graph


def traced(case: Case) -> Graph:
    return trace(case.model.train(), [case.batch], step=case.loss)


@pytest.mark.parametrize("seed", range(3))
def test_graph_of_a_model_with_random_depth_is_golden_for_every_seed(seed: int) -> None:
    torch.manual_seed(seed)
    assert text(traced(wav2vec2())) == (GOLDEN / "wav2vec2.txt").read_text()


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_appears_exactly_once(name: str) -> None:
    case = ZOO[name]()
    graph = graph_of(case)
    everything = {name for name, _ in case.model.named_parameters(remove_duplicate=False)}
    plain = {name for name in everything if ".parametrizations." not in name}
    derived = {layer.name for layer in graph.layers if layer.parametrized}
    named = [name for layer in graph.layers for name in (layer.name, *layer.tied_to)]
    assert sorted(named) == sorted(plain | derived)


def test_reading_leaves_frozen_parameters_frozen_and_writes_no_gradient() -> None:
    case = ZOO["hand_written"]()
    flags = {name: parameter.requires_grad for name, parameter in case.model.named_parameters()}
    graph_of(case)
    assert {name: parameter.requires_grad for name, parameter in case.model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in case.model.parameters())


def test_frozen_stays_frozen_when_the_step_fails() -> None:
    case = ZOO["hand_written"]()

    def run() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_graph(case.model, run)
    assert not case.model.get_parameter("frozen.weight").requires_grad


def test_reading_draws_no_random_number_of_its_own() -> None:
    case = ZOO["encoder_pre_ln"]()
    torch.manual_seed(3)
    case.loss(case.model, case.batch)
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    graph_of(case)
    assert torch.equal(torch.get_rng_state(), expected)


def test_step_that_calls_backward_itself_is_read_without_running_it() -> None:
    case = ZOO["tanh_mlp"]()
    expected = graph_of(case)

    def step() -> Tensor:
        loss = case.loss(case.model, case.batch)
        loss.backward()
        nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
        return loss.detach()

    assert read_graph(case.model, step) == expected
    assert all(parameter.grad is None for parameter in case.model.parameters())


def test_autocast_changes_nothing() -> None:
    for name in ("residual_mlp", "encoder_pre_ln", "llama"):
        case = ZOO[name]()
        expected = graph_of(case)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert graph_of(case) == expected


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_written_out_attention_is_read_as_the_fused_one(implementation: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    reference = ZOO["llama"]()
    config: LlamaConfig = reference.model.config  # type: ignore[assignment]
    config._attn_implementation = implementation
    model = LlamaForCausalLM(config)
    assert read_graph(model, lambda: reference.loss(model, reference.batch)) == graph_of(ZOO["llama"]())


def test_llama_7b_on_the_meta_device() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())
    tokens = torch.zeros(1, 16, dtype=torch.long, device="meta")
    start = time.perf_counter()
    graph = read_graph(model, lambda: model(input_ids=tokens, labels=tokens).loss)
    elapsed = time.perf_counter() - start
    print(f"Llama-7B: {sum(layer.size for layer in graph.layers):,} weights read in {elapsed:.1f} s")
    assert graph.residual_adds == 64
    assert graph["model.layers.31.mlp.gate_proj.weight"].role == "gate"
    assert {layer.role for layer in graph.weights} == {
        "query", "key", "value", "attention_out", "gate", "hidden", "residual_out", "output",
    }  # fmt: skip


class Weird(nn.Module):
    """Calls a function that the test gives it."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_sums_that_are_not_residual() -> None:
    """Parallel branches, positions and concatenations add or join values without a skip."""
    a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)
    model = Weird(a=a, b=b, c=c)
    x = torch.randn(3, 4)

    def run() -> Tensor:
        h = torch.tanh(a(x)) + torch.tanh(b(x))
        dense = torch.cat([h, torch.relu(h)], -1)
        return c(dense).sum()

    graph = read_graph(model, run)
    assert graph.residual_adds == 0
    assert not any(layer.in_branch for layer in graph.layers)


def test_written_out_recurrence_is_not_residual() -> None:
    wx, wh, head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)
    embed = nn.Embedding(7, 4)
    model = Weird(embed=embed, wx=wx, wh=wh, head=head)
    tokens = torch.randint(0, 7, (3, 6))

    def run() -> Tensor:
        x, h = embed(tokens), torch.zeros(3, 5)
        for t in range(6):
            h = torch.tanh(wx(x[:, t]) + wh(h))
        return head(h).sum()

    graph = read_graph(model, run)
    assert graph.residual_adds == 0
    assert (graph["wx.weight"].role, graph["wh.weight"].role) == ("hidden", "recurrent")
    assert str(graph["wx.weight"].activation) == str(graph["wh.weight"].activation) == "tanh"


def test_fused_projection_with_fewer_keys_than_queries_is_one_matrix() -> None:
    stem, fused, out = nn.Linear(4, 8), nn.Linear(8, 16), nn.Linear(8, 8)
    model = Weird(stem=stem, fused=fused, out=out)
    x = torch.randn(2, 5, 4)

    def run() -> Tensor:
        q, k, v = fused(stem(x)).split([8, 4, 4], -1)
        heads = [part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in (q, k, v)]
        k, v = (part.repeat_interleave(2, 1) for part in heads[1:])
        mixed = F.scaled_dot_product_attention(heads[0], k, v)
        return out(mixed.transpose(1, 2).flatten(2)).sum()

    graph = read_graph(model, run)
    assert (graph["fused.weight"].role, graph["fused.weight"].slices) == ("qkv", 1)
    assert any("fused.weight" in note for note in graph.notes)


def test_legacy_weight_norm_is_kept_and_the_remedy_named() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    graph = read_graph(model, lambda: model(torch.randn(2, 4)).sum())
    assert "parametrizations.weight_norm" in graph["0.weight_g"].keep
    assert "parametrizations.weight_norm" in graph["0.weight_v"].keep
    assert graph["2.weight"].keep == ""


def test_checkpointing() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model = Weird(stem=nn.Linear(4, 4), inner=inner, head=nn.Linear(4, 2))
    x = torch.randn(3, 4)

    def run(reentrant: bool) -> Tensor:
        h = checkpoint(inner, model.get_submodule("stem")(x), use_reentrant=reentrant)
        return model.get_submodule("head")(h).sum()

    assert str(read_graph(model, lambda: run(False))["inner.0.weight"].activation) == "tanh"
    with pytest.raises(ModelError, match="use_reentrant=False"):
        read_graph(model, lambda: run(True))


def test_losses_that_reach_nothing() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ModelError, match="without a gradient"):
        read_graph(model, lambda: model(torch.randn(4, 3)).sum().detach())
    other = torch.ones(3, requires_grad=True)
    with pytest.raises(ModelError, match="reaches no parameter"):
        read_graph(model, lambda: (other * 2).sum())


def test_lazy_modules_are_read_after_their_first_call() -> None:
    model = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2))
    x = torch.randn(4, 3)
    with pytest.raises(ModelError, match="lazy"):
        read_graph(model, lambda: model(x).sum())
    model(x)
    assert read_graph(model, lambda: model(x).sum())["0.weight"].fan_in == 3


def test_trace_leaves_the_model_as_it_was() -> None:
    model = ZOO["cnn_bn"]().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with preserved(model):
        pass
    graph = trace(model, (torch.randn(8, 1, 10, 10), torch.randint(0, 3, (8,))))
    assert graph.source == "autograd"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_a_skip_from_the_data_is_seen() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + self.b(torch.relu(self.a(x))))

    x, y = torch.randn(8, 4), torch.randn(8, 2)
    graph = trace(Skip(), (x, y))
    assert graph.residual_adds == 1
    assert graph["b.weight"].role == "residual_out"
    assert not x.requires_grad


def test_a_step_that_writes_into_its_batch_is_read_all_the_same() -> None:
    model = nn.Linear(4, 2)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        x.mul_(1.0)
        return F.mse_loss(model(torch.from_numpy(x.numpy())), y)

    graph = trace(model, [(torch.randn(8, 4), torch.randn(8, 2))], step=step)
    assert graph["weight"].role == "output"


def test_what_only_serves_the_loss_is_no_activation() -> None:
    encode, mean, decode = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(2, 4)
    model = Weird(encode=encode, mean=mean, decode=decode)
    x = torch.randn(8, 4)

    def run() -> Tensor:
        z = mean(torch.relu(encode(x)))
        return F.mse_loss(decode(z), x) + z.pow(2).mean()

    assert str(read_graph(model, run)["mean.weight"].activation) == "linear"


def test_trace_without_data() -> None:
    model = ZOO["gpt2"]().model
    assert trace(model).source == "autograd"  # by the model's own dummy inputs
    assert trace(ZOO["tanh_mlp"]().model).source == "modules"
    vit = trace(ZOO["vit"]().model)  # its dummy inputs are those of a language model
    assert vit.source == "modules"
    assert "dummy_inputs" in vit.notes[0]


def _write() -> None:
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name, make in ZOO.items():
        torch.manual_seed(0)
        (GOLDEN / f"{name}.txt").write_text(text(graph_of(make())))
    (GOLDEN / "wav2vec2.txt").write_text(text(traced(wav2vec2())))


if __name__ == "__main__":
    _write()
