"""The learner: time, losses, importance weights, memory, checkpoints."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, of, quantiles, rate


def _of(metric: str, more: str = "") -> str:
    return of("learner", f"golongrl_learner_{metric}", more)


def _one(metric: str, legend: str, more: str = "") -> Query:
    return Query(f"max({_of(metric, more)})", legend)


def _by(metric: str, label: str) -> Query:
    return Query(f"max by ({label}) ({_of(metric)})", f"{{{{{label}}}}}")


LEARNER = Page(
    "learner",
    "learner",
    "The optimizer step: its time, its losses, how far engine and learner differ, memory and checkpoints.",
    [
        PanelRow(
            "Time",
            [
                Panel(
                    "Seconds a step",
                    "Waiting for the batch included.",
                    quantiles(_of("step_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Seconds by phase",
                    "Mean seconds a step in each phase: `take` waits for the batch, `update_actor` trains.",
                    [
                        Query(
                            f"sum by (phase) (rate({_of('phase_seconds_total')}[30m]))"
                            f" / on () group_left () sum(rate({_of('steps_total')}[30m]))",
                            "{{phase}}",
                        )
                    ],
                    unit="s",
                    kind="stacked",
                ),
                Panel(
                    "Speed",
                    "Tokens trained a second and rank, and optimizer steps an hour.",
                    [
                        _one("rank_throughput", "tokens a second and rank"),
                        Query(f"3600 * {rate(_of('steps_total'), window='30m')}", "steps an hour"),
                    ],
                ),
                Panel(
                    "Model FLOPs utilisation",
                    "What the model needs over what the devices can, in the update. Only where the device's peak is "
                    "known.",
                    [_one("mfu_ratio", "MFU")],
                    unit="percentunit",
                ),
                Panel(
                    "TFLOP/s a rank",
                    "Operations that the model needs for the last update, a second and rank. What is computed again "
                    "for lack of memory does not count.",
                    [_one("rank_tflops", "TFLOP/s")],
                ),
                Panel(
                    "Seconds to prepare a batch",
                    "Overlaps the step before it.",
                    [_one("prepare_seconds", "prepare")],
                    unit="s",
                ),
                Panel(
                    "Activity",
                    "What the learner does now.",
                    [Query(f"{_of('activity')} == 1", "{{activity}}")],
                    kind="states",
                ),
            ],
        ),
        PanelRow(
            "Policy",
            [
                Panel("Loss", "The whole, the policy's, and the reference's KL.", [_by("loss", "kind")]),
                Panel(
                    "Entropy",
                    "Mean entropy a token. A fall to a fraction of itself is a policy that has collapsed.",
                    [_one("entropy", "entropy")],
                ),
                Panel("Gradient norm", "Before clipping (`learner.grad_clip`).", [_one("grad_norm", "norm")]),
                Panel(
                    "Clipping",
                    "Share of tokens that the clip and the dual clip hold.",
                    [_one("clip_ratio", "clip"), _one("dual_clip_ratio", "dual clip")],
                    unit="percentunit",
                ),
                Panel(
                    "KL of the update",
                    "From the policy before the step to that in the update; 0 with one mini-batch.",
                    [_one("update_kl", "KL")],
                ),
                Panel("Learning rate", "After warm-up it is constant.", [_one("learning_rate", "rate")], unit="sci"),
            ],
        ),
        PanelRow(
            "Engine and learner",
            [
                Panel(
                    "KL between engine and learner",
                    "Of the sampled tokens' log-probabilities. It grows with staleness; a jump without one is a "
                    "fault of "
                    "numbers: another dtype, another kernel, wrong weights.",
                    [_one("engine_kl", "KL"), _one("engine_k3_kl", "k3")],
                    thresholds=[(0.05, "red")],
                ),
                Panel(
                    "Importance weights",
                    "The learner's policy over the engine's, before `algorithm.rollout_is_clip`.",
                    [_by("importance_weight", "stat")],
                ),
                Panel(
                    "Rollout correction",
                    "verl's other numbers of it.",
                    [_by("rollout_correction", "stat")],
                ),
                Panel(
                    "Vetoed",
                    "Share of responses masked out by `algorithm.rollout_token_veto`.",
                    [_one("veto_ratio", "vetoed")],
                    unit="percentunit",
                    width=12,
                ),
                Panel(
                    "Staleness of the batch",
                    "Versions that groups were behind.",
                    [_by("staleness", "stat")],
                    width=12,
                ),
                Panel(
                    "Routes of a mixture of experts",
                    "With `learner.routing_replay`: share of token-layers whose experts were replayed, and share of "
                    "these for which the learner's router would have chosen others. More than before at the same "
                    "staleness is a fault of numbers.",
                    [_one("routes_replayed_ratio", "replayed"), _one("routes_changed_ratio", "would be others")],
                    unit="percentunit",
                ),
            ],
        ),
        PanelRow(
            "Rewards of the batch",
            [
                Panel("Score", "What the reward service gave.", [_by("score", "stat")]),
                Panel("Trained reward", "With the penalty for overlong responses.", [_by("trained_reward", "stat")]),
                Panel("Advantages", "What the update is weighted by.", [_by("advantage", "stat")]),
                Panel(
                    "Reward by metric", "Mean, as the estimator groups prompts.", [_by("task_reward_mean", "metric")]
                ),
                Panel(
                    "Deviation by metric",
                    "Over all responses, and among the responses of a prompt: what a group can learn from.",
                    [
                        Query(f"max by (metric) ({_of('task_reward_std')})", "{{metric}}: all"),
                        Query(f"max by (metric) ({_of('task_reward_std_within')})", "{{metric}}: within a prompt"),
                    ],
                ),
                Panel(
                    "Share of the advantage norm",
                    "Which tasks drive the update, in all; compare with their share of prompts.",
                    [_by("task_advantage_ratio", "metric")],
                    kind="percent",
                ),
                Panel("Share of prompts", "By metric.", [_by("task_prompts_ratio", "metric")], kind="percent"),
                Panel(
                    "Pass rate",
                    "Of all prompts, and by metric (with `algorithm.reweight`).",
                    [_one("pass_ratio", "all"), _by("task_pass_ratio", "metric")],
                    unit="percentunit",
                ),
                Panel(
                    "Difficulty weights",
                    "With `algorithm.reweight`: hard prompts that are solved weigh more.",
                    [_by("difficulty_weight", "stat")],
                ),
            ],
        ),
        PanelRow(
            "The batch",
            [
                Panel("Response lengths", "In tokens.", [_by("response_tokens", "stat")]),
                Panel("Prompt lengths", "In tokens.", [_by("prompt_tokens", "stat")]),
                Panel(
                    "Cut responses",
                    "Share that reached `rollout.max_response_tokens`.",
                    [_one("truncated_ratio", "cut")],
                    unit="percentunit",
                ),
                Panel(
                    "Groups and responses",
                    "Of the batch; set-aside groups are left out of it.",
                    [
                        _one("batch_groups", "groups"),
                        _one("batch_responses", "responses"),
                        _one("batch_tasks", "task types"),
                        _one("batch_set_aside", "set aside"),
                    ],
                ),
                Panel(
                    "Replay",
                    "1 while a resumed learner trains batches that were taken before.",
                    [_one("batch_replayed", "replayed")],
                    highest=1,
                ),
                Panel(
                    "Seconds in the rollout",
                    "Mean of the batch's groups, by phase.",
                    [_by("group_seconds", "phase")],
                    unit="s",
                    kind="stacked",
                ),
            ],
        ),
        PanelRow(
            "Memory, disk and checkpoints",
            [
                Panel(
                    "Memory",
                    "Device memory of the fullest rank, and the host's.",
                    [_by("memory_bytes", "kind")],
                    unit="bytes",
                ),
                Panel(
                    "Free disk space",
                    "Where the learner writes metrics, checkpoints and weights.",
                    [
                        Query(
                            f"min by (folder) ({_of('disk_free_bytes')} / {_of('disk_size_bytes')})",
                            "{{folder}}: share free",
                        )
                    ],
                    unit="percentunit",
                    thresholds=[(0.1, "green")],
                    highest=1,
                ),
                Panel(
                    "Seconds to write a checkpoint",
                    "Until it is durable; training continues meanwhile.",
                    quantiles(_of("checkpoint_write_seconds_bucket")),
                    unit="s",
                ),
            ],
        ),
    ],
)
