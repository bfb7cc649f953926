"""Validation during the run, and the operator that runs jobs."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, of, rate


def _of(metric: str) -> str:
    return of("learner", f"golongrl_learner_validation_{metric}")


EVALUATION = Page(
    "evaluation",
    "evaluation and jobs",
    "Validation on held-out prompts while the run trains, and the TrainingRuns of the release.",
    [
        PanelRow(
            "Validation",
            [
                Panel(
                    "Validation reward",
                    "Mean reward on all held-out prompts, every `learner.test_freq` steps.",
                    [Query(f"max({_of('reward')})", "all")],
                    unit="percentunit",
                ),
                Panel(
                    "By task",
                    "Mean reward by task type.",
                    [Query(f"max by (task) ({_of('task_reward')})", "{{task}}")],
                    unit="percentunit",
                ),
                Panel(
                    "By data source",
                    "Mean reward by data source.",
                    [Query(f"max by (source) ({_of('source_reward')})", "{{source}}")],
                    unit="percentunit",
                ),
                Panel(
                    "Rows",
                    "Held-out prompts, those without an answer by the deadline, and answers without a reward.",
                    [
                        Query(f"max({_of('rows')})", "prompts"),
                        Query(f"max({_of('missing')})", "missing"),
                        Query(f"max({_of('unscored')})", "unscored"),
                    ],
                ),
                Panel(
                    "Rows answered a minute",
                    "By the rollout workers: scored, unscored, or too late for their round.",
                    [
                        Query(
                            f"60 * {rate(of('rollout', 'golongrl_rollout_validation_rows_total'), 'outcome')}",
                            "{{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "Answers",
                    "Mean length in tokens, and the share that was cut.",
                    [
                        Query(f"max({_of('response_tokens')})", "tokens"),
                        Query(f"100 * max({_of('truncated_ratio')})", "cut, %"),
                    ],
                ),
            ],
        ),
        PanelRow(
            "Jobs of the operator",
            [
                Panel(
                    "TrainingRuns by phase",
                    "Of the release.",
                    [Query(f"sum by (phase) ({of('operator', 'golongrl_operator_runs')})", "{{phase}}")],
                    kind="stacked",
                ),
                Panel(
                    "Engines of the pools",
                    "What the operator asks for, and what is ready, by pool.",
                    [
                        Query(
                            f"sum by (pool, state) ({of('operator', 'golongrl_operator_engines')})",
                            "{{pool}}: {{state}}",
                        )
                    ],
                ),
                Panel(
                    "Acting operators",
                    "1: the lease is held by one that acts. Others wait for it.",
                    [Query(f"sum({of('operator', 'golongrl_operator_leader')})", "acting")],
                ),
                Panel(
                    "Seconds since a pass",
                    "Since the operator last read, did and reported everything.",
                    [Query(f"max({of('operator', 'golongrl_operator_seconds_since_pass')})", "seconds")],
                    unit="s",
                    thresholds=[(600, "red")],
                ),
                Panel(
                    "Passes and refused calls",
                    "Passes a minute by outcome, and calls that the API server refused.",
                    [
                        Query(
                            f"60 * {rate(of('operator', 'golongrl_operator_passes_total'), 'outcome')}", "{{outcome}}"
                        ),
                        Query(
                            f"60 * {rate(of('operator', 'golongrl_operator_api_errors_total'), 'code')}",
                            "refused: {{code}}",
                        ),
                    ],
                ),
            ],
        ),
    ],
)
