"""The reward service: how fast, how busy, and what it could not score."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, chosen, of, quantiles, rate, share

REWARD = Page(
    "reward",
    "reward service",
    "Scoring by task: speed, waiting, deadlines missed, responses left unscored.",
    [
        PanelRow(
            "Items",
            [
                Panel(
                    "Items a second by task",
                    "Responses answered, scored or not.",
                    [Query(rate(chosen("golongrl_reward_scores_total"), "task"), "{{task}}")],
                    kind="stacked",
                ),
                Panel(
                    "Unscored by task",
                    "Share of items without a score. An unscored response is left out of training; it is never a 0.",
                    [
                        Query(
                            share(
                                chosen("golongrl_reward_scores_total", 'status="unscored"'),
                                chosen("golongrl_reward_scores_total"),
                                "task",
                                "15m",
                            ),
                            "{{task}}",
                        )
                    ],
                    unit="percentunit",
                    thresholds=[(0.01, "red")],
                ),
                Panel(
                    "Lost by kind",
                    "Items that missed their deadline, killed their worker or found none.",
                    [Query(rate(chosen("golongrl_reward_lost_total"), "task, kind"), "{{task}}: {{kind}}")],
                ),
                Panel(
                    "Seconds an item takes, by task",
                    "What a worker spends on one item.",
                    [
                        Query(
                            f"histogram_quantile(0.95, sum by (le, task) "
                            f"(rate({chosen('golongrl_reward_item_seconds_bucket')}[30m])))",
                            "{{task}}: 95th percentile",
                        )
                    ],
                    unit="s",
                ),
                Panel(
                    "Seconds an item waits",
                    "For a worker process.",
                    quantiles(chosen("golongrl_reward_queue_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Waiting and in work",
                    "Items that wait for a worker, and items being computed.",
                    [
                        Query(f"sum({chosen('golongrl_reward_queue_depth')})", "waiting"),
                        Query(f"sum({chosen('golongrl_reward_in_flight')})", "in work"),
                    ],
                    thresholds=[(1000, "red")],
                ),
            ],
        ),
        PanelRow(
            "Processes and clients",
            [
                Panel(
                    "Warm workers",
                    "Worker processes that can compute, by pod.",
                    [Query(f"sum by (pod) ({chosen('golongrl_reward_workers_warm')})", "{{pod}}")],
                    kind="stacked",
                ),
                Panel(
                    "Worker ends by why",
                    "Processes a minute that ended: `recycled` is normal, `deadline` and `died` are items that hung "
                    "or crashed.",
                    [Query(f"60 * {rate(chosen('golongrl_reward_workers_ended_total'), 'why')}", "{{why}}")],
                ),
                Panel(
                    "Requests refused",
                    "By HTTP status: 401 is a wrong token, 413 and 422 a wrong request, 429 a full queue.",
                    [Query(rate(chosen("golongrl_reward_refused_total"), "code"), "{{code}}")],
                ),
                Panel(
                    "Responses without a reward",
                    "As rollout workers see it: responses a minute whose reward could not be computed.",
                    [Query(f"60 * {rate(of('rollout', 'golongrl_rollout_responses_unscored_total'))}", "responses")],
                    width=12,
                ),
                Panel(
                    "Unscored share of the batch",
                    "Of the last batch that was trained.",
                    [Query(f"max({of('learner', 'golongrl_learner_unscored_ratio')})", "share")],
                    unit="percentunit",
                    thresholds=[(0.01, "red")],
                    width=12,
                ),
            ],
        ),
    ],
    pods="reward",
)
