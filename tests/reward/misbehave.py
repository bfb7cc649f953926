"""A score function that does what a broken metric would, when the response asks for it; else it counts letters.

In a module of its own because workers import it by name.
"""

import ctypes
import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Letters:
    """An outcome in the shape of golongrl.tasks.Outcome."""

    score: float | None
    status: str
    metric: str
    task: str
    reason: str


def score(data_source: str, response: str, ground_truth: object, extra_info: object, mode: str = "compat") -> Letters:
    """The response's length modulo 1000, unless the response starts with the name of a misbehaviour."""
    match response.split(":", 1)[0]:
        case "HANG":
            while True:  # pure Python loop: the interpreter stays responsive to nothing but a kill
                pass
        case "HANG_IN_C":
            9**9**9  # holds the GIL, deaf to signals handled in Python
        case "SLEEP":
            time.sleep(float(response.split(":")[1]))
        case "UNTIL":  # the test makes this file
            while not os.path.exists(response.split(":", 1)[1]):
                time.sleep(0.01)
        case "SEGFAULT":
            ctypes.string_at(0)
        case "KILLED":
            os.kill(os.getpid(), signal.SIGKILL)
        case "EXIT":
            os._exit(3)
        case "RAISE":
            raise RuntimeError("a metric's own bug")
        case "EAT_MEMORY":
            hoard = []
            while True:
                hoard.append(bytes(64 << 20))  # zeroed lazily: address space, not memory
        case "CLOSE":
            os.closerange(3, 256)
        case "NOISE":
            print("metrics may write to stdout")
    return Letters(len(response) % 1000 / 1000, "scored", "EM", "T1", "")
