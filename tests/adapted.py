"""Models with low-rank adapters, for several tests: peft's, and some of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

TOKENS = 61


def ids(rows: int = 16, length: int = 12) -> Tensor:
    """Token numbers in an order that repeats, so that there is something to learn."""
    return (torch.arange(rows * length).reshape(rows, length) * 7) % TOKENS


def batches(rows: int = 16, size: int = 4) -> list[dict[str, Tensor]]:
    """Batches of such tokens with their labels."""
    return [{"input_ids": part, "labels": part} for part in ids(rows).split(size)]


def llama(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=TOKENS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip


def gpt2(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=TOKENS, n_positions=32, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
                attn_pdrop=0.0, bos_token_id=1, eos_token_id=2, loss_type="ForCausalLM",
            )
        )  # fmt: skip


TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}


def peft_model(kind: str = "llama", **options: Any) -> nn.Module:
    """A model with peft's adapters, in evaluation mode."""
    settings: Mapping[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[kind], **options}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = get_peft_model(
            llama() if kind == "llama" else gpt2(), LoraConfig(fan_in_fan_out=kind == "gpt2", **settings)
        )
    return model.eval()


class ByHand(nn.Module):
    """A low-rank pair as people write it: linear layers beside a frozen one, and a scale."""

    def __init__(self, inside: int = 24, out: int = 20, rank: int = 4, scale: float = 0.5) -> None:
        super().__init__()
        self.base = nn.Linear(inside, out).requires_grad_(False)
        self.down, self.up = nn.Linear(inside, rank, bias=False), nn.Linear(rank, out, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.up(self.down(x))


class Inherited(nn.Linear):
    """A low-rank pair as loralib has it: parameters of a linear layer, whose own weight is frozen."""

    def __init__(self, inside: int = 24, out: int = 20, rank: int = 4, alpha: float = 6.0) -> None:
        super().__init__(inside, out)
        self.weight.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, inside) / 5)
        self.lora_B = nn.Parameter(torch.zeros(out, rank))
        self.scaling = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        added = x @ self.lora_A.T @ self.lora_B.T
        return super().forward(x) + self.scaling * added
