"""Small models of each architecture, with a batch and a loss: what the readers and the searches are tested on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Case(NamedTuple):
    """A model, one batch of (inputs, target), and loss(model, batch) → scalar."""

    model: nn.Module
    batch: tuple[Any, Any]
    loss: Callable[[nn.Module, Any], Tensor]


def classify(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of model(inputs) against integer targets."""
    inputs, target = batch
    output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return F.cross_entropy(output.flatten(0, -2), target.flatten())


def regress(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of model(inputs)."""
    inputs, target = batch
    return F.mse_loss(model(*inputs) if isinstance(inputs, tuple) else model(inputs), target)


def language(model: nn.Module, batch: Any) -> Tensor:
    """The model's own loss, as transformers return it."""
    loss = model(**batch[0]).loss
    assert isinstance(loss, Tensor)
    return loss


def _labels(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(0, classes, shape)


def on_meta(value: Any) -> Any:
    """Returns a copy without memory of a model (its ties kept), or of a batch."""
    if isinstance(value, nn.Module):
        kept = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        empty = {id(tensor): _empty(tensor) for tensor in kept.values()}
        return copy.deepcopy(value, empty)
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: on_meta(item) for key, item in value.items()}
    return tuple(on_meta(item) for item in value) if isinstance(value, tuple) else value


def _empty(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to("meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def tanh_mlp() -> Case:
    layers: list[nn.Module] = [nn.Linear(6, 8), nn.Tanh()]
    for _ in range(3):
        layers += [nn.Linear(8, 8), nn.Tanh()]
    return Case(nn.Sequential(*layers, nn.Linear(8, 3)), (torch.randn(4, 6), _labels(4)), classify)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


def residual_mlp() -> Case:
    model = nn.Sequential(nn.Linear(6, 8), ResidualBlock(8), ResidualBlock(8), nn.LayerNorm(8), nn.Linear(8, 3))
    return Case(model, (torch.randn(4, 6), _labels(4)), classify)


def cnn_bn() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(6, 3),
    )  # fmt: skip
    return Case(model, (torch.randn(4, 1, 10, 10), _labels(4)), classify)


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def resnet() -> Case:
    stem = [nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    blocks = [BasicBlock(4, 4, 1), BasicBlock(4, 8, 2)]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return Case(model, (torch.randn(4, 3, 8, 8), _labels(4)), classify)


def convolutions() -> Case:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ELU(),
        nn.ConvTranspose2d(8, 6, 4, stride=2), nn.Sigmoid(), nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Case(model, (torch.randn(4, 4, 7, 7), _labels(4)), classify)


class OtherDimensions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 4, 3)
        self.volume = nn.Conv3d(1, 4, 2)
        self.join = nn.Bilinear(4, 4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, line: Tensor, volume: Tensor) -> Tensor:
        a = F.silu(self.line(line)).mean(-1)
        b = F.softplus(self.volume(volume)).mean((-1, -2, -3))
        return self.head(torch.tanh(self.join(a, b)))


def conv1d_conv3d_bilinear() -> Case:
    inputs = (torch.randn(4, 2, 9), torch.randn(4, 1, 4, 4, 4))
    return Case(OtherDimensions(), (inputs, _labels(4)), classify)


class RecurrentClassifier(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = cell(6, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0][:, -1])


def lstm() -> Case:
    model = RecurrentClassifier(nn.LSTM, num_layers=2)
    return Case(model, (torch.randint(0, 11, (4, 7)), _labels(4)), classify)


def gru() -> Case:
    model = RecurrentClassifier(nn.GRU, bidirectional=True)
    return Case(model, (torch.randint(0, 11, (4, 7)), _labels(4)), classify)


class CellClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 5, nonlinearity="relu")
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state)


def rnn_cell() -> Case:
    return Case(CellClassifier(), (torch.randn(4, 6, 2), _labels(4)), classify)


class Encoder(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(7, 8) * 0.02)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        return self.head(self.encoder(x).mean(1))


def encoder_pre_ln() -> Case:
    return Case(Encoder(norm_first=True), (torch.randint(0, 11, (4, 6)), _labels(4)), classify)


