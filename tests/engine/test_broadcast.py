"""Weights by broadcast: a real gloo group, its rank 0 in another process as a learner would be."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from golongrl.engine.broadcast import WeightReceiver
from golongrl.engine.weights import EngineWeightsError, load_model
from support.redis_server import free_port

# At the interpreter's end gloo's threads may abort the process; all is sent by then.
SENDER = """
import os, sys, torch
from pathlib import Path
from golongrl.broadcast.groups import broadcast, join_group, leave_group
from golongrl.engine.weights import read_tensors
folder, port = Path(sys.argv[1]), int(sys.argv[2])
group = join_group("127.0.0.1", port, 0, 2, "weights")
for name, tensor in sorted(read_tensors(folder).items()):
    broadcast(group, tensor)
leave_group(group)
os._exit(0)
"""


async def test_a_broadcast_becomes_the_models_weights(rig, tiny_model_next: Path) -> None:
    mine, receiver, port = rig(), WeightReceiver(), free_port()
    expected, _ = load_model(tiny_model_next)
    state = {name: tensor for name, tensor in expected.state_dict().items() if name != "lm_head.weight"}
    names = sorted(state)
    shapes = [list(state[name].shape) for name in names]
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(tiny_model_next), str(port))
    await asyncio.to_thread(receiver.join, "127.0.0.1", port, 1, 2, "weights", "gloo")
    with pytest.raises(EngineWeightsError, match="exists already"):
        receiver.join("127.0.0.1", port, 1, 2, "weights", "gloo")
    receiver.begin()
    await mine.engine.update_from_group(
        lambda: receiver.receive(mine.model, "weights", names, ["float32"] * len(names), shapes),
        "d1",
        flush=True,
        abort_all=False,
    )
    receiver.end()
    receiver.leave("weights")
    assert await sender.wait() == 0
    assert mine.engine.scheduler.version == "d1"
    assert all(torch.equal(tensor, state[name]) for name, tensor in mine.model.state_dict().items() if name in state)


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("-inf"), marks=pytest.mark.full)])
async def test_a_broadcast_that_is_not_finite_is_refused_and_the_old_weights_serve(
    rig, tiny_model_next: Path, tmp_path: Path, value: float
) -> None:
    mine, receiver, port = rig(), WeightReceiver(), free_port()
    bad = Path(shutil.copytree(tiny_model_next, tmp_path / "model"))
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"][-1] = value
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    before = {name: tensor.clone() for name, tensor in mine.model.state_dict().items()}
    version = mine.engine.scheduler.version
    names = sorted(tensors)
    shapes = [list(tensors[name].shape) for name in names]
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(bad), str(port))
    await asyncio.to_thread(receiver.join, "127.0.0.1", port, 1, 2, "weights", "gloo")
    receiver.begin()
    with pytest.raises(EngineWeightsError, match=r"tensor model\.norm\.weight holds a number that is not finite"):
        await mine.engine.update_from_group(
            lambda: receiver.receive(mine.model, "weights", names, ["float32"] * len(names), shapes),
            "d1",
            flush=True,
            abort_all=False,
        )
    receiver.end()
    receiver.leave("weights")
    assert await sender.wait() == 0
    assert mine.engine.scheduler.version == version
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.model.state_dict().items())


def test_what_cannot_be_received_says_why(loaded) -> None:
    model, receiver = loaded[0], WeightReceiver()
    one = (["model.norm.weight"], ["float32"], [[32]])
    with pytest.raises(EngineWeightsError, match="must run between"):
        receiver.receive(model, "g", *one)
    receiver.begin()
    with pytest.raises(EngineWeightsError, match="no weight update group g"):
        receiver.receive(model, "g", *one)
    with pytest.raises(EngineWeightsError, match="already open"):
        receiver.begin()
    receiver.end()
    with pytest.raises(EngineWeightsError, match="no weight-update session"):
        receiver.end()
    with pytest.raises(EngineWeightsError, match="backend nccl"):
        receiver.join("127.0.0.1", 1, 1, 2, "g", "nccl")
    with pytest.raises(EngineWeightsError, match="no weight update group g"):
        receiver.leave("g")
