"""Learner ranks as plain processes, without Ray and driver."""

import multiprocessing
import os
import pickle
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golongrl.learner.batch.samples import Shard
from golongrl.ports import unused
from golongrl.recipe import Recipe, dump

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    from torch import Tensor


# Torch and verl are imported in ten seconds alone, in minutes on a machine that is busy with other things.
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
    processes = [
        _forked().Process(target=_rank, args=(rank, ranks, port, str(out), dict(os.environ))) for rank in range(ranks)
    ]
    ends = time.monotonic() + _PATIENCE_S
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0.0, ends - time.monotonic()))
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    logs = "\n".join((out / f"rank-{rank}.log").read_text(errors="replace")[-3000:] for rank in range(ranks))
    assert codes == [0] * ranks, logs
    return [pickle.loads((out / f"metrics-{rank}.pkl").read_bytes()) for rank in range(ranks)]


@cache
def _forked() -> "ForkServerContext":
    """Ranks are forked from a process that has imported torch and verl: for each of them this takes ten seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["golongrl.learner.ranks.rank"])
    return context


def _rank(rank: int, ranks: int, port: int, out: str, environment: dict[str, str]) -> None:
    """One rank, with its output in `rank-RANK.log` and the environment of the test."""
    log = os.open(Path(out) / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    of_torch = {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.clear()  # the process it was forked from has that of an earlier test
    os.environ.update(environment, **{name: str(value) for name, value in of_torch.items()})
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    _work(Path(out) / "job.pkl", rank)


def _work(path: Path, rank: int) -> None:
    import torch
    import yaml

    from golongrl.learner.ranks.rank import LearnerRank
    from golongrl.recipe import parse

    torch.set_num_threads(1)
    job: Job = pickle.loads(path.read_bytes())
    if job.flash:
        from support import cpu_flash

        cpu_flash.install()
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