def encoder_post_ln() -> Case:
    return Case(Encoder(norm_first=False), (torch.randint(0, 11, (4, 6)), _labels(4)), classify)


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(8, 2, 4) * 0.3) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(2, 4, 8) * 0.3)
        self.bias = nn.Parameter(torch.zeros(8))
        self.w1, self.w2 = nn.Parameter(torch.randn(8, 16) * 0.3), nn.Parameter(torch.randn(16, 8) * 0.3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (torch.einsum("btd,dhe->bhte", x, w) for w in (self.wq, self.wk, self.wv))
        weights = torch.softmax(torch.einsum("bhqe,bhke->bhqk", q, k) * 0.5, -1)
        x = x + torch.einsum("bhte,hed->btd", weights @ v, self.wo) + self.bias
        x = x + F.relu(x @ self.w1) ** 2 @ self.w2
        return self.head(x.mean(1))


def einsum_attention() -> Case:
    return Case(EinsumAttention(), (torch.randn(4, 6, 5), _labels(4)), classify)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(8, 2), nn.Linear(2, 8)
        self.gate, self.up, self.down = (nn.Linear(8, 16, bias=False), nn.Linear(8, 16, bias=False), nn.Linear(16, 8))
        self.fused = nn.Linear(8, 12)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = (x * gate[:, :, None, None]).mean((2, 3))
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return self.head(F.glu(self.fused(x)))


def gates() -> Case:
    return Case(SqueezeExcite(), (torch.randn(4, 3, 6, 6), _labels(4)), classify)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 8), nn.Linear(3, 8)
        self.trunk = nn.Linear(16, 8)
        self.classes, self.value = nn.Linear(8, 3), nn.Linear(8, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([F.relu(self.left(left)), F.mish(self.right(right))], -1)
        h = F.relu(self.trunk(joined))
        return self.classes(h), self.value(h)


def _two_losses(model: nn.Module, batch: Any) -> Tensor:
    inputs, target = batch
    classes, value = model(*inputs)
    return F.cross_entropy(classes, target) + F.mse_loss(value[:, 0], target.to(value.dtype))


def two_heads_two_inputs() -> Case:
    return Case(TwoHeads(), ((torch.randn(4, 5), torch.randn(4, 3)), _labels(4)), _two_losses)


def parametrized_mlp() -> Case:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.SELU(), parametrizations.orthogonal(nn.Linear(8, 8)), nn.Hardtanh(-2.0, 2.0), nn.Linear(8, 3),
    )  # fmt: skip
    return Case(model, (torch.randn(4, 6), _labels(4)), classify)


class CharacterModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(9, 8)
        self.block = ResidualBlock(8)
        self.decode = nn.Linear(8, 11, bias=False)
        self.decode.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return self.decode(self.block(self.tokens(tokens) + self.places(place)))


def tied_characters() -> Case:
    tokens = torch.randint(0, 11, (4, 7))
    return Case(CharacterModel(), (tokens, tokens), classify)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * x)


def siren() -> Case:
    model = nn.Sequential(nn.Linear(2, 8), Sine(), nn.Linear(8, 8), Sine(), nn.Linear(8, 1))
    return Case(model, (torch.rand(4, 2), torch.rand(4, 1)), regress)


class Spiking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import snntorch

        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        m1, m2 = self.lif1.init_leaky().to(x.device), self.lif2.init_leaky().to(x.device)
        total = x.new_zeros(())
        for _ in range(3):
            s1, m1 = self.lif1(self.fc1(x), m1)
            _, m2 = self.lif2(self.fc2(s1), m2)
            total = total + m2
        return total


def spiking() -> Case:
    return Case(Spiking(), (torch.randn(4, 6), _labels(4)), classify)


