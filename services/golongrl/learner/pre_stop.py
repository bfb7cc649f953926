"""What Kubernetes runs in a Ray pod of the learner before it ends the pod (preStop).

KubeRay deletes all pods of a cluster at the same time, and Ray ends its processes at once, so that a learner in the
middle of a step would lose its ranks. Each pod therefore waits here until the learner has finished its step and written
a checkpoint; the pod of the driver asks it to.

Invariants:
- only processes below the container's first process are looked at;
- a pod without driver and ranks waits for nothing, and none waits longer than `seconds`.
"""

import argparse
import signal
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

# How Ray names the process of a rank.
_RANK = "ray::LearnerRank"


def is_driver(command: Sequence[str]) -> bool:
    """Whether a command line is that of `golongrl learner`."""
    return any((Path(program).name, word) == ("golongrl", "learner") for program, word in pairwise(command))


def is_rank(command: Sequence[str]) -> bool:
    """Whether a command line is that of a rank."""
    return bool(command) and command[0].startswith(_RANK)


def wait(root: int, seconds: float) -> list[psutil.Process]:
    """Ask the driver to stop, and wait for its end and that of the ranks; returns those that live on."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if is_driver(command):
                    process.send_signal(signal.SIGTERM)
                if is_driver(command) or is_rank(command):
                    found.append(process)
    _, left = psutil.wait_procs(found, timeout=seconds)
    return list(left)


def main() -> None:
    """`python -m golongrl.learner.pre_stop --seconds 90`."""
    parser = argparse.ArgumentParser(description="Let the learner finish its step before this pod ends.")
    parser.add_argument("--seconds", type=float, required=True, help="Longest wait.")
    parser.add_argument("--root", type=int, default=1, help="The container's first process.")
    given = parser.parse_args()
    for process in wait(given.root, given.seconds):
        print(f"process {process.pid} has not ended within {given.seconds:g} s")


if __name__ == "__main__":
    main()
