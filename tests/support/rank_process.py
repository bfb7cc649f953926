"""Learner ranks as plain processes, without Ray and driver: `python -m support.rank_process JOB` is one of them."""

import os
import pickle
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golongrl.learner.batch.samples import Shard
from golongrl.ports import unused
from golongrl.recipe import Recipe, dump

if TYPE_CHECKING:
    from torch import Tensor


# A rank imports torch and verl in ten seconds alone, in minutes on a machine that is busy with other things.
_PATIENCE_S = 600


@dataclass
class Job:
    """For each recipe in turn: load `checkpoint` if there is one, update with `minis[mini][rank]`, export, save."""

    recipes: list[str]  # YAML
    model: str
    minis: list[list[list[Shard]]]  # one list of mini-batches a recipe
    out: str
    load: str | None = None
    save: str | None = None
    verl_saves: str | None = None  # the same state by verl's own manager, and train on before ours is written
    updates: int = 1
    routes: list[str | None] | None = None  # the folder of recorded routes, for each recipe
    log_probs: bool = False  # of the shards before the update: `log_probs-RECIPE-RANK.pt`, flat, one a mini-batch
    flash: bool = False  # stand in for the flash attention kernel, which a CPU has not


def run_ranks(
    ranks: int,
    recipes: list[Recipe],
    minis: list[list[list[Shard]]],
    out: Path,
    **more: Any,
) -> list[list[dict[str, float]]]:
    """Metrics `[rank][recipe]`; the weights after the update are in `out/<recipe index>/`, AdamW's averages of the
    gradients (whole tensors by name) in `out/moments-<recipe index>.pt`."""
    out.mkdir(parents=True, exist_ok=True)
    job = Job([dump(recipe) for recipe in recipes], recipes[0].model.path, minis, str(out), **more)
    (out / "job.pkl").write_bytes(pickle.dumps(job))
    (port,) = unused(1)
    processes = []
    for rank in range(ranks):
        environment = {
            **os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        command = [sys.executable, "-m", "support.rank_process", str(out / "job.pkl")]
        with (out / f"rank-{rank}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(_PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    logs = "\n".join((out / f"rank-{rank}.log").read_text(errors="replace")[-3000:] for rank in range(ranks))
    assert codes == [0] * ranks, logs
    return [pickle.loads((out / f"metrics-{rank}.pkl").read_bytes()) for rank in range(ranks)]


def _main(path: str) -> None:
    import torch
    import yaml

    from golongrl.learner.ranks.rank import LearnerRank
    from golongrl.recipe import parse

    torch.set_num_threads(1)
    job: Job = pickle.loads(Path(path).read_bytes())
    if job.flash:
        from support import cpu_flash

        cpu_flash.install()
    rank = int(os.environ["RANK"])
    results = []
    for index, text in enumerate(job.recipes):
        recipe = parse(yaml.safe_load(text))
        worker = LearnerRank(recipe, job.model, job.routes[index] if job.routes else None)
        worker.start()
        if job.load is not None:
            worker.load(job.load)
        shards = [mini[rank // recipe.learner.ulysses] for mini in job.minis[index]]
        if job.log_probs:
            found = [worker._log_probs(shard, worker._assemble(shard))[0] for shard in shards]
            torch.save(found, Path(job.out) / f"log_probs-{index}-{rank}.pt")
        metrics: dict[str, float] = {}
        for _ in range(job.updates):
            metrics = worker.update(shards)
        folder = Path(job.out) / str(index)
        folder.mkdir(exist_ok=True)
        worker.stage(str(folder))
        worker.staged()
        moments = {
            name: _whole(worker.engine.optimizer.state[parameter]["exp_avg"])
            for name, parameter in worker.engine.module.named_parameters()
            if worker.engine.optimizer.state[parameter]  # none where no update was made
        }
        if rank == 0:
            torch.save(moments, Path(job.out) / f"moments-{index}.pt")
        if job.save is not None:
            Path(job.save).mkdir(parents=True, exist_ok=True)
            held = threading.Event()
            if job.verl_saves is not None:
                worker.engine.save_checkpoint(job.verl_saves)
                worker._snapshots._pool.submit(held.wait)
            worker.save(job.save)
            if job.verl_saves is not None:
                for _ in range(2):
                    worker.update(shards)
                held.set()
            worker.written()
        results.append(metrics)
    (Path(job.out) / f"metrics-{rank}.pkl").write_bytes(pickle.dumps(results))


def _whole(tensor: "Tensor") -> "Tensor":
    """A sharded tensor gathered; a collective of all ranks."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor.cpu() if gather is None else gather().cpu()


if __name__ == "__main__":
    _main(sys.argv[1])
