"""The sample queue: where rows are, what they cost, why leases are refused, what the next batch waits for."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, of, rate

_IN_WORK = 'state=~"leased|ready|in_batches|returned|set_aside"'
_OTHERS = 'state=~"unread|trained|rejected"'


def _queue(metric: str, more: str = "") -> str:
    return of("learner", f"golongrl_queue_{metric}", more)


QUEUE = Page(
    "queue",
    "sample queue",
    "Groups between the engines and the learner, and the Redis that holds them.",
    [
        PanelRow(
            "Groups",
            [
                Panel(
                    "Groups by state",
                    "Rows in work: leased by a worker, ready for a batch, taken by the learner, given back.",
                    [
                        Query(
                            f"max by (state) ({_queue('groups', _IN_WORK)})",
                            "{{state}}",
                        )
                    ],
                    kind="stacked",
                ),
                Panel(
                    "Rows of the run",
                    "Unread, trained and rejected rows.",
                    [Query(f"max by (state) ({_queue('groups', _OTHERS)})", "{{state}}")],
                ),
                Panel(
                    "Bytes",
                    "Stored groups, and what is reserved for leased ones, against the budget `queue.max_bytes`.",
                    [
                        Query(f"max({_queue('bytes')})", "stored"),
                        Query(f"max({_queue('reserved_bytes')})", "reserved"),
                        Query(f"max({_queue('max_bytes')})", "budget"),
                    ],
                    unit="bytes",
                ),
                Panel(
                    "Bytes of routes",
                    "With `learner.routing_replay`: files of stored groups in the weight store, and what is reserved "
                    "for leased ones, against the budget `queue.max_routes_bytes`.",
                    [
                        Query(f"max({_queue('routes_bytes')})", "stored"),
                        Query(f"max({_queue('reserved_routes_bytes')})", "reserved"),
                        Query(f"max({_queue('max_routes_bytes')})", "budget"),
                    ],
                    unit="bytes",
                ),
                Panel(
                    "Leases refused",
                    "Refusals a second by reason. `ahead` and `full` are the staleness bound at work: the engines "
                    "are faster "
                    "than the learner.",
                    [Query(rate(of("rollout", "golongrl_rollout_lease_refusals_total"), "reason"), "{{reason}}")],
                ),
                Panel(
                    "Oldest lease",
                    "The age of each worker's oldest lease.",
                    [Query(f"max by (worker) ({_queue('oldest_lease_seconds')})", "{{worker}}")],
                    unit="s",
                ),
                Panel(
                    "What the next batch waits for",
                    "How long the group that holds the next batch up has not moved, and how long a ready group has "
                    "waited.",
                    [
                        Query(f"max({_queue('stalled_seconds')})", "blocking group"),
                        Query(f"max({_queue('oldest_wait_seconds')})", "oldest ready group"),
                    ],
                    unit="s",
                ),
            ],
        ),
        PanelRow(
            "What becomes of rows",
            [
                Panel(
                    "Rejected by reason",
                    "Rows a minute that ended without training. `all_equal` is the group filter: too easy or too hard.",
                    [Query(f"60 * {rate(_queue('rejected_total'), 'reason', '10m')}", "{{reason}}")],
                ),
                Panel(
                    "Redone by reason",
                    "Rows a minute that were given back and sampled again.",
                    [Query(f"60 * {rate(_queue('redone_total'), 'reason', '10m')}", "{{reason}}")],
                ),
                Panel(
                    "Trained by staleness",
                    "Committed groups a minute by the versions they were behind.",
                    [Query(f"60 * {rate(_queue('trained_total'), 'staleness', '10m')}", "{{staleness}} behind")],
                    kind="stacked",
                ),
                Panel(
                    "Streaks",
                    "All-equal groups, and rows whose last try failed, in a row. A long one stops the run.",
                    [
                        Query(f"max({_queue('all_equal_streak')})", "all equal"),
                        Query(f"max({_queue('failed_streak')})", "failed"),
                    ],
                ),
                Panel(
                    "Set aside",
                    "Groups that could not be trained and wait for a decision (`golongrl queue set-aside`), and "
                    "batches sealed "
                    "without `queue.min_prompts_per_task`.",
                    [
                        Query(f"max({_queue('set_aside_groups')})", "set aside"),
                        Query(f"max({_queue('tasks_given_up_total')})", "batches without every task"),
                    ],
                    thresholds=[(1, "orange")],
                ),
                Panel(
                    "Leases by worker",
                    "How the work is spread over the workers.",
                    [Query(f"max by (worker) ({_queue('leases')})", "{{worker}}")],
                    kind="stacked",
                ),
            ],
        ),
        PanelRow(
            "The server and what is durable",
            [
                Panel(
                    "Redis's memory",
                    "Used by the server, all runs together, and its maxmemory (0 is no limit).",
                    [
                        Query(f"max({_queue('redis_memory_bytes')})", "used"),
                        Query(f"max({_queue('redis_max_memory_bytes')})", "maxmemory"),
                    ],
                    unit="bytes",
                ),
                Panel(
                    "Redis answers and persists",
                    "1 while the queue answers the learner's scrape, and while the append-only file is written.",
                    [
                        Query(f"max({of('learner', 'golongrl_learner_queue_up')})", "answers"),
                        Query(f"max({_queue('redis_persisting')})", "persists"),
                    ],
                    kind="lines",
                    highest=1,
                ),
                Panel(
                    "Version and checkpoint",
                    "The queue's policy version, and the last step whose checkpoint is durable. The gap is what a "
                    "crash "
                    "replays.",
                    [
                        Query(f"max({_queue('version')})", "version"),
                        Query(f"max({_queue('committed_step')})", "committed step"),
                    ],
                ),
            ],
        ),
    ],
)
