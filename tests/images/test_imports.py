"""What an image runs needs no package that the image does not have."""

import subprocess
import sys

import pytest

# Extra -> what its image must start without, and the modules and command that it runs.
WITHOUT = {
    "reward": ("numpy pyarrow tokenizers torch transformers ray kubernetes", "golongrl.reward.app"),
    "operator": ("numpy pyarrow tokenizers torch transformers ray fastapi", "golongrl_operator.app"),
    "rollout": ("torch transformers ray fastapi kubernetes", "golongrl.rollout.app"),
}
START = """
import importlib, sys
absent = set(sys.argv[1].split())
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[2])
import golongrl.queue, golongrl.queue.show, golongrl.queue.metrics
from golongrl.cli import main
sys.argv = ["golongrl", sys.argv[3], "--help"]
main()
"""


@pytest.mark.parametrize("extra", WITHOUT)
def test_an_image_starts_without_the_packages_of_others(extra: str) -> None:
    absent, module = WITHOUT[extra]
    done = subprocess.run(
        [sys.executable, "-c", START, absent, module, extra], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: golongrl" in done.stdout
