"""What `recommend` takes on a model of 124 million parameters: time and memory, at first use and with the model cached.

    python -m benchmarks.speed.recommend_speed

The model is GPT-2's smallest, from a config of `transformers`. Each run is a process of its own: it imports torch and
builds the model, then recommends. First use fits the recommender to the shipped records and keeps it in a cache folder;
the next processes find it there. Memory is the highest resident size during the calls, beyond what it was with torch
imported and the model built (Linux). The first call in a process also imports what recommending needs; the second does
not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

RUN = """
import json, time
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
    autoinit.recommend(model, data, optimizer=torch.optim.AdamW, lr=3e-4)
    took.append(time.perf_counter() - start)
millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
print(json.dumps({"millions": millions, "first": took[0], "second": took[1], "memory": megabytes("VmHWM") - before}))
"""


def run(cache: str) -> dict[str, float]:
    """Returns what one process took: seconds of its first and second call, MB of memory."""
    environment = {**os.environ, "AUTOINIT_CACHE": cache}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints a line for first use and one for later ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="processes that find the fitted recommender")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        fitted = run(cache)
        later = [run(cache) for _ in range(given.runs)]
    median = {name: statistics.median(one[name] for one in later) for name in later[0]}
    print(f"{fitted['millions']:.0f} million parameters, medians of {given.runs} processes")
    print(f"first use, fitted: {fitted['first']:.1f} s, {fitted['memory']:.0f} MB beyond torch and the model")
    print(
        f"cached: {median['first']:.2f} s at the first call of a process, {median['second']:.2f} s at the next; "
        f"{median['memory']:.0f} MB beyond torch and the model"
    )


if __name__ == "__main__":
    main()
