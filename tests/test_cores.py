from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autoinit.cores import usable_cores


def test_there_is_one_at_least_and_no_more_than_the_machine_has() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from autoinit.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
