"""A real server process whose metrics misbehave on request: `python serve_misbehaving.py PORT WORKERS DEADLINE_S`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if __name__ == "__main__":
    import misbehave

    from golongrl.reward.app import PRELOAD, create_app
    from golongrl.reward.config import RewardConfig
    from golongrl.serving import bind, run
    from golongrl.telemetry.logging import configure

    configure("reward", level="ERROR")
    port, workers, deadline_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    config = RewardConfig(workers=workers, deadline_s=deadline_s, worker_memory_bytes=2 << 30)
    app = create_app(config, score=misbehave.score, preload=(*PRELOAD, "misbehave"))
    run(app, bind("127.0.0.1", port), grace_s=60)
