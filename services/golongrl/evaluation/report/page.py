"""`report.html` of an evaluation: one self-contained page, in the style of a run's report.

What it answers, in this order: the score of each benchmark with its error and in both readings, how it changes over the
steps of a run, the paper's table beside ours, by length, needles and domain, what has no score and why, what it cost,
and how the worst samples read. Every text of a model or a data file is escaped.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

from golongrl.evaluation import aggregate
from golongrl.evaluation.report import paper
from golongrl.evaluation.store.journal import SampleEntry, read_record
from golongrl.telemetry.report import PALETTE, STYLE, plotly_script, section, small, styled

FILE: Final = "report.html"
_TITLE: Final = "GoLongRL evaluation · "
# Of each benchmark, and how much of their texts.
_WORST: Final = 3
_QUESTION: Final = 600
_ANSWER: Final = 600
_REPLY_END: Final = 1500
# 95 % of a normal distribution.
_Z: Final = 1.96
_MORE_STYLE: Final = """
.scroll{overflow-x:auto;margin:8px 0}
th,td{padding:6px 10px;text-align:right;white-space:nowrap}
th.text,td.text{text-align:left;white-space:normal;overflow-wrap:normal;min-width:90px} td.long{min-width:240px}
details{background:var(--card);border-radius:10px;padding:10px 16px;margin:8px 0;box-shadow:0 1px 3px #0001}
summary{cursor:pointer;overflow-wrap:anywhere} details pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:8px 0}
"""
# Longer cells are sentences.
_LONG: Final = 60


def render(found: Mapping[str, Any], worst: Sequence[Mapping[str, Any]]) -> str:
    """The whole page from `results.json` and the worst samples of its last point."""
    title = f"{_TITLE}{html.escape(str(found['suite']))}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{_MORE_STYLE}</style></head>"
    )
    judge = found["judge"] or "none"
    when = f"{found['started'][:16].replace('T', ' ')} UTC"
    what = f"target {found['target']} · mode {found['mode']} · judge {judge} · {when} · golongrl {found['version']}"
    intro = f'<h1>{title}</h1><p class="sub">{html.escape(what)}</p>'
    points = found["points"]
    if not points:
        return f"{head}<body><main>{intro}<p>Nothing was asked yet.</p></main></body></html>"
    last = points[-1]
    parts = [
        intro,
        _scores(points),
        _figures(points, last),
        _paper(points),
        _groups(last),
        _failures(last),
        _cost(points),
        _settings(last),
        _samples(worst),
    ]
    return f"{head}<body><main>{''.join(parts)}</main>{plotly_script()}</body></html>"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """An HTML table of escaped cells; columns before `numbers_from` hold text, and are aligned like it."""

    def cell(tag: str, column: int, content: str) -> str:
        kinds = " ".join(["text"] * (column < numbers_from) + ["long"] * (len(content) > _LONG))
        return f'<{tag} class="{kinds}">{html.escape(content)}</{tag}>'

    head = "".join(cell("th", column, title) for column, title in enumerate(titles))
    body = "".join(f"<tr>{''.join(cell('td', column, text) for column, text in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _per_point(
    points: Sequence[Mapping[str, Any]], titles: Sequence[str], rows: Iterable[tuple[str, str, Sequence[str]]]
) -> str:
    """A table of (benchmark, model, cells); one model needs no column."""
    if len(points) < 2:
        return table(["benchmark", *titles], ([benchmark, *cells] for benchmark, _, cells in rows))
    return table(["benchmark", "model", *titles], ([benchmark, model, *cells] for benchmark, model, cells in rows), 2)


def _heading(name: str, note: str) -> str:
    return f'<h2>{html.escape(name)}</h2><p class="note">{html.escape(note)}</p>'


def _scores(points: Sequence[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, str, Sequence[str]]] = []
    missing: list[str] = []
    for point in points:
        for one in point["benchmarks"].values():
            total = one["rows"][0]
            error = "" if one["stderr"] is None else f" ± {percent(_Z * one['stderr'])}"
            value = "–" if one["why_no_value"] else f"{percent(one['value'])}{error}"
            kinds = [str(total[kind]) for kind in ("failed", "skipped", "unjudged", "truncated", "unparsed")]
            rule = one["figures"].get("rule")
            both = [percent(total["mean"]), percent(total["mean_scored"]), percent(rule)]
            cells = [value, *both, f"{one['asked']:,}/{one['expected']:,}", *kinds]
            rows.append((one["title"], point["name"], cells))
            if one["why_no_value"]:
                missing.append(f"{one['title']} ({point['name']}): {one['why_no_value']}")
    titles = ["score", "no score = 0", "scored only", "rules alone", "samples", "failed", "skipped", "unjudged",
              "truncated", "unparsed"]  # fmt: skip
    note = (
        "In percent, with a 95 % interval clustered by problem. “No score = 0” counts every sample; “scored only” "
        "leaves out those without a score. Truncated and unparsed samples are scored, as no answer."
    )
    why = "".join(f'<p class="note">{html.escape(line)}</p>' for line in missing)
    return _heading("Scores", note) + _per_point(points, titles, rows) + why


def _figures(points: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> str:
    parts = []
    steps = [point for point in points if point["step"] is not None]
    if len(steps) > 1:
        parts.append(section("Over the steps", "Each point is the weights of one step.", [curve(steps)]))
    lengths = [length_figure(one) for one in last["benchmarks"].values() if len(one["lengths"]) > 1]
    if lengths:
        note = "Score by length of the prompt before cutting, in tokens of the evaluated model."
        parts.append(section("By length", note, lengths))
    labels = [
        label_figure(one, label)
        for one in last["benchmarks"].values()
        for label in dict.fromkeys(row["label"] for row in one["rows"])
        if label != aggregate.TOTAL and sum(row["label"] == label for row in one["rows"]) > 1
    ]
    if labels:
        parts.append(section("By group", "Needles, domains and the benchmark's other groups.", labels))
    return "".join(parts)


def curve(points: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Every benchmark's score over the steps."""
    figure = go.Figure()
    names = list(dict.fromkeys(name for point in points for name in point["benchmarks"]))
    for index, name in enumerate(names):
        have = [point for point in points if point["benchmarks"].get(name, {}).get("value") is not None]
        ones = [point["benchmarks"][name] for point in have]
        figure.add_trace(
            go.Scatter(
                x=[point["step"] for point in have],
                y=[100 * one["value"] for one in ones],
                error_y={"type": "data", "array": [100 * _Z * (one["stderr"] or 0.0) for one in ones]},
                mode="lines+markers",
                name=name,
                line={"color": PALETTE[index % len(PALETTE)], "width": 3},
            )
        )
    figure.update_xaxes(title="step").update_yaxes(title="score, percent", rangemode="tozero")
    return styled(figure, 380)


