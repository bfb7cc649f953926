"""Bytes of a version as what changed since the one before, and the seconds that its way to the engine takes.

    python benchmarks/weights.py delta                  # tensors of Qwen3-4B's shapes, AdamW at 2e-6, bf16
    python benchmarks/weights.py delta --lr 1e-6 5e-6 --steps 20
    python benchmarks/weights.py run runs/mine          # the versions that a run left in its weight store

delta: float32 master weights of a normal distribution with the deviation that Qwen3-4B's matrices have (0.02), trained
by torch's AdamW (betas 0.9 and 0.999, as the recipes) with gradients of independent normal noise, clipped to a norm of
1, and rounded to bfloat16 after every step. Ratios are whole over stored bytes: median (lowest to highest) over the
steps after the tenth, when Adam's averages have settled. Goal: 10 at 2e-6.

Seconds are of one core: making a delta, patching with it, and the sha256 of the result.
"""

import argparse
import statistics
import time
from hashlib import sha256
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save

from golongrl.weights.delta import changed, difference, patched
from golongrl.weights.manifest import read

# Of a layer of Qwen3-4B, one of each kind.
SHAPES = {"mlp.up_proj": (9728, 2560), "self_attn.q_proj": (4096, 2560), "self_attn.k_proj": (1024, 2560)}
SETTLED = 10
GOAL = 10.0
console = Console(width=110)


def main() -> None:
    """Print the table of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True, metavar="delta | run")
    delta = parts.add_parser("delta", help="simulated steps of a large model")
    delta.add_argument("--lr", type=float, nargs="+", default=[1e-6, 2e-6, 5e-6])
    delta.add_argument("--steps", type=int, default=14)
    run = parts.add_parser("run", help="what a run's weight store holds")
    run.add_argument("folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "delta":
        simulate(options.lr, options.steps)
    else:
        stored(options.folder / "weights")


def simulate(rates: list[float], steps: int) -> None:
    """A table with a row for each learning rate."""
    table = Table("lr", "changed elements", "whole / stored bytes", "make s/GB", "patch and check s/GB")
    for lr in rates:
        shares, ratios, made, applied = [], [], [], []
        for old, new in _versions(lr, steps):
            begun = time.perf_counter()
            delta = difference(old, new, 2)
            if delta is None:
                raise SystemExit(f"error: at a learning rate of {lr:g} a delta is not worth it")
            between = time.perf_counter()
            result = patched(old, delta)
            sha256(result).hexdigest()
            ended = time.perf_counter()
            assert result == new
            shares.append(changed(delta) * 2 / len(new))
            ratios.append(len(new) / len(delta))
            made.append((between - begun) / len(new) * 1e9)
            applied.append((ended - between) / len(new) * 1e9)
        met = "met" if statistics.median(ratios) >= GOAL else "NOT MET"
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), {met}"
        seconds = [f"{statistics.median(values):.1f}" for values in (made, applied)]
        table.add_row(f"{lr:g}", f"{statistics.median(shares):.2%}", spread, *seconds)
    console.print(table)


def _versions(lr: float, steps: int) -> list[tuple[bytes, bytes]]:
    """Files of bf16 weights before and after each settled step."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (0.02 * torch.randn(shape, generator=generator)).requires_grad_() for name, shape in SHAPES.items()
    }
    optimizer = torch.optim.AdamW(weights.values(), lr=lr, weight_decay=0.1)
    pairs, before = [], b""
    for step in range(steps):
        for tensor in weights.values():
            tensor.grad = 1e-4 * torch.randn(tensor.shape, generator=generator)
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        after = save({name: tensor.detach().bfloat16() for name, tensor in weights.items()})
        if step >= SETTLED:
            pairs.append((before, after))
        before = after
    return pairs


def stored(root: Path) -> None:
    """A table with a row for each version in a weight store."""
    table = Table("version", "whole MB", "stored MB", "whole / stored")
    for folder in sorted(root.glob("v*"), key=lambda path: int(path.name[1:])):
        manifest = read(folder)
        if manifest is not None:
            whole, kept = manifest.weight_bytes / 1e6, manifest.stored_bytes / 1e6
            table.add_row(str(manifest.version), f"{whole:,.2f}", f"{kept:,.2f}", f"{whole / kept:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
