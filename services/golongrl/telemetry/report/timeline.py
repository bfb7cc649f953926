"""One picture of all processes over time: who worked, who waited for whom, and what happened to the engines."""

from collections.abc import Iterable

import plotly.graph_objects as go

from golongrl.telemetry.report.gather import RunTimeline
from golongrl.telemetry.report.style import styled, text

# State of a process, by its beginning -> what it means, and its colour. The first that fits counts.
_STATES = (
    ("waiting: full", "waits for the learner", "#E69F00"),
    ("waiting: behind", "waits for the learner", "#E69F00"),
    ("waiting: bytes", "waits for the learner", "#E69F00"),
    ("waiting: no_rows", "waits for the learner", "#E69F00"),
    ("waiting: weights", "waits for the learner", "#E69F00"),
    ("waiting: setup", "waits for the learner", "#E69F00"),
    ("waiting: engine", "waits for its engine", "#D55E00"),
    ("waiting: reward", "waits for rewards", "#CC79A7"),
    ("waiting: queue", "waits for Redis", "#7f3fbf"),
    ("waiting", "waits for groups", "#56B4E9"),
    ("silent", "does not report", "#b00020"),
    ("quarantined", "quarantined", "#b00020"),
    ("adopting", "takes weights", "#9a6bb8"),
    ("generating", "generates", "#009E73"),
    ("scoring", "scores", "#B8A200"),
    ("updating", "updates", "#1f83c4"),
    ("validating", "validates", "#8c6d62"),
    ("saving", "saves or publishes", "#B8A200"),
    ("publishing", "saves or publishes", "#B8A200"),
    ("idle", "", ""),
)
_OTHER = ("starts or ends", "#bbbbbb")
# Pixels of a row and of what surrounds the rows.
_ROW, _AROUND = 34, 270


def meaning(state: str) -> tuple[str, str]:
    """What a state means and its colour; nothing for one that is not drawn."""
    return next(((words, colour) for begin, words, colour in _STATES if state.startswith(begin)), _OTHER)


def figures(timeline: RunTimeline) -> list[go.Figure]:
    """The newest part of the run, and the shares of all of it."""
    if not timeline.spans:
        return []
    order = _order(who for who, *_ in timeline.spans)
    spans: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    for who, state, begin, end in timeline.spans:
        if (known := meaning(state))[0]:
            spans.setdefault(known, []).append((text(who), (begin - timeline.begin) / 60, (end - begin) / 60))
    drawn = go.Figure()
    for (words, colour), found in spans.items():
        rows, begins, lengths = zip(*found, strict=True)
        drawn.add_trace(
            go.Bar(
                y=rows, x=lengths, base=begins, orientation="h", name=words,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{y}: " + words + "<br>from minute %{base:.1f}, %{x:.1f} min<extra></extra>",
            )
        )  # fmt: skip
    if timeline.marks:
        marks = [(text(who), mark, (at - timeline.begin) / 60) for who, mark, at in timeline.marks]
        drawn.add_trace(
            go.Scatter(
                y=[who for who, _, _ in marks], x=[at for _, _, at in marks], text=[mark for _, mark, _ in marks],
                mode="markers", name="event",
                marker={"symbol": "line-ns-open", "size": 13, "color": "#888888", "line": {"width": 2}},
                hovertemplate="%{y} %{text}<extra></extra>",
            )
        )  # fmt: skip
    drawn.update_layout(barmode="overlay").update_xaxes(title="minutes")
    return [_rows(drawn, order), _shares(timeline, order)]


def _shares(timeline: RunTimeline, order: list[str]) -> go.Figure:
    """Of the whole run: the share of each process's time in each state."""
    figure, seen = go.Figure(), dict[tuple[str, str], dict[str, float]]()
    for who, shares in timeline.shares.items():
        whole = sum(shares.values()) or 1.0
        for state, seconds in shares.items():
            row = seen.setdefault(meaning(state), {})
            row[text(who)] = row.get(text(who), 0.0) + seconds / whole
    for (words, colour), row in seen.items():
        if words:
            figure.add_trace(
                go.Bar(
                    y=list(row), x=list(row.values()), orientation="h", name=words, marker={"color": colour},
                    hovertemplate="%{y}: " + words + " %{x:.0%}<extra></extra>",
                )
            )  # fmt: skip
    figure.update_layout(barmode="stack").update_xaxes(title="share of the whole run", tickformat=".0%", range=[0, 1])
    return _rows(figure, order)


def _rows(figure: go.Figure, order: list[str]) -> go.Figure:
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], automargin=True)
    return styled(figure, _AROUND + _ROW * len(order)).update_layout(hovermode="closest", bargap=0.25)


def _order(names: Iterable[str]) -> list[str]:
    """The learner, the workers, the reward service."""
    place = {"learner": 0, "reward": 2}
    return [text(name) for name in sorted(set(names), key=lambda name: (place.get(name, 1), name))]
