"""The worker's image has no torch: nothing in the room may import it."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "verl", "ray")


def test_the_room_imports_without_torch() -> None:
    code = (
        "import sys, golongrl.rollout.app, golongrl.rollout.command\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
