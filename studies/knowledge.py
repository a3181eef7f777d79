r"""Makes knowledge of the records of studies: what the recommender learns from, condensed.

    python -m studies.knowledge records.jsonl more.jsonl --out autoinit/knowledge/shipped.jsonl.xz \
        --fitted autoinit/recommender/shipped.npz
    python -m studies.knowledge records.jsonl --study studies/overnight.toml --out known.jsonl.xz

Knowledge files (.jsonl.xz) are merged with the records. Records of before features were kept (schema 1) get theirs from
the tasks of that name in their study file, each of which is built and read again; nothing is trained. The package
ships the recommender fitted to its knowledge too: whenever that or the recommender's code changes, it is fitted anew.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import autoinit
from autoinit.errors import AutoInitError
from autoinit.knowledge.files import gathered, write_knowledge
from autoinit.knowledge.tables import Knowledge, StudiedTask, known_features
from autoinit.recommender.cache import save
from autoinit.recommender.model import Recommender
from autoinit.study.toml_file import read_study
from autoinit.study.workbench import Workbench, features, spec_fingerprint


def described(knowledge: Knowledge, study: Path, again: bool = False) -> Knowledge:
    """Returns knowledge with the features of every task that the study file has and of its recipes.

    Args:
        knowledge: of that study.
        study: its file.
        again: also of tasks that have features.
    """
    found = {task.name: task for task in knowledge.tasks if again or not all(one.features for one in task.tried)}
    done = {}
    spec = read_study(study)
    for task_spec in spec.tasks:
        if (task := found.get(task_spec.name)) is None:
            continue
        at = Workbench(task_spec, spec.seeds[0], [study.parent])
        try:
            done[task.name] = _described(task, at, spec_fingerprint(task_spec, at.bench.task, at.graph))
        finally:
            at.close()
    return replace(knowledge, tasks=tuple(done.get(task.name, task) for task in knowledge.tasks))


def _described(task: StudiedTask, at: Workbench, told: str) -> StudiedTask:
    tried = tuple(replace(one, features=known_features(at.recipe_features(one.recipe))) for one in task.tried)
    found = known_features(features(at.bench.task, at.graph))
    return replace(task, fingerprint=told, features=found, tried=tried)


def made(knowledge: Knowledge) -> dict[str, object]:
    """Returns how knowledge was made, in words and numbers."""
    outcomes = [one for task in knowledge.tasks for tried in task.tried for one in tried.outcomes]
    return {
        "tasks": len(knowledge.tasks),
        "families": len({task.family for task in knowledge.tasks}),
        "datasets": len({task.dataset for task in knowledge.tasks}),
        "probes": len(outcomes),
        "states": dict(Counter(one.state for one in outcomes)),
        "training_hours": round(sum(one.seconds for one in outcomes) / 3600, 2),
        "machine": f"{platform.machine()}, CPU, one thread a probe",
        "autoinit": autoinit.__version__,
        "torch": str(torch.__version__),
    }


def whole(knowledge: Knowledge, probes: int) -> Knowledge:
    """Returns the tasks on which every recipe has so many probes at least: others were cut off."""
    full = [task for task in knowledge.tasks if min(len(one.outcomes) for one in task.tried) >= probes]
    return replace(knowledge, tasks=tuple(full))


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a knowledge file and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="records (.jsonl, .parquet) or knowledge (.jsonl.xz)")
    parser.add_argument("--study", type=Path, help="study file whose tasks describe records that lack features")
    parser.add_argument("--again", action="store_true", help="describe all of its tasks, as features are now")
    parser.add_argument("--probes", type=int, default=3, help="that every recipe of a task must have")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fitted", type=Path, help="where the recommender fitted to it is kept, .npz")
    given = parser.parse_args(arguments)
    try:
        knowledge, skipped = gathered(*given.files)
        knowledge = whole(knowledge, given.probes)
        if given.study is not None:
            knowledge = described(knowledge, given.study, given.again)
        knowledge = replace(knowledge, made=made(knowledge))
        write_knowledge(given.out, knowledge)
        if given.fitted is not None:
            save(Recommender.fit(knowledge), given.fitted)
    except AutoInitError as problem:
        print(problem, file=sys.stderr)
        return 1
    for line in skipped:
        print(line, file=sys.stderr)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB, hash {knowledge.hash}")
    for name, value in knowledge.made.items():
        print(f"  {name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