def length_figure(one: Mapping[str, Any]) -> go.Figure:
    """Scores of one benchmark by prompt length."""
    return _bars(one["lengths"], one["title"], PALETTE[0])


def label_figure(one: Mapping[str, Any], label: str) -> go.Figure:
    """Scores of one benchmark by the groups of a label."""
    rows = [row for row in one["rows"] if row["label"] == label]
    return _bars(rows, f"{one['title']} by {label}", PALETTE[2])


def _bars(rows: Sequence[Mapping[str, Any]], title: str, colour: str) -> go.Figure:
    bar = go.Bar(
        x=[row["group"] for row in rows],
        y=[100 * (row["value"] or 0.0) for row in rows],
        error_y={"type": "data", "array": [100 * _Z * (row["stderr"] or 0.0) for row in rows]},
        text=[f"n={row['samples']}" for row in rows],
        marker_color=colour,
        # At the foot of a bar, where no error bar crosses it.
        textposition="inside",
        insidetextanchor="start",
        textangle=0,
    )
    figure = go.Figure(bar).update_yaxes(range=[0, 100]).update_xaxes(type="category")
    return small(figure, title)


def _paper(points: Sequence[Mapping[str, Any]]) -> str:
    def row(name: str, values: Sequence[float | None], average: float | None) -> list[str]:
        return [name, *("–" if value is None else f"{value:.1f}" for value in (average, *values))]

    rows = [row(f"{point['name']} (here)", list(point["paper"].values()), point["paper_average"]) for point in points]
    rows += [row(name, values, paper.average(values)) for name, values in paper.PUBLISHED.items()]
    note = "The columns that the papers average. The published rows were scored by the released evaluation (compat)."
    return _heading("The paper's table", note) + table(["model", "Avg", *paper.COLUMNS], rows)