class HandWritten(nn.Module):
    """Composite activations, RMSNorm by hand, LayerScale, LoRA, a logit scale, weight standardization, freezing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.scale = nn.Parameter(torch.ones(8))
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.layer_scale = nn.Parameter(torch.full((8,), 0.1))
        self.prelu = nn.PReLU()
        self.head = nn.Linear(8, 3)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        w = self.conv.weight
        mean, std = w.mean((1, 2, 3), keepdim=True), w.std((1, 2, 3), keepdim=True)
        x = F.conv2d(x, (w - mean) / std, self.conv.bias).mean((2, 3))
        x = x * torch.tanh(F.softplus(x))
        x = F.relu(self.frozen(x) + 2.0 * self.lora_b(self.lora_a(x)))
        normed = self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        h = self.fc1(normed)
        h = self.fc2(h * torch.sigmoid(1.702 * h))
        h = self.fc3(0.5 * h * (1.0 + torch.tanh(0.7978845608 * (h + 0.044715 * torch.pow(h, 3.0)))))
        x = self.prelu(x + self.layer_scale * h)
        return self.head(x) * self.logit_scale.exp()


def hand_written() -> Case:
    return Case(HandWritten(), (torch.randn(4, 3, 6, 6), _labels(4)), classify)


class Sampled(nn.Module):
    """A linear layer whose weight and bias are drawn anew at each call, from normal distributions that are learned."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mean, self.bias_mean = nn.Parameter(torch.randn(after, before)), nn.Parameter(torch.zeros(after))
        self.log_spread = nn.Parameter(torch.full((after, before), -4.0) + 0.1 * torch.randn(after, before))
        self.bias_log_spread = nn.Parameter(torch.full((after,), -4.0))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.distributions.Normal(self.mean, self.log_spread.exp(), validate_args=False).rsample()
        return F.linear(x, weight, self.bias_mean + self.bias_log_spread.exp() * torch.randn_like(self.bias_mean))


def bayesian_mlp() -> Case:
    model = nn.Sequential(Sampled(6, 8), nn.Tanh(), Sampled(8, 8), nn.Tanh(), Sampled(8, 3))
    return Case(model, (torch.randn(4, 6), _labels(4)), classify)


class Equalized(nn.Module):
    """A convolution whose weight is drawn from N(0, 1) and multiplied at use; its bias learns at a hundredth."""

    def __init__(self, before: int, after: int, kernel: int, gain: float = math.sqrt(2)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after))
        self.size, self.slow = gain / math.sqrt(before * kernel**2), 0.01

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.size, self.bias * self.slow)


def equalized_cnn() -> Case:
    layers = [Equalized(3, 8, 1), nn.LeakyReLU(0.2), Equalized(8, 8, 3), nn.LeakyReLU(0.2), nn.AvgPool2d(2)]
    model = nn.Sequential(*layers, Equalized(8, 6, 3), nn.LeakyReLU(0.2), Equalized(6, 3, 1, gain=1.0), nn.Flatten())
    return Case(model, (torch.randn(4, 3, 8, 8), _labels(4)), classify)


class EinsumExperts(nn.Module):
    """Gated experts in one tensor each, all of which see every token; a router weighs what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.router, self.head = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 12)), nn.Parameter(torch.randn(3, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shares = self.router(x).softmax(-1)
        value, gate = torch.einsum("btd,edh->bteh", x, self.up).chunk(2, -1)
        said = torch.einsum("bteh,ehd->betd", value * F.silu(gate), self.down)
        return self.head((x + torch.einsum("bte,betd->btd", shares, said)).mean(1))


def einsum_experts() -> Case:
    return Case(EinsumExperts(), (torch.randn(4, 6, 5), _labels(4)), classify)


class Neighbours(nn.Module):
    """Attention over the neighbours of a node, two heads of it, along a list of edges; its softmax is by hand."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(before, 2 * width, bias=False)
        self.source, self.target = nn.Parameter(torch.randn(2, width)), nn.Parameter(torch.randn(2, width))
        self.bias = nn.Parameter(torch.zeros(2 * width))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        values = self.lin(x).unflatten(-1, (2, -1))
        ends = edges[0], edges[1]
        scores = (values * self.source).sum(-1)[ends[0]] + (values * self.target).sum(-1)[ends[1]]
        shares = F.leaky_relu(scores, 0.2).exp()
        total = torch.zeros(len(x), 2, device=x.device).index_add(0, ends[1], shares)
        messages = values[ends[0]] * (shares / total[ends[1]]).unsqueeze(-1)
        return torch.zeros_like(values).index_add(0, ends[1], messages).flatten(1) + self.bias


class GraphAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Neighbours(5, 4), Neighbours(8, 3)
        self.skip, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.elu(self.first(x, edges))
        return self.head(F.relu(self.second(x, edges) + self.skip(x)))


def graph_attention() -> Case:
    nodes = torch.arange(10)
    edges = torch.stack([torch.cat([nodes, nodes]), torch.cat([nodes, (nodes * 3 + 1) % 10])])
    return Case(GraphAttention(), ((torch.randn(10, 5), edges), _labels(10)), classify)


class FourierLayer(nn.Module):
    """A convolution as wide as the signal: complex weights for the lowest frequencies, beside one of width 1."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.spectrum = nn.Parameter(torch.randn(width, width, modes, dtype=torch.cfloat) / width)
        self.local = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        frequencies = torch.fft.rfft(x)
        low = torch.einsum("bik,iok->bok", frequencies[..., : self.modes], self.spectrum)
        rest = torch.zeros_like(frequencies[..., self.modes :])
        return torch.fft.irfft(torch.cat((low, rest), -1), n=x.shape[-1]) + self.local(x)


def fourier() -> Case:
    model = nn.Sequential(
        nn.Conv1d(2, 8, 1), FourierLayer(8, 3), nn.GELU(), FourierLayer(8, 3), nn.GELU(), nn.Conv1d(8, 1, 1)
    )
    return Case(model, (torch.randn(4, 2, 16), torch.randn(4, 1, 16)), regress)


def _tokens() -> dict[str, Tensor]:
    tokens = torch.randint(3, 60, (2, 9))
    return {"input_ids": tokens, "labels": tokens}


def gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    return Case(GPT2LMHeadModel(config), (_tokens(), None), language)


def llama() -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    return Case(LlamaForCausalLM(config), (_tokens(), None), language)


def bert() -> Case:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    return Case(BertForMaskedLM(config), (_tokens(), None), language)


def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    batch = {"pixel_values": torch.randn(2, 3, 8, 8), "labels": _labels(2)}
    return Case(ViTForImageClassification(config), (batch, None), language)


def t5() -> Case:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    return Case(T5ForConditionalGeneration(config), (_tokens(), None), language)


def mixtral() -> Case:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=16,
    )  # fmt: skip
    return Case(MixtralForCausalLM(config).bfloat16(), (_tokens(), None), language)  # meta needs bfloat16


def convnext() -> Case:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, patch_size=2, num_labels=3)
    batch = {"pixel_values": torch.randn(2, 3, 16, 16), "labels": _labels(2)}
    return Case(ConvNextForImageClassification(config), (batch, None), language)


def mamba() -> Case:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    return Case(MambaForCausalLM(config), (_tokens(), None), language)


def wav2vec2() -> Case:
    """Its training leaves out every second layer at random (LayerDrop), and masks frames by numpy's generator."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=12, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_length=2, pad_token_id=0, layerdrop=0.5,
    )  # fmt: skip
    batch = {"input_values": torch.randn(2, 800), "labels": torch.randint(1, 12, (2, 4))}
    return Case(Wav2Vec2ForCTC(config), (batch, None), language)


def critic() -> Case:
    """Of a Wasserstein GAN, whose loss holds the gradient's norm between real and made rows (Gulrajani et al. 2017)."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 3), nn.LeakyReLU(0.2), nn.Flatten(),
        nn.Linear(8, 1),
    )  # fmt: skip

    def loss(model: nn.Module, batch: Any) -> Tensor:
        real, made = batch
        between = (0.3 * real + 0.7 * made).requires_grad_()
        (slope,) = torch.autograd.grad(model(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        distance: Tensor = model(made).mean() - model(real).mean()
        return distance + 10 * penalty

    return Case(model, (torch.randn(4, 1, 7, 7), torch.randn(4, 1, 7, 7)), loss)


class Wave(nn.Module):
    """u(x, t) of a partial differential equation, on a residual branch of sines."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down, self.head = nn.Linear(2, 8), nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 1)

    def forward(self, place: Tensor) -> Tensor:
        hidden = torch.sin(self.stem(place))
        u: Tensor = self.head(hidden + self.down(torch.tanh(self.up(hidden))))
        return u


