"""Validation during the run, the jobs that evaluate and that make data, and the operator that runs jobs."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, of, quantiles, rate


def _of(metric: str) -> str:
    return of("learner", f"golongrl_learner_validation_{metric}")


def _suite(metric: str) -> str:
    return of("learner", f"golongrl_learner_suite_{metric}")


def _job(metric: str, more: str = "") -> str:
    return of("evaluation", f"golongrl_evaluation_{metric}", more)


_UNSCORED = 'status!="scored"'


def _data(metric: str) -> str:
    return of("data", f"golongrl_data_{metric}")


EVALUATION = Page(
    "evaluation",
    "evaluation and data jobs",
    "Validation on held-out prompts while the run trains, jobs that evaluate or make data, and TrainingRuns.",
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
                    "Benchmarks",
                    "Scores of the benchmarks of `data.validation_suite`.",
                    [Query(f"max by (benchmark) ({_suite('score')})", "{{benchmark}}")],
                    unit="percentunit",
                ),
                Panel(
                    "Standard error of the benchmarks",
                    "Twice this on either side of a score is its 95 % interval.",
                    [Query(f"max by (benchmark) ({_suite('stderr')})", "{{benchmark}}")],
                    unit="percentunit",
                ),
                Panel(
                    "Benchmarks that need a judge",
                    "What rules alone find right, and how many answers only a judge could decide.",
                    [
                        Query(f"100 * max by (benchmark) ({_suite('rules_ratio')})", "{{benchmark}}: by rules, %"),
                        Query(f"max by (benchmark) ({_suite('to_judge')})", "{{benchmark}}: for a judge"),
                    ],
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
            "Evaluation jobs",
            [
                Panel(
                    "Scores so far",
                    "Mean score of the scored samples by benchmark. results.json and the report have the errors too.",
                    [Query(f"max by (benchmark) ({_job('score')})", "{{benchmark}}")],
                    unit="percentunit",
                ),
                Panel(
                    "Samples done",
                    "Share of a benchmark's samples that are known for the model in progress, whatever became of them.",
                    [
                        Query(
                            f"sum by (benchmark) ({_job('samples')}) / sum by (benchmark) ({_job('samples_expected')})",
                            "{{benchmark}}",
                        )
                    ],
                    unit="percentunit",
                    highest=1,
                ),
                Panel(
                    "Samples without a score",
                    "No reply (failed), longer than the context (skipped), or no verdict (unjudged, needs_judge).",
                    [Query(f"sum by (status) ({_job('samples', _UNSCORED)})", "{{status}}")],
                    kind="stacked",
                ),
                Panel(
                    "Seconds to a reply",
                    "All attempts of a request.",
                    quantiles(_job("reply_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Requests",
                    "In flight, and how many may be: the limit falls while a server is full.",
                    [
                        Query(f"sum({_job('requests_in_flight')})", "in flight"),
                        Query(f"sum({_job('requests_limit')})", "limit"),
                    ],
                ),
                Panel(
                    "Tokens a second",
                    "Of prompts and completions, as the server counts them.",
                    [Query(rate(_job("tokens_total"), "kind"), "{{kind}}")],
                ),
                Panel(
                    "Models",
                    "Steps of the run, or other models: evaluated and left.",
                    [Query(f"sum by (state) ({_job('models')})", "{{state}}")],
                ),
                Panel(
                    "Step in progress",
                    "Whose weights are asked now; -1 is a model that is no step of a run.",
                    [Query(f"max({_job('step')})", "step")],
                    kind="stat",
                ),
            ],
        ),
        PanelRow(
            "Data jobs",
            [
                Panel(
                    "Stage",
                    "The stage of `golongrl data construct` that runs now.",
                    [Query(f"max by (stage) ({_data('stage')})", "{{stage}}")],
                    kind="states",
                ),
                Panel(
                    "Inputs done",
                    "Share of a stage's inputs whose rows are written, those of earlier starts included.",
                    [
                        Query(
                            f"max by (stage) ({_data('inputs_done')}) / max by (stage) ({_data('inputs')})", "{{stage}}"
                        )
                    ],
                    unit="percentunit",
                    highest=1,
                ),
                Panel(
                    "Rows kept",
                    "By each stage that has ended.",
                    [Query(f"max by (stage) ({_data('rows_kept')})", "{{stage}}")],
                ),
                Panel(
                    "Rows refused",
                    "By stage and reason.",
                    [Query(f"max by (stage, reason) ({_data('rows_refused')})", "{{stage}}: {{reason}}")],
                    kind="stacked",
                ),
                Panel(
                    "Calls of models",
                    "Made now, and found among the replies of an earlier start; what waits for a reply.",
                    [
                        Query(f"max by (stage, outcome) ({_data('calls')})", "{{stage}}: {{outcome}}"),
                        Query(f"max({_data('requests_in_flight')})", "in flight"),
                    ],
                ),
                Panel(
                    "Tokens of calls",
                    "Used out of the stage's budget.",
                    [Query(f"max by (stage) ({_data('call_tokens')})", "{{stage}}")],
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