def _groups(last: Mapping[str, Any]) -> str:
    rows = [
        [one["title"], row["label"], row["group"], percent(row["value"]), percent(row["stderr"]), str(row["samples"]),
         str(row["failed"]), str(row["skipped"]), str(row["unjudged"]), str(row["truncated"])]
        for one in last["benchmarks"].values()
        for row in (*one["rows"][1:], *one["lengths"])
    ]  # fmt: skip
    figures = [
        [one["title"], name, percent(value, 2)] for one in last["benchmarks"].values()
        for name, value in one["figures"].items()
    ]  # fmt: skip
    titles = ["benchmark", "by", "group", "score", "stderr", "samples", "failed", "skipped", "unjudged", "truncated"]
    found = f"<details><summary>All groups of {html.escape(last['name'])}</summary>{table(titles, rows, 3)}</details>"
    if figures:
        further = table(["benchmark", "figure", "value"], figures, 2)
        found += f"<details><summary>Further figures</summary>{further}</details>"
    return found


def _failures(last: Mapping[str, Any]) -> str:
    rows = [
        [one["title"], reason["status"], reason["reason"], f"{reason['samples']:,}"]
        for one in last["benchmarks"].values()
        for reason in one["failures"]
    ]
    if not rows:
        return _heading("Without a score", "Every sample has a score.")
    note = "They count in the denominator. Failed: no reply. Skipped: does not fit the context. Unjudged: no verdict."
    return _heading("Without a score", note) + table(["benchmark", "what", "reason", "samples"], rows, 3)


def _cost(points: Sequence[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, str, Sequence[str]]] = []
    for point in points:
        for one in point["benchmarks"].values():
            cost = one["cost"]
            names = ("requests", "prompt_tokens", "completion_tokens", "judge_tokens", "cut_prompts", "cut_tokens")
            hours = f"{cost['request_seconds'] / 3600:.2f}"
            rows.append((one["title"], point["name"], [*(f"{cost[name]:,}" for name in names), hours]))
    titles = ["requests", "prompt tokens", "answer tokens", "judge tokens", "prompts cut",
              "tokens cut", "hours of requests"]  # fmt: skip
    note = "Hours of requests add up over requests that run at the same time."
    return _heading("Cost", note) + _per_point(points, titles, rows)


def _settings(last: Mapping[str, Any]) -> str:
    rows = [
        [one["title"], "; ".join(one["departures"]) or "none", ", ".join(one["versions"]) or "–", str(one["outside"])]
        for one in last["benchmarks"].values()
    ]
    note = "Where this is not what the paper's evaluation does. Problems outside belong to another length bin."
    titles = ["benchmark", "departures", "policy versions", "outside"]
    return _heading("Settings", note) + table(titles, rows, 3)


def _samples(worst: Sequence[Mapping[str, Any]]) -> str:
    if not worst:
        return ""
    parts = [_heading("Worst samples", "The lowest scores of each benchmark, with the end of the reply.")]
    for record in worst:
        reply = record["reply"]
        fields = (
            ("question", record["question"][:_QUESTION]),
            ("gold", " | ".join(record["golds"])[:_ANSWER]),
            ("answer taken", record["answer"][:_ANSWER] or "(none)"),
            ("end of the reply", (reply["reasoning"] or "")[-200:] + reply["text"][-_REPLY_END:]),
        )
        body = "".join(f"<p class=note>{name}</p><pre>{html.escape(text)}</pre>" for name, text in fields)
        flags = ", ".join(record["flags"])
        name = f"{record['benchmark']} · {record['key']} · score {percent(record['score'])} · {flags or 'whole reply'}"
        parts.append(
            f"<details><summary>{html.escape(name)} · {html.escape(record['where'])}</summary>{body}</details>"
        )
    return "".join(parts)


def worst_of(entries: Iterable[SampleEntry]) -> list[SampleEntry]:
    """The samples with the lowest scores below 1."""
    scored = [entry for entry in entries if entry.sample.score is not None and entry.sample.score < 1.0]
    return sorted(scored, key=lambda entry: (entry.sample.score, *entry.key))[:_WORST]


def texts_of(path: Path, benchmark: str, entries: Iterable[SampleEntry]) -> list[dict[str, Any]]:
    """The records of the worst entries; the score is the final one, which a verdict may have changed."""
    return [
        {**read_record(path, entry), "benchmark": benchmark, "score": entry.sample.score} for entry in worst_of(entries)
    ]