def pinn() -> Case:
    """A net that solves u_tt = u_xx: the loss holds second derivatives and nothing of u itself."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        place = batch[0].detach().requires_grad_()
        (first,) = torch.autograd.grad(model(place).sum(), place, create_graph=True)
        (of_x,) = torch.autograd.grad(first[:, 0].sum(), place, create_graph=True)
        (of_t,) = torch.autograd.grad(first[:, 1].sum(), place, create_graph=True)
        return (of_t[:, 1] - of_x[:, 0]).square().mean()

    return Case(Wave(), (torch.rand(16, 2), None), loss)


class ActorCritic(nn.Module):
    """A policy and a value on one body; the policy returns a distribution, and not its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.policy, self.value = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, state: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        hidden = self.body(state)
        return torch.distributions.Categorical(logits=self.policy(hidden), validate_args=False), self.value(hidden)


def actor_critic() -> Case:
    """With an entropy bonus in its loss."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        policy, value = model(batch[0])
        actions, returns = batch[1]
        gap = returns - value.squeeze(-1)
        bonus = 0.01 * policy.entropy().mean()
        cost: Tensor = gap.square().mean() - (policy.log_prob(actions) * gap.detach()).mean() - bonus
        return cost

    return Case(ActorCritic(), (torch.randn(8, 6), (_labels(8), torch.randn(8))), loss)


def denoise(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of the noise that a model of diffusers finds in noised images, more of it at later times."""
    (clean, noise, conditions), _ = batch
    left = 1 - (conditions["timestep"][:, None, None, None] + 1) / 1001
    found: Tensor = model(left.sqrt() * clean + (1 - left).sqrt() * noise, **conditions).sample
    return F.mse_loss(found, noise)


def _noisy(**conditions: Tensor) -> tuple[Any, Any]:
    times = torch.tensor([3, 700])
    return (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), {"timestep": times, **conditions}), None


def unet() -> Case:
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return Case(model, _noisy(), denoise)


def unet_with_text() -> Case:
    """Its cross attention takes keys and values from the embedded words of a text."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), attention_head_dim=2,
        cross_attention_dim=6,
    )  # fmt: skip
    return Case(model, _noisy(encoder_hidden_states=torch.randn(2, 5, 6)), denoise)


def dit() -> Case:
    """A time and a class scale and shift what its norms give, and weigh its branches (adaLN-zero)."""
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=3, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        num_embeds_ada_norm=10,
    )  # fmt: skip
    return Case(model, _noisy(class_labels=torch.tensor([1, 4])), denoise)


class DeepQ(nn.Module):
    """Values of actions on frames (Mnih et al. 2015), and the frozen copy of them that the aims come from."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(
            nn.Conv2d(4, 8, 4, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 16),
            nn.ReLU(), nn.Linear(16, 3),
        )  # fmt: skip
        self.target = copy.deepcopy(self.online)

    def forward(self, frames: Tensor) -> Tensor:
        values: Tensor = self.online(frames)
        return values


def dqn() -> Case:
    """The loss is that of Bellman's equation, whose other side gets no gradient."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        frames, (actions, rewards, after, ended) = batch
        with torch.no_grad():
            aims = rewards + 0.99 * (1 - ended) * model.get_submodule("target")(after).amax(1)
        return F.smooth_l1_loss(model(frames).gather(1, actions[:, None]).squeeze(1), aims)

    played = _labels(6), torch.randn(6), torch.randn(6, 4, 10, 10), (torch.arange(6) % 3 == 0).float()
    return Case(DeepQ(), (torch.randn(6, 4, 10, 10), played), loss)


ZOO: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        tanh_mlp, residual_mlp, cnn_bn, resnet, convolutions, conv1d_conv3d_bilinear, lstm, gru, rnn_cell,
        encoder_pre_ln, encoder_post_ln, einsum_attention, gates, two_heads_two_inputs, parametrized_mlp,
        tied_characters, siren, spiking, hand_written, fourier, gpt2, llama, bert, vit, t5, mixtral, convnext, mamba,
        critic, pinn, actor_critic, unet, unet_with_text, dit, dqn,
        bayesian_mlp, equalized_cnn, einsum_experts, graph_attention,
    )
}  # fmt: skip
"""Name → a fresh model with a batch and a loss."""
