"""Models of several kinds with smaller ones of the same kind."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from autoinit.proxies.originals import Original, original_of
from autoinit.task.task import make_task
from autoinit.tracing.choices import Parts, keep_choices
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
TOKENS = torch.tensor(DIGITS.data[:64], dtype=torch.long)


def mlp(width: int = 16, layers: int = 3, activation: type[nn.Module] = nn.ReLU, normalized: bool = False) -> nn.Module:
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.Linear(width if index else 64, width), *[nn.BatchNorm1d(width)] * normalized, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 10))


def shared(layers: int) -> nn.Module:
    """Returns a net whose hidden layers are one and the same."""
    one = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), *[one] * layers, nn.Linear(16, 10))


class Residual(nn.Module):
    def __init__(self, width: int, blocks: int, norm: type[nn.Module] = nn.LayerNorm, post: bool = False) -> None:
        super().__init__()
        self.stem, self.head, self.post = nn.Linear(64, width), nn.Linear(width, 10), post
        self.norms = nn.ModuleList(norm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = norm(x + down(up(x).relu())) if self.post else x + down(up(norm(x)).relu())
        return self.head(x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int) -> None:
        super().__init__()
        self.cell, self.head = kind(8, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 8, 8))[0][:, -1])


def gpt2(layers: int, width: int = 16, heads: int = 2) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=17,
            n_positions=64,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    )


def llama(layers: int, width: int, heads: int) -> Any:
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=64,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def stands_for(model: nn.Module, proxy: nn.Module, data: Any = DATA, **rest: Any) -> Original:
    task = make_task(proxy, data, optimizer=sgd)
    parts = Parts(rest.pop("only", None), rest.pop("exclude", None))
    return original_of(model, task, keep_choices(task.model, trace_task(task)), optimizer=sgd, parts=parts, **rest)
