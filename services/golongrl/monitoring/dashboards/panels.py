"""What dashboards are made of: queries with their series' matchers, panels, rows. Pure data.

Invariant: every query selects one release (`$namespace`, `$release`), its runs (`$run`) and, on pages about pods, the
chosen ones (`$pod`). The labels `namespace` and `pod` are those of the scrape target; `run` is set by the chart's
monitors, and by `golongrl metrics scrape-config` on one machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Component = Literal["learner", "rollout", "reward", "operator", "evaluation", "data"]
Thresholds = Sequence[tuple[float, str]]

RATE = "$__rate_interval"
# Durations of groups and adoptions are rare events: a rate over seconds would mostly be nothing.
SLOW = "30m"


@dataclass(frozen=True)
class Query:
    """One expression of a panel, with the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: Grafana's name of it.
        kind: `lines`, `stacked` areas, `percent` (stacked to 100 %), one `stat`, a `states` timeline, a `table`.
        thresholds: from which value on which colour; drawn as lines or colouring the number.
        width: of 24 columns.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["lines", "stacked", "percent", "stat", "states", "table"] = "lines"
    thresholds: Thresholds = ()
    width: int = 8
    height: int = 8
    highest: float | None = None


@dataclass(frozen=True)
class PanelRow:
    """A titled row of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Page:
    """One dashboard. `pods`: of which component the variable `$pod` has the pods; None has no such variable."""

    slug: str
    title: str
    description: str
    rows: Sequence[PanelRow]
    pods: Component | None = None

    @property
    def uid(self) -> str:
        """Grafana's id of it, by which others link to it."""
        return f"golongrl-{self.slug}"

    @property
    def panels(self) -> list[Panel]:
        """All panels, in order."""
        return [panel for row in self.rows for panel in row.panels]


def of(component: Component, metric: str, more: str = "") -> str:
    """A component's series of a metric, all pods of the release."""
    return _series(metric, f'pod=~"$release-{component}-.*"', more, runs=component in ("learner", "rollout"))


def chosen(metric: str, more: str = "") -> str:
    """The chosen pods' series of a metric."""
    return _series(metric, 'pod=~"$pod"', more, runs=False)


def _series(metric: str, pod: str, more: str, *, runs: bool) -> str:
    parts = ['namespace="$namespace"', pod, *(['run=~"$run"'] if runs else []), *([more] if more else [])]
    return f"{metric}{{{','.join(parts)}}}"


def rate(series: str, by: str = "", window: str = RATE) -> str:
    """A counter's increase a second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({series}[{window}]))"


def share(part: str, whole: str, by: str = "", window: str = RATE) -> str:
    """One counter's rate as a share of another's."""
    return f"{rate(part, by, window)} / {rate(whole, by, window)}"


def mean(series_sum: str, series_count: str, by: str = "", window: str = SLOW) -> str:
    """A histogram's mean."""
    return share(series_sum, series_count, by, window)


def quantiles(bucket: str, window: str = SLOW, by: str = "") -> list[Query]:
    """Median and 95th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    named = f"{{{{{by}}}}} " if by else ""
    return [
        Query(f"histogram_quantile({share_}, sum by ({labels}) (rate({bucket}[{window}])))", f"{named}{name}")
        for share_, name in ((0.5, "median"), (0.95, "95th percentile"))
    ]
