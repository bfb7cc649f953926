"""Two runs beside each other, in one page."""

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from golongrl import files
from golongrl.errors import writing_to
from golongrl.recipe import Recipe
from golongrl.telemetry import history as runs
from golongrl.telemetry.report import figures
from golongrl.telemetry.report.gather import RunData, gather
from golongrl.telemetry.report.page import TITLE, about, glance
from golongrl.telemetry.report.style import PALETTE, cards, head, plotly_script, section, small, styled, text

# What is compared: keys of metrics.jsonl and their titles.
_SMALL: Mapping[str, str] = {
    runs.VALIDATION: "held-out reward",
    "staleness/mean": "staleness",
    "timing_s/step": "seconds a step",
    "timing_s/take": "seconds waiting for a batch",
    "perf/throughput": "tokens/s trained",
    "response_length/mean": "tokens of a response",
    "response_length/clip_ratio": "share cut off at the limit",
    "rewards/unscored_ratio": "share unscored",
    "actor/entropy_loss": "entropy",
    "actor/grad_norm": "gradient norm",
    "rollout_corr/kl": "KL, engine to learner",
}


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: Path
    recipe: Recipe

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def render(left: Side, right: Side, data: tuple[RunData, RunData]) -> str:
    """The whole page."""
    sides = (left, right)
    # Two folders may have the same name.
    names = (left.name, right.name) if left.name != right.name else (f"{left.name} (1)", f"{right.name} (2)")
    title = f"{TITLE}{names[0]} and {names[1]}"
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for name, side, found in zip(names, sides, data, strict=True):
        parts.append(f"<h2>{html.escape(name)}</h2><p class='sub'>{html.escape(about(side.folder))}</p>")
        parts.append(cards(glance(found, side.recipe)) if found.history.records else "<p>No step has finished yet.</p>")
    parts.append(_differences(names, left.recipe, right.recipe))
    reward = go.Figure()
    _both(reward, names, data, runs.REWARD)
    reward.update_xaxes(title="step").update_yaxes(title="mean reward", rangemode="tozero")
    parts.append(section("Reward", "Moving averages, with single steps as dots.", [styled(reward, 340)]))
    tasks = sorted({task for found in data for task in found.history.tasks()})
    drawn = [_small(names, data, runs.TYPE_PREFIX + task, text(task)) for task in tasks]
    parts.append(
        section(
            "Reward by task type",
            "On the same scale; the first run is blue, the second orange.",
            [_unit(each) for each in drawn],
        )
    )
    drawn = [_small(names, data, key, what) for key, what in _SMALL.items() if any(d.history.keys(key) for d in data)]
    parts.append(section("The rest", "The first run is blue, the second orange.", drawn))
    return f"{head(title)}<body><main>{''.join(parts)}</main>{plotly_script()}</body></html>"


def _both(figure: go.Figure, names: tuple[str, str], data: tuple[RunData, RunData], key: str) -> None:
    for index, (name, found) in enumerate(zip(names, data, strict=True)):
        points = [
            (s, v) for s, v in zip(found.history.steps, found.history.series(key), strict=True) if not math.isnan(v)
        ]
        if points:
            steps, values = zip(*points, strict=True)
            figures.trend(figure, list(steps), list(values), PALETTE[index], text(name))


def _small(names: tuple[str, str], data: tuple[RunData, RunData], key: str, title: str) -> go.Figure:
    figure = go.Figure()
    _both(figure, names, data, key)
    return small(figure.update_yaxes(rangemode="tozero"), title)


def _unit(figure: go.Figure) -> go.Figure:
    return figure.update_yaxes(range=[-0.03, 1.03])


def _differences(names: tuple[str, str], left: Recipe, right: Recipe) -> str:
    """A table of the recipe's keys that differ."""
    one, other = dict(_flat(left.model_dump(mode="json"))), dict(_flat(right.model_dump(mode="json")))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if not keys:
        return "<h2>Recipe</h2><p>Both runs have the same recipe.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(one.get(key)))}</td>"
        f"<td>{html.escape(str(other.get(key)))}</td></tr>"
        for key in keys
    )
    heading = f"<tr><th>key</th><th>{html.escape(names[0])}</th><th>{html.escape(names[1])}</th></tr>"
    return f'<h2>Recipe: what differs</h2><div class="wide"><table>{heading}{rows}</table></div>'


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def write(left: Side, right: Side, out: Path) -> Path:
    """Write the comparison to `out`; returns it.

    Raises:
        InputError: a file of a run cannot be read, or `out` not be written; an earlier file is as it was.
    """
    page = render(left, right, (gather(left.folder), gather(right.folder)))
    files.sweep_staged(out.parent)
    with writing_to(f"report {out}"):
        files.write_text(out, page)
    return out
