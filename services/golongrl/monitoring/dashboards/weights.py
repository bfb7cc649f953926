"""New weights: from the learner's step until the last engine holds them."""

from golongrl.monitoring.dashboards.panels import Page, Panel, PanelRow, Query, of, quantiles, rate

_ADOPTIONS = of("rollout", "golongrl_rollout_adoption_seconds_count")
_ENGINES = of("rollout", "golongrl_rollout_engine_version")

WEIGHTS = Page(
    "weights",
    "weights",
    "From the optimizer step to the last engine that holds its weights.",
    [
        PanelRow(
            "From step to engine",
            [
                Panel(
                    "Versions",
                    "The learner's step, the version it has published, and the newest and oldest that engines hold.",
                    [
                        Query(f"max({of('learner', 'golongrl_learner_step')})", "step"),
                        Query(f"max({of('learner', 'golongrl_learner_policy_version')})", "published"),
                        Query(f"max({_ENGINES})", "newest engine"),
                        Query(f"min({_ENGINES} >= 0)", "oldest engine"),
                    ],
                    width=12,
                ),
                Panel(
                    "Version skew",
                    "Versions between the published one and the oldest engine. More than `queue.max_staleness`, and "
                    "that "
                    "engine gets no groups.",
                    [
                        Query(
                            f"max({of('learner', 'golongrl_learner_policy_version')}) - min({_ENGINES} >= 0)",
                            "oldest engine behind",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    "Bytes of a version",
                    "What every engine reads or receives.",
                    [Query(f"max({of('learner', 'golongrl_learner_weights_bytes')})", "bytes")],
                    unit="bytes",
                ),
                Panel(
                    "Bytes read by engines",
                    "From the weight store, a second: whole versions, and what changed since one.",
                    [Query(rate(of("rollout", "golongrl_rollout_weight_bytes_total"), "kind"), "{{kind}}")],
                    unit="Bps",
                    kind="stacked",
                ),
                Panel(
                    "Seconds to publish",
                    "From the copy of the weights until engines can take them; overlaps training.",
                    quantiles(of("learner", "golongrl_learner_publish_seconds_bucket")),
                    unit="s",
                ),
                Panel(
                    "Publish to adoption",
                    "From the moment a worker saw a version until its engine held it. The slowest engine is the "
                    "last adoption.",
                    [
                        *quantiles(of("rollout", "golongrl_rollout_adoption_lag_seconds_bucket")),
                        Query(
                            "max("
                            f"rate({of('rollout', 'golongrl_rollout_adoption_lag_seconds_sum')}[30m])"
                            f" / rate({of('rollout', 'golongrl_rollout_adoption_lag_seconds_count')}[30m]))",
                            "slowest engine, mean",
                        ),
                    ],
                    unit="s",
                ),
                Panel(
                    "Adoption by mode",
                    "Seconds of the update itself, read back included.",
                    quantiles(of("rollout", "golongrl_rollout_adoption_seconds_bucket"), by="mode"),
                    unit="s",
                ),
                Panel(
                    "Adoptions and failures",
                    "Updates that were confirmed, by mode, and those that were not, within 30 minutes.",
                    [
                        Query(
                            f"sum by (mode) (increase({_ADOPTIONS}[30m]))",
                            "{{mode}}",
                        ),
                        Query(
                            f"sum(increase({of('rollout', 'golongrl_rollout_adoption_failures_total')}[30m]))", "failed"
                        ),
                    ],
                ),
            ],
        ),
    ],
)
