"""What `recommend` takes on a model of 124 million parameters: time and memory, with what ships and with one's own.

    python -m benchmarks.speed.recommend_speed

The model is GPT-2's smallest, from a config of `transformers`. Each run is a process of its own: it imports torch and
builds the model, then recommends. What ships is fitted already; of a file of knowledge the recommender is fitted at
first use, and kept in a cache folder (the file is the shipped one, under another name). Beside them stands a training
step of the same batch. Memory is the highest resident size during the calls, beyond what it was with torch imported and
the model built (Linux). The first call in a process also imports what recommending needs; the second does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

RUN = """
import json, sys, time
from pathlib import Path
import torch
from transformers import GPT2Config, GPT2LMHeadModel
import autoinit

def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))

torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config())
tokens = torch.randint(50257, (32, 128))
data = [{"input_ids": part, "labels": part} for part in tokens.split(8)]
before, took = megabytes("VmRSS"), []
Path("/proc/self/clear_refs").write_text("5")  # the highest size starts again from here
for _ in range(2):
    start = time.perf_counter()
    autoinit.recommend(model, data, optimizer=torch.optim.AdamW, lr=3e-4, recommender=sys.argv[1])
    took.append(time.perf_counter() - start)
memory = megabytes("VmHWM") - before
for _ in range(2):
    start = time.perf_counter()
    model(**data[0]).loss.backward()
    step = time.perf_counter() - start
millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
print(json.dumps({"millions": millions, "first": took[0], "second": took[1], "memory": memory, "step": step}))
"""


def run(recommender: str, cache: str) -> dict[str, float]:
    """Returns what one process took: seconds of its first and second call and of a training step, MB of memory."""
    environment = {**os.environ, "AUTOINIT_CACHE": cache}
    call = [sys.executable, "-c", RUN, recommender]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints a line for what ships and one for the first use of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="processes that use what ships")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run("default", folder) for _ in range(given.runs)]
        own = Path(folder) / "own.jsonl.xz"
        own.write_bytes((resources.files("autoinit") / "knowledge" / "shipped.jsonl.xz").read_bytes())
        fitted = run(str(own), folder)
    median = {name: statistics.median(one[name] for one in runs) for name in runs[0]}
    print(f"{fitted['millions']:.0f} million parameters, medians of {given.runs} processes")
    print(
        f"what ships: {median['first']:.2f} s at the first call of a process, {median['second']:.2f} s at the next "
        f"(a forward and backward pass of the batch: {median['step']:.2f} s); "
        f"{median['memory']:.0f} MB beyond torch and the model"
    )
    print(f"a file of knowledge at first use, fitted: {fitted['first']:.1f} s, {fitted['memory']:.0f} MB")


if __name__ == "__main__":
    main()
