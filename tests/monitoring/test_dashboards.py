"""The dashboards: complete, described, and about metrics that exist."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import promql_parser
import pytest
from typer.testing import CliRunner

from golongrl.monitoring.catalogues import every
from golongrl.monitoring.command import dashboards as app
from golongrl.monitoring.dashboards.pages import PAGES
from golongrl.monitoring.dashboards.panels import Page
from golongrl.monitoring.dashboards.render import ANNOTATIONS
from support.promql import concrete, names

FILES = Path(__file__).parents[2] / "charts" / "golongrl" / "files" / "dashboards"
SERIES = {name: metric for _, metric in every() for name in metric.series}
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.slug)


def written(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / f"{page.slug}.json").read_text())
    return found


def expressions(page: Page) -> list[str]:
    return [query.expr for panel in page.panels for query in panel.queries]


def test_the_files_are_the_pages() -> None:
    assert {path.stem for path in FILES.glob("*")} == {page.slug for page in PAGES}
    assert len({written(page)["uid"] for page in PAGES}) == len(PAGES) == 7


@by_page
def test_every_panel_is_described_and_parses(page: Page) -> None:
    shown = [panel for panel in written(page)["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in shown] == [panel.title for panel in page.panels]
    for panel in shown:
        assert panel["description"].endswith(".")
        for target in panel["targets"]:
            promql_parser.parse(concrete(target["expr"]))
            assert target["legendFormat"]
    titles = [panel.title for panel in page.panels]
    assert len(titles) == len(set(titles))


@by_page
def test_panels_do_not_overlap(page: Page) -> None:
    panels = written(page)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


@by_page
def test_queries_ask_for_series_that_are_exported_of_one_release(page: Page) -> None:
    for expression in [*expressions(page), *(each[2] for each in ANNOTATIONS)]:
        asked = names(expression)
        assert asked, expression
        assert asked - {"ALERTS"} <= set(SERIES), expression
        selected = re.findall(r"(?:golongrl_|sglang:)\w+\{([^}]*)\}", expression)
        assert len(selected) >= len(asked - {"ALERTS"}), expression
        for matchers in selected:
            assert 'namespace="$namespace"' in matchers
            assert 'pod=~"$pod"' in matchers or 'pod=~"$release-' in matchers


@by_page
def test_labels_that_a_query_names_are_those_of_the_metric(page: Page) -> None:
    target = {"namespace", "pod", "run"}
    for expression in expressions(page):
        for name, matchers in re.findall(r"((?:golongrl_|sglang:)\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)(?:=~|!=|=)", matchers)) - target
            assert used <= set(SERIES[name].labels), expression


def test_every_metric_is_on_a_panel_or_says_why_not() -> None:
    shown = {SERIES[name].name for page in PAGES for each in expressions(page) for name in names(each) - {"ALERTS"}}
    for _, metric in every():
        assert (metric.name in shown) != bool(metric.off_panel), metric.name


@by_page
def test_a_page_has_its_variables_links_and_annotations(page: Page) -> None:
    file = written(page)
    variables = [variable["name"] for variable in file["templating"]["list"]]
    assert variables == ["datasource", "traces", "namespace", "release", "run", *(["pod"] if page.pods else [])]
    used = set(re.findall(r"\$(\w+)", json.dumps(file["panels"]) + json.dumps(file["annotations"])))
    assert used <= set(variables) | {"__rate_interval", "__interval"}
    assert [link["type"] for link in file["links"]] == ["dashboards", "link", "link"]
    assert file["links"][0]["tags"] == file["tags"] == ["golongrl"]
    assert file["links"][0]["includeVars"]
    assert {each["name"] for each in file["annotations"]["list"]} == {each[0] for each in ANNOTATIONS}
    for each in file["annotations"]["list"]:
        promql_parser.parse(concrete(each["expr"]))


def test_histograms_ask_for_exemplars_and_a_link_leads_to_the_runs_traces() -> None:
    targets = [target for page in PAGES for panel in written(page)["panels"] for target in panel.get("targets", [])]
    asking = {target["expr"] for target in targets if target.get("exemplar")}
    assert any("golongrl_rollout_generation_seconds_bucket" in each for each in asking)
    assert asking == {target["expr"] for target in targets if "_bucket" in target["expr"]}
    for page in PAGES:
        (link,) = [link for link in written(page)["links"] if link["title"] == "Traces"]
        pane = json.loads(unquote(link["url"]).partition("panes=")[2])["traces"]
        assert pane["datasource"] == "${traces}"
        assert pane["queries"][0]["query"] == '{resource.rl.run.id=~"${run:regex}"}'


def test_thresholds_reach_the_file() -> None:
    panels = {panel["title"]: panel for page in PAGES for panel in written(page)["panels"]}
    steps = panels["KV cache in use"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps == [{"color": "green", "value": None}, {"color": "red", "value": 0.95}]


def test_dashboards_are_exported(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{page.slug}.json" for page in PAGES}
    mine = tmp_path / "new" / "overview.json"
    assert json.loads(mine.read_text())["uid"] == "golongrl-overview"
    assert CliRunner().invoke(app, ["export", str(tmp_path / "new")]).exit_code == 0  # again: they are its own
    mine.write_text('{"uid": "mine"}')
    refused = CliRunner().invoke(app, ["export", str(tmp_path / "new")])
    assert refused.exit_code != 0
    assert "overview.json" in str(refused.exception)
    assert mine.read_text() == '{"uid": "mine"}'
