"""Models that cannot be trained here are refused before anything is changed; real shards, in one process of gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.errors import ModelError
from autoinit.task.checks import available_devices, check_whole, unwrap
from autoinit.task.task import make_task

ROOT = Path(__file__).parents[2]


GROUP = """
import json, sys, tempfile, warnings
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
import autoinit
from autoinit.errors import ModelError

def refused(shard):
    # What is said of a model that some code shards, the same whatever it is used for.
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    plan = autoinit.apply_(model, "he_normal", torch.zeros(2, 8))
    drawn = [parameter.detach().clone() for parameter in model.parameters()]
    names = {"torch": torch, "model": model, "mesh": dist.device_mesh.init_device_mesh("cpu", (1,))}
    exec(shard, names)
    sharded = names["sharded"]
    def values():
        whole = [p.full_tensor() if "DTensor" in type(p).__name__ else p for p in sharded.parameters()]
        return torch.cat([value.detach().reshape(-1) for value in whole])
    before = values().clone()
    assert before.equal(torch.cat([tensor.reshape(-1) for tensor in drawn]))  # applied before, it is still there
    data = (torch.randn(256, 8), torch.randint(2, (256,)))
    said = set()
    for use in (
        lambda: autoinit.select(sharded, data, budget=autoinit.Budget(steps=1000)),
        lambda: autoinit.trace(sharded, data),
        lambda: autoinit.diagnose(sharded, data),
        lambda: autoinit.apply_(sharded, "he_normal", data),
        lambda: autoinit.apply_(sharded, plan),
    ):
        try:
            use()
        except ModelError as error:
            said.add(str(error))
        else:
            raise SystemExit(f"not refused: {shard}")
    assert values().equal(before)
    assert all(parameter.grad is None for parameter in sharded.parameters())
    (message,) = said
    return message

warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
    try:
        print(json.dumps({name: refused(shard) for name, shard in json.loads(sys.argv[1]).items()}))
    finally:
        dist.destroy_process_group()
"""


SHARDS = {
    "tensor parallel": (
        "from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module\n"
        "plans = {'0': ColwiseParallel(), '2': RowwiseParallel()}\n"
        "sharded = parallelize_module(model, mesh, plans)",
        "0.weight is a DTensor of shape [4, 8], placed S(0) on a mesh of 1 devices",
        "before parallelize_module",
    ),
    "fully_shard": (
        "from torch.distributed.fsdp import fully_shard\nfully_shard(model[0], mesh=mesh)\n"
        "sharded = fully_shard(model, mesh=mesh)",
        "has been sharded by fully_shard",
        "before fully_shard",
    ),
    "FSDP": (
        "from torch.distributed.fsdp import FullyShardedDataParallel\n"
        "sharded = FullyShardedDataParallel(model, device_id=torch.device('cpu'))",
        "the model is wrapped in FullyShardedDataParallel",
        "before wrapping it",
    ),
    "FSDP inside": (
        "from torch.distributed.fsdp import FullyShardedDataParallel\n"
        "model[0] = FullyShardedDataParallel(model[0], device_id=torch.device('cpu'))\n"
        "sharded = model",
        "'0' is wrapped in FullyShardedDataParallel",
        "before wrapping it",
    ),
}


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    """What is said of each sharded model, all in one process: it takes seconds to load what shards them."""
    shards = json.dumps({name: shard for name, (shard, _, _) in SHARDS.items()})
    done = subprocess.run([sys.executable, "-c", GROUP, shards], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARDS)
def test_a_sharded_model_is_refused_with_the_remedy(name: str, refusals: dict[str, str]) -> None:
    _, what, before = SHARDS[name]
    assert what in refusals[name]
    assert before in refusals[name]
    assert "plan.save('plan.json')" in refusals[name]
    assert "autoinit.apply_(model, 'plan.json')" in refusals[name]


def test_emptied_parameters_are_refused() -> None:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(ModelError, match=r"all 2 parameters are empty.*ZeRO stage 3"), unchanged(model):
        autoinit.apply_(model, "he_normal")


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.LazyLinear(2), nn.Linear(3, 2).to("meta"), nn.ReLU()], ids=str)
def test_whole_models_pass(model: nn.Module) -> None:
    check_whole(model)
    assert unwrap(model) is model


def test_the_check_loads_nothing() -> None:
    """DTensor and FSDP take seconds to import; a model that has them has loaded them already."""
    script = (
        "import sys, torch\nfrom autoinit.task.checks import check_whole\ncheck_whole(torch.nn.Linear(3, 2))\n"
        "assert not {'torch.distributed.tensor', 'torch.distributed.fsdp'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch's own import of its compiler
def test_wrappers_are_looked_through() -> None:
    digits, classes = load_digits(return_X_y=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    assert unwrap(torch.compile(model)) is model
    assert unwrap(nn.DataParallel(model)) is model
    assert make_task(torch.compile(model), (digits / 16, classes)).model is model


def test_devices_of_this_machine_are_known() -> None:
    assert available_devices()[0] == "cpu"
