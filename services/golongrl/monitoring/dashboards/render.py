"""A page as Grafana's JSON, through grafana-foundation-sdk (of the group `lint`; only `make generate` imports this)."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models import prometheus as pm

from golongrl.monitoring.dashboards.panels import Page, Panel, of

TAG = "golongrl"
_SOURCE = dm.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _explore() -> str:
    """Grafana's page of traces, with the chosen runs' spans."""
    query = {"refId": "A", "queryType": "traceql", "query": '{resource.rl.run.id=~"RUN"}', "limit": 50}
    pane = {"datasource": "TRACES", "queries": [query], "range": {"from": "now-1h", "to": "now"}}
    asked = quote(json.dumps({"traces": pane}, separators=(",", ":")))
    # Grafana fills these in, so they stay as they are.
    return f"/explore?schemaVersion=1&panes={asked}".replace("TRACES", "${traces}").replace("RUN", "${run:regex}")


_TRACES_URL = _explore()

# Name, colour, expression, whether it is shown at first. Steps are many: they are off until someone asks.
ANNOTATIONS = (
    ("Optimizer steps", "blue", f"changes({of('learner', 'golongrl_learner_step')}[$__interval]) > 0", False),
    (
        "Weights adopted",
        "green",
        f"sum(changes({of('rollout', 'golongrl_rollout_engine_version')}[$__interval])) > 0",
        False,
    ),
    (
        "Engine restarts",
        "orange",
        f"increase({of('rollout', 'golongrl_rollout_engine_restarts_total')}[$__rate_interval]) > 0",
        True,
    ),
    (
        "Learner restarts",
        "purple",
        f"resets({of('learner', 'golongrl_learner_steps_total')}[$__rate_interval]) > 0",
        True,
    ),
    ("Alerts", "red", 'ALERTS{alertname=~"Golongrl.*",alertstate="firing",namespace="$namespace"}', True),
)


def text(page: Page) -> str:
    """The file's text."""
    return json.dumps(_dashboard(page).build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _dashboard(page: Page) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(f"GoLongRL: {page.title}")
        .uid(page.uid)
        .description(page.description)
        .tags([TAG])
        .editable()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(dm.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(page))
        .annotations([_annotation(*each) for each in ANNOTATIONS])
        .link(
            dashboard.DashboardLink("GoLongRL")
            .type(dm.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .link(
            dashboard.DashboardLink("Runbook")
            .type(dm.DashboardLinkType.LINK)
            .icon("doc")
            .tooltip("What to do about an alert")
            .url("https://github.com/golongrl/golongrl/blob/main/docs/runbook.md")
            .target_blank(True)
        )
        .link(
            dashboard.DashboardLink("Traces")
            .type(dm.DashboardLinkType.LINK)
            .icon("bolt")
            .tooltip("Groups and steps of the chosen runs, where the recipe has telemetry.otlp_endpoint")
            .url(_TRACES_URL)
            .keep_time(True)
            .target_blank(True)
        )
    )
    number = 0
    for row in page.rows:
        number += 1
        made.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return made


def _variables(page: Page) -> list[Builder[dm.VariableModel]]:
    namespace = 'namespace="$namespace"'
    found: list[Builder[dm.VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        dashboard.DatasourceVariable("traces").label("Traces").type("tempo"),
        _query("namespace", "Namespace", "label_values(golongrl_rollout_engine_version, namespace)"),
        _query("release", "Release", f"label_values(golongrl_rollout_engine_version{{{namespace}}}, pod)").regex(
            "/(.*)-rollout-.*/"
        ),
        _query(
            "run",
            "Run",
            f'label_values(golongrl_rollout_engine_version{{{namespace},pod=~"$release-rollout-.*"}}, run)',
        )
        .include_all(True)
        # Also what was scraped without the label.
        .all_value(".*")
        .multi(True),
    ]
    if page.pods is not None:
        metric = {"reward": "golongrl_reward_workers_warm", "learner": "golongrl_learner_step"}.get(
            page.pods, "golongrl_rollout_engine_version"
        )
        found.append(
            _query("pod", "Pod", f'label_values({metric}{{{namespace},pod=~"$release-{page.pods}-.*"}}, pod)')
            .include_all(True)
            .multi(True)
        )
    return found


def _query(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dm.VariableSort.ALPHABETICAL_ASC)
    )


def _annotation(name: str, colour: str, expr: str, shown: bool) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(_SOURCE).enable(shown).icon_color(colour).expr(expr)


Built = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel


def _panel(panel: Panel) -> Built:
    made: Built
    match panel.kind:
        case "stat":
            made = _stat(panel)
        case "states":
            made = statetimeline.Panel().merge_values(True)
        case "table":
            made = table.Panel()
        case _:
            made = _lines(panel)
    made.title(panel.title).description(panel.description).datasource(_SOURCE)
    made.span(panel.width).height(panel.height).unit(panel.unit)
    if panel.thresholds:
        made.thresholds(_thresholds(panel.thresholds))
    if panel.highest is not None:
        made.min(0).max(panel.highest)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        if panel.kind == "table":
            target.instant().format(pm.PromQueryFormat.TABLE)
        else:
            # Exemplars are the points of histograms that lead to a trace.
            target.range().exemplar("_bucket" in query.expr)
        made.with_target(target)
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(cm.LegendDisplayMode.LIST)
            .placement(cm.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
    )
    if panel.kind in ("stacked", "percent"):
        mode = cm.StackingMode.NORMAL if panel.kind == "stacked" else cm.StackingMode.PERCENT
        made.fill_opacity(40).stacking(common.StackingConfig().mode(mode).group("A"))
    if panel.thresholds:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(cm.GraphThresholdsStyleMode.DASHED))
    return made


def _stat(panel: Panel) -> stat.Panel:
    colour = cm.BigValueColorMode.BACKGROUND if panel.thresholds else cm.BigValueColorMode.NONE
    return (
        stat.Panel()
        .color_mode(colour)
        .graph_mode(cm.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _thresholds(steps: Sequence[tuple[float, str]]) -> dashboard.ThresholdsConfig:
    # Grafana wants a first step without a value.
    first = dm.Threshold(value=None, color="green" if steps[0][1] != "green" else "red")
    return (
        dashboard.ThresholdsConfig()
        .mode(dm.ThresholdsMode.ABSOLUTE)
        .steps([first, *(dm.Threshold(value=value, color=colour) for value, colour in steps)])
    )
