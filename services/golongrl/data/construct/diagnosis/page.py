"""report.html of a construction: one self-contained page of pictures over the numbers of report.json."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from golongrl.data.construct.contamination.stage import BEYOND
from golongrl.data.construct.diagnosis.facts import UNKNOWN
from golongrl.data.construct.diagnosis.summary import PARTS
from golongrl.telemetry.report import PALETTE, STYLE, plotly_script, section, small, styled

_TITLE: Final = "GoLongRL data · "
_MORE_STYLE: Final = """
h1{margin-bottom:16px} .wide{margin:8px 0} table{box-shadow:0 1px 3px #0001}
th,td{text-align:right;white-space:nowrap}
th:first-child,td:first-child,.text{text-align:left} td.text{white-space:normal;min-width:240px}
"""
_NO_EVIDENCE: Final = "No row says what its evidence is."


def render(found: Mapping[str, Any], name: str) -> str:
    """The whole page."""
    title = f"{_TITLE}{html.escape(name)}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{_MORE_STYLE}</style></head>"
    )
    cards = [
        (str(found["rows"]), "rows to train on"),
        (str(len(found["tasks"])), "task types"),
        (" + ".join(f"{count} {lang}" for lang, count in found["languages"].items()) or "none", "languages"),
        (str(found["duplicates"]), "rows that repeat another"),
        (str(_removed(found["stages"])), "rows removed because a benchmark has them"),
    ]
    glance = "".join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>' for value, what in cards
    )
    parts = [
        f'<h1>{title}</h1><div class="cards">{glance}</div>',
        _stages(found["stages"]),
        section("Task types", "Rows beside what the pipeline asks for.", [_tasks(found)]),
        section("Length, difficulty, language", "Rows of each task type.", _splits(found)),
        section("Where the evidence stands", _evidence_note(found), _evidence(found)),
        section("Lengths", "Median and 90th percentile, in tokens.", _lengths(found)),
        _cells(found["cells"]),
    ]
    return f"{head}<body><main>{''.join(parts)}</main>{plotly_script()}</body></html>"


def _removed(stages: Sequence[Mapping[str, Any]]) -> int:
    reasons = (one["refused"] for one in stages if one["stage"] == "decontaminate")
    return sum(count for refused in reasons for reason, count in refused.items() if reason != BEYOND)


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{one['stage']}</td><td>{one['rows_in']}</td><td>{one['rows']}</td><td>{one['kept']}</td>"
        f'<td class="text">{html.escape(_reasons(one["refused"]))}</td></tr>'
        for one in stages
    )
    head = "<tr><th>stage</th><th>in</th><th>made</th><th>kept</th><th class='text'>left out, why</th></tr>"
    return f'<h2>Yield of every stage</h2><div class="wide"><table>{head}{rows}</table></div>'


def _reasons(refused: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in refused.items())


def _tasks(found: Mapping[str, Any]) -> go.Figure:
    tasks = sorted({*found["tasks"], *found["wanted"]})
    figure = go.Figure()
    made = [found["tasks"].get(task, 0) for task in tasks]
    wanted = [found["wanted"].get(task) for task in tasks]
    figure.add_trace(go.Bar(x=tasks, y=made, name="rows", marker_color=PALETTE[0]))
    mark = {"symbol": "line-ew-open", "size": 26, "line": {"width": 3, "color": PALETTE[1]}}
    figure.add_trace(go.Scatter(x=tasks, y=wanted, name="asked for", mode="markers", marker=mark))
    return styled(figure, 320)


def _splits(found: Mapping[str, Any]) -> list[go.Figure]:
    figures = []
    for key, title in (("length_bin", "length bin"), ("band", "difficulty band"), ("language", "language")):
        kinds = sorted({cell[key] for cell in found["cells"]})
        if kinds == [UNKNOWN]:
            continue  # nothing has measured it
        figure = go.Figure()
        tasks = sorted(found["tasks"])
        for index, kind in enumerate(kinds):
            counts = [
                sum(cell["rows"] for cell in found["cells"] if cell["task"] == task and cell[key] == kind)
                for task in tasks
            ]
            name = "not known" if kind == UNKNOWN else kind
            figure.add_trace(go.Bar(x=tasks, y=counts, name=name, marker_color=PALETTE[index % len(PALETTE)]))
        figure.update_layout(barmode="stack")
        figures.append(styled(figure, 280).update_layout(title={"text": title, "x": 0.5}, margin_t=40))
    return figures


def _evidence_note(found: Mapping[str, Any]) -> str:
    if not any(any(counts) for counts in found["evidence_position"].values()):
        return _NO_EVIDENCE
    return "From the start of the context (0 %) to its end; what only the start answers needs no long context."


def _evidence(found: Mapping[str, Any]) -> list[go.Figure]:
    figures = []
    for index, (task, counts) in enumerate(found["evidence_position"].items()):
        if any(counts):
            middles = [(part + 0.5) / PARTS for part in range(PARTS)]
            bars = go.Bar(x=middles, y=counts, width=1 / PARTS, marker_color=PALETTE[index % len(PALETTE)])
            figure = go.Figure(bars).update_xaxes(range=[0, 1], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
            figures.append(small(figure, f"{task} · {sum(counts)} passages"))
    return figures


def _lengths(found: Mapping[str, Any]) -> list[go.Figure]:
    figures = []
    for key, title in (("prompt_tokens", "prompt"), ("gold_tokens", "gold answer")):
        figure = go.Figure()
        for index, which in enumerate(("median", "p90")):
            values = {task: numbers[which] for task, numbers in found[key].items() if numbers}
            figure.add_trace(go.Bar(x=list(values), y=list(values.values()), name=which, marker_color=PALETTE[index]))
        figures.append(styled(figure, 280).update_layout(title={"text": title, "x": 0.5}, margin_t=40))
    return figures


def _cells(cells: Sequence[Mapping[str, Any]]) -> str:
    keys = ("task", "band", "length_bin", "language", "rows")
    head = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in keys)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell[key]))}</td>" for key in keys) + "</tr>" for cell in cells
    )
    return f'<h2>Every cell</h2><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
