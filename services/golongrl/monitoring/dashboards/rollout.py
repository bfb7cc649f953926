"""The rollout pool: engines and the workers beside them, pod by pod."""

from golongrl.monitoring.dashboards.panels import SLOW, Page, Panel, PanelRow, Query, chosen, quantiles, rate, share

ROLLOUT = Page(
    "rollout",
    "rollout pool",
    "Engines and their workers, pod by pod: generation, KV cache, weights.",
    [
        PanelRow(
            "Groups",
            [
                Panel(
                    "Groups a minute",
                    "Groups that workers submitted, ended without training, or gave back, by reason.",
                    [
                        Query(f"60 * {rate(chosen('golongrl_rollout_groups_submitted_total'))}", "submitted"),
                        Query(
                            f"60 * {rate(chosen('golongrl_rollout_groups_rejected_total'), 'reason')}",
                            "rejected: {{reason}}",
                        ),
                        Query(
                            f"60 * {rate(chosen('golongrl_rollout_groups_released_total'), 'reason')}",
                            "given back: {{reason}}",
                        ),
                    ],
                ),
                Panel(
                    "Groups in progress",
                    "Groups that each worker holds a lease of.",
                    [Query(f"sum by (pod) ({chosen('golongrl_rollout_groups_in_progress')})", "{{pod}}")],
                    kind="stacked",
                ),
                Panel(
                    "What workers wait for",
                    "One line a worker: what it waits for. `slots` is a worker that is busy.",
                    [Query(f"{chosen('golongrl_rollout_waiting')} == 1", "{{pod}}: {{reason}}")],
                    kind="states",
                ),
                Panel(
                    "Seconds to sample a group",
                    "All responses of one prompt, from the first request to the last token.",
                    quantiles(chosen("golongrl_rollout_generation_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Seconds to score a group",
                    "At the reward service, its queue included.",
                    quantiles(chosen("golongrl_rollout_scoring_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Staleness at submit",
                    "Versions between a group's oldest token and the newest announced version when it is handed in.",
                    quantiles(chosen("golongrl_rollout_staleness_at_submit_bucket")),
                ),
            ],
        ),
        PanelRow(
            "Engines",
            [
                Panel(
                    "Generated tokens a second",
                    "Of finished responses, by pod.",
                    [Query(rate(chosen("golongrl_rollout_generated_tokens_total"), "pod"), "{{pod}}")],
                    kind="stacked",
                ),
                Panel(
                    "Generation speed now",
                    "The engine's own measure over its last steps, unfinished responses included.",
                    [Query(f"sum by (pod) ({chosen('sglang:gen_throughput')})", "{{pod}}")],
                ),
                Panel(
                    "Requests",
                    "Running, waiting and paused requests of all chosen engines.",
                    [
                        Query(f"sum({chosen('sglang:num_running_reqs')})", "running"),
                        Query(f"sum({chosen('sglang:num_queue_reqs')})", "waiting"),
                        Query(f"sum({chosen('sglang:num_paused_reqs')})", "paused"),
                    ],
                ),
                Panel(
                    "KV cache in use",
                    "Share of each engine's cache. Near 100 % requests are retracted and prefilled again.",
                    [Query(chosen("sglang:token_usage"), "{{pod}}")],
                    unit="percentunit",
                    thresholds=[(0.95, "red")],
                    highest=1,
                ),
                Panel(
                    "KV cache size",
                    "Tokens that each engine's cache can hold.",
                    [Query(chosen("sglang:max_total_num_tokens"), "{{pod}}")],
                ),
                Panel(
                    "Prompt tokens from the cache",
                    "Share of prompt tokens that were not computed again: the worker's count, the engine's, and the "
                    "engine's "
                    "last prefill. With n responses a prompt it should be near (n - 1) / n.",
                    [
                        Query(
                            share(
                                chosen("golongrl_rollout_prompt_tokens_total", 'cached="true"'),
                                chosen("golongrl_rollout_prompt_tokens_total"),
                                window=SLOW,
                            ),
                            "workers",
                        ),
                        Query(
                            share(
                                chosen("sglang:cached_tokens_total"), chosen("sglang:prompt_tokens_total"), window=SLOW
                            ),
                            "engines",
                        ),
                        Query(f"avg({chosen('sglang:cache_hit_rate')})", "last prefill"),
                    ],
                    unit="percentunit",
                ),
                Panel(
                    "Time to first token",
                    "From a request's arrival; the prefill of a long prompt is most of it.",
                    quantiles(chosen("sglang:time_to_first_token_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Request latency",
                    "From a request's arrival to its last token.",
                    quantiles(chosen("sglang:e2e_request_latency_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Seconds in the engine's queue",
                    "From a request's arrival to its prefill.",
                    quantiles(chosen("sglang:queue_time_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Seconds a token",
                    "Between two tokens of a response.",
                    quantiles(chosen("sglang:inter_token_latency_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Engine's tokens a second",
                    "The engine's own counts of finished requests.",
                    [
                        Query(rate(chosen("sglang:generation_tokens_total")), "generated"),
                        Query(rate(chosen("sglang:prompt_tokens_total")), "prompts"),
                    ],
                ),
                Panel(
                    "Requests a second",
                    "Finished, and among them aborted (weights adopted in mode abort, groups given back).",
                    [
                        Query(rate(chosen("sglang:num_requests_total")), "finished"),
                        Query(rate(chosen("sglang:num_aborted_requests_total")), "aborted"),
                    ],
                ),
            ],
        ),
        PanelRow(
            "Weights and trouble",
            [
                Panel(
                    "Version of each engine",
                    "Steps up are adoptions; -1 is an engine whose weights are not confirmed.",
                    [Query(chosen("golongrl_rollout_engine_version"), "{{pod}}")],
                ),
                Panel(
                    "Seconds to take new weights",
                    "By adoption mode, read back included.",
                    quantiles(chosen("golongrl_rollout_adoption_seconds_bucket"), by="mode"),
                    unit="s",
                ),
                Panel(
                    "Engines with problems",
                    "In quarantine now; updates not confirmed and engines lost within 30 minutes.",
                    [
                        Query(f"sum({chosen('golongrl_rollout_quarantined')})", "in quarantine"),
                        Query(
                            f"sum(increase({chosen('golongrl_rollout_adoption_failures_total')}[30m]))",
                            "failed updates",
                        ),
                        Query(f"sum(increase({chosen('golongrl_rollout_engine_restarts_total')}[30m]))", "restarts"),
                    ],
                    thresholds=[(1, "red")],
                ),
            ],
        ),
    ],
    pods="rollout",
)
