"""A recipe's promises of its queue."""

from golongrl.learner.queue_settings import budget_warning, queue_settings
from golongrl.recipe import load
from golongrl.routes.model import MoeRouting


def test_a_budget_that_cannot_hold_what_lies_between_checkpoints_is_said() -> None:
    assert budget_warning(load("quickstart", ())) is None
    warning = budget_warning(load("quickstart", ["queue.max_bytes=10000"]))
    assert warning is not None
    assert warning.startswith("queue.max_bytes 10000 is below (learner.checkpoint_every + queue.max_staleness + 1)")


def test_routes_are_reserved_where_they_are_replayed():
    routing = MoeRouting(48, tuple(range(48)), 8, 128)
    replayed = load("qwen3-30b-a3b-grpo", ["learner.routing_replay=true"])
    # 163840 prompt tokens and 16 answers of 16384, 384 bytes each.
    assert queue_settings(replayed, routing=routing).group_routes_bytes == (163_840 + 16 * 16_384) * 384
    assert (
        queue_settings(load("qwen3-30b-a3b-grpo", ["learner.routing_replay=false"]), 0, routing).group_routes_bytes == 0
    )
    assert queue_settings(replayed).group_routes_bytes == 0
