"""The learner's metrics, declared, and where each number of a step's record is shown. Pure data.

Invariant: a number of metrics.jsonl is in exactly one of three places: a series of its own (`SHOWN`, or the counters
and histograms below), a name in `ELSEWHERE` with the series that has it better, or `golongrl_learner_other`, so that
what verl adds tomorrow is not lost.
"""

import re
from dataclasses import dataclass
from typing import Final

from golongrl.telemetry.catalogue import Catalogue, GaugeMetric

CATALOGUE = Catalogue("learner", "the learner, port `http`")

STEP = CATALOGUE.gauge("step", "Last optimizer step done.", unit="steps")
VERSION = CATALOGUE.gauge(
    "policy_version",
    "Policy version: published optimizer steps (above the step while a resumed learner replays).",
    unit="versions",
)
STEPS = CATALOGUE.counter("steps", "Optimizer steps done by this process.", unit="steps")
TOKENS = CATALOGUE.counter(
    "tokens", "Tokens trained on by this process (prompt and response of every response).", unit="tokens"
)
PHASE_SECONDS = CATALOGUE.counter("phase_seconds", "Seconds spent in each phase of the steps.", "phase")
STEP_SECONDS = CATALOGUE.histogram("step_seconds", "Seconds a step took, waiting for its batch included.")
PUBLISH_SECONDS = CATALOGUE.histogram(
    "publish_seconds", "From the copy of new weights until engines can take them; overlaps training."
)
CHECKPOINT_SECONDS = CATALOGUE.histogram(
    "checkpoint_write_seconds", "Writing a checkpoint until it is durable; overlaps training."
)
WEIGHTS_BYTES = CATALOGUE.gauge("weights_bytes", "Size of the version published last.")
ACTIVITY = CATALOGUE.gauge("activity", "1 for what the learner does now.", "activity")
ACTIVITY_SECONDS = CATALOGUE.gauge("activity_seconds", "How long it has been doing that.")
WAITED_SECONDS = CATALOGUE.counter(
    "waited_seconds",
    "Time in which the learner had no batch.",
    off_panel="the phases of a step show it; KEDA sizes the pool by it",
)
STALLED = CATALOGUE.gauge(
    "stalled_seconds",
    "For how long a process of this kind, from which nothing comes, has held up the run; else 0.",
    "on",
)
QUEUE_UP = CATALOGUE.gauge("queue_up", "1 if the queue answered this scrape; 0: Redis is down or too slow.")
DISK_FREE = CATALOGUE.gauge("disk_free_bytes", "Free space where the learner writes.", "folder")
DISK_SIZE = CATALOGUE.gauge("disk_size_bytes", "Size of the file system there.", "folder")
OTHER = CATALOGUE.gauge(
    "other",
    "A number of the last step's record that has no series of its own.",
    "name",
    off_panel="what it holds depends on the recipe and on verl",
)


