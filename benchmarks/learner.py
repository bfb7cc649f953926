"""The learner's step beside verl's bare engine, and all that a step does around the engine.

    python benchmarks/learner.py step                       # the quickstart; on a GPU, Qwen3-4B's shape at 32K tokens
    python benchmarks/learner.py step --only behaviour --rounds 12
    python benchmarks/learner.py step --model DIR --groups 4 --responses 4 --prompt 200-400 --response 100
    python benchmarks/learner.py overhead                   # 128 x 16 responses of 16K over 64 data-parallel ranks
    python benchmarks/learner.py overhead --weights-gb 4 --store /mnt/weights --no-ray

step: `LearnerRank.update` (assembly, proximal log-probs, correction, update) against verl's engine alone on the same
batch: `infer_batch` and `train_batch` with `ppo_loss`; the batch is complete beforehand, importance weights included,
and outputs are thrown away. One engine in one process serves both, in turns; the learning rate is so small that no
weight moves, so every step is the same work, and both must find one gradient norm or the run is an error. Ratios are
of tokens/s, pair by pair: median (lowest to highest). Goal: 0.95.

With a GPU: a model of Qwen3-4B's shape with random weights, sequences of 32K tokens, FSDP2 in bf16; the table has MFU
and peak memory. MFU is FLOPs / seconds / peak, the peak being verl's table of dense bf16 FLOP/s by device name (H100,
H200: 989 TFLOP/s; A100: 312). FLOPs = passes x (2 x N x tokens + 2 x layers x heads x head_dim x sum of length^2): N
counts the layers and the output head, attention is causal, an update is 3 passes and recomputed log-probs one more;
what activation checkpointing computes again does not count.

overhead: what a step does outside the engine, in seconds and as a share of a 60 s step. Every rank's part is measured,
one rank after another, and the slowest counts. Publishing is measured on real files and scaled to what the busiest rank
writes of a 4B model's 8 GB. Goal: under 2 % held up by it; what goes on beside other steps is given too.

Peak memory depends on what a micro-batch holds. By default that is one group as it is computed here, and so about one
sequence for verl; `--micro-batch` with responses x (prompt + response) tokens holds a whole group for both.

Groups are made up: random ids, log-probs and rewards. CPU seconds are this process's and hold on a busy machine too.
"""

import argparse
import logging
import os
import warnings
from pathlib import Path

# Spinning threads would count as work. Read when torch is imported, below.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from _learner_common import Span, console  # noqa: E402


def main() -> None:
    """Print the tables of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True, metavar="step | overhead")
    step = parts.add_parser("step", help="our step against verl's bare engine")
    step.add_argument("--only", choices=("recompute", "behaviour"), help="one kind of proximal log-probs; default both")
    step.add_argument("--model", help="a folder, a builtin, or qwen3-4b for its shape with random weights")
    step.add_argument("--groups", type=int, help="prompts; default 18, on a GPU 2")
    step.add_argument("--responses", type=int, help="responses a prompt; default 8, on a GPU 2")
    step.add_argument("--prompt", type=Span.parse, help="tokens, N or LOW-HIGH; default 74-106, on a GPU 24576")
    step.add_argument("--response", type=Span.parse, help="tokens; default 4-48, on a GPU 8192")
    step.add_argument("--micro-batch", type=int, help="tokens; default the longest group, 4096 at least")
    step.add_argument("--rounds", type=int, help="pairs of steps that count; default 8, on a GPU 3")
    overhead = parts.add_parser("overhead", help="estimators, assembly, correction, publishing at the paper's size")
    overhead.add_argument("--groups", type=int, default=128)
    overhead.add_argument("--responses", type=int, default=16)
    overhead.add_argument("--prompt", type=Span.parse, default=Span(16_384, 49_152), help="tokens, N or LOW-HIGH")
    overhead.add_argument("--response", type=Span.parse, default=Span(16_384, 16_384), help="tokens")
    overhead.add_argument("--ranks", type=int, default=64, help="data-parallel")
    overhead.add_argument("--rounds", type=int, default=3, help="medians are over so many")
    overhead.add_argument("--weights-gb", type=float, default=1.0, help="size of the files that are really written")
    overhead.add_argument("--store", type=Path, help="folder for them; default a temporary one")
    overhead.add_argument("--no-ray", action="store_true", help="leave out the shipping of shards through Ray")
    options = parser.parse_args()
    console.print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    if options.part == "step":
        import _learner_step

        _learner_step.measure(options)
    else:
        import _learner_overhead

        _learner_overhead.measure(options)


if __name__ == "__main__":
    main()
