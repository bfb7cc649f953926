"""The metrics of every service: one list, as a table and as docs/metrics.md."""

from collections.abc import Iterator

from golongrl.data.construct import metrics as data
from golongrl.engine import metrics as engine
from golongrl.evaluation import metrics as evaluation
from golongrl.learner.observe import catalogue as learner
from golongrl.queue import metrics as queue
from golongrl.reward import metrics as reward
from golongrl.rollout.observe import metrics as rollout
from golongrl.telemetry.catalogue import LABELS, Catalogue, Kind, Metric
from golongrl_operator import metrics as operator

CATALOGUES = (
    learner.CATALOGUE,
    queue.CATALOGUE,
    rollout.CATALOGUE,
    engine.CATALOGUE,
    reward.CATALOGUE,
    operator.CATALOGUE,
    evaluation.CATALOGUE,
    data.CATALOGUE,
)


def every() -> Iterator[tuple[Catalogue, Metric]]:
    """Every metric with its service's list, in order."""
    for catalogue in CATALOGUES:
        for metric in catalogue.metrics.values():
            yield catalogue, metric


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written by `make generate`; `golongrl metrics list` prints the same. Names are "
        "`golongrl_SERVICE_THING_UNIT`; a histogram has `_bucket`, `_sum` and `_count` behind its name. "
        "Histograms have fixed buckets: prometheus_client (0.26) has a type for samples of native histograms and none "
        "that observes into one, and Prometheus reads those from protobuf alone, which it does not write. A Prometheus "
        "from 3.0 on converts these with `convert_classic_histograms_to_nhcb`.",
        "",
    ]
    for catalogue in CATALOGUES:
        lines += [
            f"## {catalogue.service}",
            "",
            f"Exported by {catalogue.where}.",
            "",
            "| name | type | unit | labels | meaning |",
            "|---|---|---|---|---|",
            *map(_row, catalogue.metrics.values()),
            "",
        ]
    lines += [
        "## Labels",
        "",
        "No label holds a uid, a text or an address, so the number of series is bounded.",
        "",
        "| label | values |",
        "|---|---|",
        *(f"| `{label}` | {values} |" for label, values in sorted(LABELS.items())),
        "",
        "## metrics.jsonl, TensorBoard and Weights & Biases",
        "",
        "The learner's record of a step goes to all of them and to Prometheus from one place, under verl's names. "
        "Where Prometheus has each number:",
        "",
        "| name | series |",
        "|---|---|",
        *(f"| `{key}` | {_code(series)} |" for key, series in sorted(_where().items())),
        "| any other | `golongrl_learner_other` with the name as its label `name` |",
        "",
    ]
    return "\n".join(lines)


def _where() -> dict[str, str]:
    shown = {each.key: _with(each.metric, dict(each.fixed)) for each in learner.SHOWN}
    return shown | {key + ("*" if key.endswith("/") else ""): series for key, series in learner.ELSEWHERE.items()}


def _with(metric: Metric, fixed: dict[str, str]) -> str:
    labels = ", ".join(f'{label}="{value}"' for label, value in fixed.items())
    return metric.exported + (f"{{{labels}}}" if labels else "")


def _code(series: str) -> str:
    name, _, rest = series.partition(" ")
    return f"`{name.rstrip(',')}`{',' if name.endswith(',') else ''}{' ' + rest if rest else ''}"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    extra = f" On no dashboard: {metric.off_panel}." if metric.off_panel else ""
    return f"| `{metric.exported}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning}{extra} |"


def records() -> list[dict[str, object]]:
    """As JSON: one object a metric."""
    return [
        {
            "name": metric.exported,
            "service": catalogue.service,
            "type": str(metric.kind),
            "unit": metric.unit,
            "labels": list(metric.labels),
            "meaning": metric.meaning,
            **({"buckets": list(getattr(metric, "buckets", ()))} if metric.kind is Kind.HISTOGRAM else {}),
        }
        for catalogue, metric in every()
    ]