@dataclass(frozen=True)
class Shown:
    """Names of metrics.jsonl that one gauge shows.

    Attributes:
        key: the name, with a placeholder for each label, such as `critic/score/{stat}`.
        fixed: labels that the key itself stands for.
        scale: turns its unit into the gauge's.
    """

    key: str
    metric: GaugeMetric
    fixed: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0

    def labels(self, name: str) -> dict[str, str] | None:
        """The gauge's labels for a name; None where the name is another."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+(?:@\\d+)?)", re.escape(self.key))
        found = re.fullmatch(pattern, name)
        return None if found is None else {**found.groupdict(), **dict(self.fixed)}


_gauge = CATALOGUE.gauge
_GIB: Final = float(1 << 30)

_LOSS = _gauge(
    "loss", "Loss of the last update: the whole (total), the policy's (policy), the reference's KL (kl).", "kind"
)
_MEMORY = _gauge(
    "memory_bytes",
    "Memory at the last step: the largest a rank allocated and reserved on its device, and the host's in use.",
    "kind",
)
_VALIDATION = _gauge("validation_reward", "Mean reward on the held-out prompts, all of them.")
_ROLLOUT = _gauge("group_seconds", "Mean seconds of a group of the last batch in each phase of the rollout.", "phase")


def _shown(key: str, name: str, text: str, *, unit: str = "", off_panel: str = "") -> Shown:
    """A gauge of its own, whose labels are the placeholders of `key`."""
    return Shown(key, _gauge(name, text, *re.findall(r"{(\w+)}", key), unit=unit, off_panel=off_panel))


# The first match counts, so that what is special comes before what is general.
SHOWN: Final = (
    _shown("reward_by_type/{task}", "reward", "Mean reward of the last batch by task type."),
    _shown("critic/score/{stat}", "score", "What the reward service gave the responses of the last batch."),
    _shown(
        "critic/rewards/{stat}",
        "trained_reward",
        "What is trained on: the score with the penalty for overlong responses.",
    ),
    _shown("critic/advantages/{stat}", "advantage", "Advantages of the last batch."),
    _shown("rewards/unscored_ratio", "unscored_ratio", "Share of the last batch's responses without a reward."),
    _shown("task_metrics/{metric}/mean_reward", "task_reward_mean", "Mean reward of the prompts of a metric."),
    _shown(
        "task_metrics/{metric}/std_reward",
        "task_reward_std",
        "Standard deviation of their rewards, over all responses.",
    ),
    _shown(
        "task_metrics/{metric}/mean_std_reward",
        "task_reward_std_within",
        "Mean over prompts of the deviation among a prompt's responses.",
    ),
    _shown(
        "task_metrics/{metric}/rate_adv",
        "task_advantage_ratio",
        "Share of the batch's advantage norm that the prompts of a metric have.",
    ),
    _shown("task_metrics/{metric}/rate_num", "task_prompts_ratio", "Share of the batch's prompts that have a metric."),
    _shown(
        "task_metrics/{metric}/pass_rate",
        "task_pass_ratio",
        "Mean pass rate of the prompts of a metric (with algorithm.reweight).",
    ),
    _shown(
        "task_metrics/{metric}/num_queries",
        "task_prompts",
        "Prompts of a metric in the last batch.",
        unit="prompts",
        off_panel="golongrl_learner_task_prompts_ratio shows the same as a share",
    ),
    _shown(
        "task_metrics/{metric}/num_rollouts",
        "task_responses",
        "Scored responses of a metric in the last batch.",
        unit="responses",
        off_panel="it is n times the prompts, less what is unscored",
    ),
    _shown(
        "difficulty/mean_pass_rate",
        "pass_ratio",
        "Mean pass rate of the last batch's prompts (with algorithm.reweight).",
    ),
    _shown("difficulty/weight_{stat}", "difficulty_weight", "Difficulty weights (with algorithm.reweight)."),
    Shown("actor/loss", _LOSS, (("kind", "total"),)),
    Shown("actor/pg_loss", _LOSS, (("kind", "policy"),)),
    Shown("actor/kl_loss", _LOSS, (("kind", "kl"),)),
    _shown("actor/entropy_loss", "entropy", "Mean entropy a token of the policy, in nats."),
    _shown("actor/grad_norm", "grad_norm", "Gradient norm before clipping."),
    _shown(
        "actor/updates_skipped",
        "updates_skipped",
        "Updates of the last step that were skipped because their gradient was not finite.",
        unit="updates",
        off_panel="it is 0 in a sound run; a line of the log names each such step",
    ),
    _shown("actor/lr", "learning_rate", "Learning rate of the last step."),
    _shown(
        "actor/ppo_kl", "update_kl", "KL from the policy before the step to that in the update; 0 with one mini-batch."
    ),
    _shown("actor/pg_clipfrac", "clip_ratio", "Share of tokens that the upper or lower clip holds."),
    _shown("actor/pg_clipfrac_lower", "dual_clip_ratio", "Share of tokens that the dual clip holds."),
    _shown("rollout_corr/veto_ratio", "veto_ratio", "Share of responses masked out by algorithm.rollout_token_veto."),
    _shown(
        "rollout_corr/kl", "engine_kl", "KL from the engine's to the learner's log-probabilities of the sampled tokens."
    ),
    _shown("rollout_corr/k3_kl", "engine_k3_kl", "The same by the k3 estimator, which is never negative."),
    _shown(
        "rollout_corr/rollout_is_{stat}",
        "importance_weight",
        "Importance weights of the learner's policy over the engine's, before the clip.",
    ),
    _shown(
        "rollout_corr/{stat}", "rollout_correction", "verl's other numbers of the rollout correction (rollout_corr/)."
    ),
    _shown(
        "routing/replayed_share",
        "routes_replayed_ratio",
        "Share of the last batch's token-layers whose experts were replayed (learner.routing_replay); the others "
        "have no record, and the learner's router chose.",
    ),
    _shown(
        "routing/changed_share",
        "routes_changed_ratio",
        "Share of the replayed token-layers for which the learner's router would have chosen other experts.",
    ),
    _shown("response_length/clip_ratio", "truncated_ratio", "Share of responses cut at rollout.max_response_tokens."),
    _shown("response_length/{stat}", "response_tokens", "Lengths of responses; `limit` is the most.", unit="tokens"),
    _shown("prompt_length/{stat}", "prompt_tokens", "Lengths of prompts.", unit="tokens"),
    _shown(
        "staleness/{stat}",
        "staleness",
        "Versions between a group's oldest token and the version trained from.",
        unit="versions",
    ),
    _shown("batch/groups", "batch_groups", "Groups in the last batch.", unit="groups"),
    _shown("batch/responses", "batch_responses", "Responses in the last batch.", unit="responses"),
    _shown("batch/tasks", "batch_tasks", "Task types in the last batch.", unit="tasks"),
    _shown("batch/set_aside", "batch_set_aside", "Groups of the last batch that could not be trained.", unit="groups"),
    _shown("batch/replayed", "batch_replayed", "1 if the last batch had been taken before, by a learner that ended."),
    Shown("rollout_s/generate_s", _ROLLOUT, (("phase", "generate"),)),
    Shown("rollout_s/score_s", _ROLLOUT, (("phase", "score"),)),
    Shown("rollout_s/{phase}", _ROLLOUT),
    _shown(
        "perf/throughput", "rank_throughput", "Tokens trained a second and rank, waiting included.", unit="tokens/s"
    ),
    _shown(
        "perf/tflops",
        "rank_tflops",
        "Operations of the last update a second and rank, as the model needs them.",
        unit="TFLOP/s",
    ),
    _shown(
        "perf/mfu",
        "mfu_ratio",
        "Model FLOPs utilisation of the update: what the model needs over what the devices can.",
    ),
    Shown("perf/max_memory_allocated_gb", _MEMORY, (("kind", "device_allocated"),), _GIB),
    Shown("perf/max_memory_reserved_gb", _MEMORY, (("kind", "device_reserved"),), _GIB),
    Shown("perf/cpu_memory_used_gb", _MEMORY, (("kind", "host"),), _GIB),
    _shown("perf/prepare_s", "prepare_seconds", "Preparing the last batch, while the ranks were busy."),
    Shown("val/mean", _VALIDATION),
    _shown("val_by_type/{task}", "validation_task_reward", "Mean reward on the held-out prompts by task type."),
    _shown(
        "val-core/{source}/reward/mean@1",
        "validation_source_reward",
        "Mean reward on the held-out prompts by data source.",
    ),
    _shown(
        "val-suite/{benchmark}/score",
        "suite_score",
        "Score of a benchmark of data.validation_suite in the last validation.",
    ),
    _shown("val-suite/{benchmark}/stderr", "suite_stderr", "Standard error of that score."),
    _shown(
        "val-suite/{benchmark}/rules",
        "suite_rules_ratio",
        "Share of a judged benchmark's answers that rules find right.",
    ),
    _shown(
        "val-suite/{benchmark}/to_judge",
        "suite_to_judge",
        "Its answers that only a judge could decide.",
        unit="answers",
    ),
    _shown("val-aux/rows", "validation_rows", "Held-out prompts of the last validation.", unit="rows"),
    _shown("val-aux/missing", "validation_missing", "Those without an answer by its deadline.", unit="rows"),
    _shown("val-aux/unscored", "validation_unscored", "Answers without a reward.", unit="rows"),
    _shown(
        "val-aux/response_length/mean",
        "validation_response_tokens",
        "Mean length of the answers of the last validation.",
        unit="tokens",
    ),
    _shown("val-aux/response_length/clip_ratio", "validation_truncated_ratio", "Share of those that were cut."),
)

# Names that another series shows, or more exactly.
ELSEWHERE: Final = {
    "training/global_step": "golongrl_learner_step",
    "policy/version": "golongrl_learner_policy_version",
    "perf/total_num_tokens": "golongrl_learner_tokens_total",
    "perf/time_per_step": "golongrl_learner_step_seconds",
    "perf/publish_s": "golongrl_learner_publish_seconds",
    "perf/checkpoint_write_s": "golongrl_learner_checkpoint_write_seconds",
    "weights/bytes": "golongrl_learner_weights_bytes",
    "timing_s/": "golongrl_learner_phase_seconds_total",
    "queue/": "golongrl_queue_*, at the moment of the scrape",
    "groups_from/": "golongrl_rollout_groups_submitted_total of every worker",
}


def elsewhere(name: str) -> bool:
    """Whether another series than a gauge of `SHOWN` has this name of metrics.jsonl."""
    return any(name == known or (known.endswith("/") and name.startswith(known)) for known in ELSEWHERE)


def shown_as(name: str) -> tuple[GaugeMetric, dict[str, str], float]:
    """The gauge, labels and scale of a name of metrics.jsonl that is not `elsewhere`."""
    for shown in SHOWN:
        if (labels := shown.labels(name)) is not None:
            return shown.metric, labels, shown.scale
    return OTHER, {"name": name}, 1.0
