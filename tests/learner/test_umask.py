"""Driver and ranks on one volume: two users, as the chart runs them with RDMA."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DRIVER = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
# Root with IPC_LOCK alone; the pod's group.
RANK = ["setpriv", "--reuid=0", "--regid=1000", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all,+ipc_lock"]

PYTHON = sys.executable

BEGIN = """
from pathlib import Path
from golongrl.learner.umask import UMASK, open_to_group
mask = open_to_group()[UMASK] if {cluster} else "022"
Path("step.tmp/actor").mkdir(parents=True)
print(mask)
"""
WRITE = """
from pathlib import Path
from golongrl.learner.umask import follow
follow()
Path("step.tmp/actor/huggingface").mkdir()
Path("step.tmp/actor/huggingface/config.json").write_text("{}")
Path("step.tmp/actor/model.pt").write_text("x")
"""
PRUNE = """
import shutil
from pathlib import Path
Path("step.tmp").rename("step")
shutil.rmtree("step")
"""


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder of the driver's, where everybody may look."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be other users")
    if subprocess.run([*DRIVER, PYTHON, "-c", ""], check=False, timeout=120, capture_output=True).returncode:
        pytest.skip("this Python is root's alone")
    folder = Path(tempfile.mkdtemp(prefix="volume-"))
    os.chown(folder, 1000, 1000)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run(who: list[str], script: str, volume: Path, umask: str = "022") -> subprocess.CompletedProcess[str]:
    services = Path(__file__).resolve().parents[2] / "services"
    return subprocess.run(
        [*who, PYTHON, "-c", script],
        cwd=volume,
        env={"PYTHONPATH": str(services), "GOLONGRL_UMASK": umask, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        umask=0o022,
        check=False,
    )


def test_ranks_write_where_the_driver_says_and_the_driver_deletes_what_they_wrote(volume: Path) -> None:
    begun = run(DRIVER, BEGIN.format(cluster=True), volume)
    assert begun.stdout.strip() == "002", begun.stderr
    written = run(RANK, WRITE, volume, begun.stdout.strip())
    assert written.returncode == 0, written.stderr
    pruned = run(DRIVER, PRUNE, volume)
    assert pruned.returncode == 0, pruned.stderr
    assert list(volume.iterdir()) == []


def test_without_it_a_rank_cannot_write(volume: Path) -> None:
    """What the chart's RDMA ranks are: root by number, and nobody by power."""
    begun = run(DRIVER, BEGIN.format(cluster=False), volume)
    assert begun.returncode == 0, begun.stderr
    assert "PermissionError" in run(RANK, WRITE, volume).stderr


UMASKS = [0o022, 0o027, 0o077, 0o002]
MODES = """
import os
import sys
from pathlib import Path
import numpy as np
import torch
from golongrl.learner.checkpoints.snapshot import write
from golongrl.learner.checkpoints.store import Checkpoints, LearnerState
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.weights.export import take_shards, write_taken
from golongrl.learner.weights.store import Support, WeightStore

def write_all(out, support):
    store = WeightStore(out / "weights")
    store.publish_initial(support, "a", 1 << 16)
    staging = store.begin(1)
    files = write_taken(take_shards({"w": torch.ones(9)}.items(), dtype=torch.float32), staging)
    store.seal(staging, 1, "a", files, support)
    store.start_over("b")
    store.copy_out(0, out / "hf")
    checkpoints = Checkpoints(out / "checkpoints")
    staging = checkpoints.begin(2)
    files = {"huggingface/config.json": b"{}"}
    sums = write({"model_world_size_1_rank_0.pt": torch.ones(3)}, files, staging / "actor")
    state = LearnerState(2, "a", "", ranks=1, seed=0, groups_per_step=1, rows=4, order="o")
    checkpoints.seal(staging, state, np.zeros((3, 2), np.int32), sums, 2)
    with Records(out, 0) as records:
        records.write(1, {"a": 1.0})
        records.amend(1, {"b": 1.0})

support = Support(Path(sys.argv[2]), "float32")
for umask in sys.argv[3:]:
    os.umask(int(umask))
    write_all(Path(sys.argv[1]) / umask, support)
"""


@pytest.mark.full
def test_every_file_that_others_read_follows_the_umask(tiny_model: Path, tmp_path: Path) -> None:
    """safetensors' own writer makes files that their user alone can read, whatever the umask."""
    command = [PYTHON, "-c", MODES, str(tmp_path), str(tiny_model), *map(str, UMASKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for umask in UMASKS:
        out = tmp_path / str(umask)
        paths = [out, *out.rglob("*")]
        assert {path.suffix for path in paths} >= {".safetensors", ".json", ".jsonl", ".pt", ".npy", ".txt"}
        wrong = {
            str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777)
            for path in paths
            if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
        }
        assert wrong == {}
