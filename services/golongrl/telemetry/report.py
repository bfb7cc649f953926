"""The run report: one self-contained HTML page made of pictures, from `metrics.jsonl` and the resolved recipe.

What it answers, in this order: did reward rise, for which task types, was staleness held, where did the time go, how
much was generated. Nothing is fetched when it is opened.
"""

import html
import math
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from golongrl import files
from golongrl.recipe import Recipe
from golongrl.tasks import TASKS
from golongrl.telemetry import history as runs
from golongrl.telemetry.history import History

FILE = "report.html"
_TITLE = "GoLongRL · "
# Okabe and Ito's palette: nine task types have to stay apart for every reader.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#B8A200", "#555555")
# Steps of the moving average drawn over the raw rewards of a task type.
SMOOTHING = 5

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f6f7f9;color:#1c2733}
main{max-width:1100px;margin:0 auto;padding:28px 20px 60px}
h1{margin:0;font-size:28px} h2{margin:36px 0 8px;font-size:20px} p.sub{margin:2px 0 20px;color:#5a6875}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px}
.card{background:#fff;border-radius:10px;padding:14px 16px;box-shadow:0 1px 3px #0001}
.card b{display:block;font-size:20px;white-space:nowrap} .card span{color:#5a6875;font-size:13px}
.plot{background:#fff;border-radius:10px;padding:8px;box-shadow:0 1px 3px #0001}
pre{background:#fff;border-radius:10px;padding:16px;overflow:auto;font-size:13px}
.note{color:#5a6875;font-size:14px;margin:4px 0 10px}
"""


def smooth(values: list[float], window: int = SMOOTHING) -> list[float]:
    """Trailing mean over the last `window` values that are not NaN."""
    out = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        out.append(runs.mean(recent))
    return out


def _style(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 55, "r": 20, "t": 40, "b": 45},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.12},
    )


def _trend(figure: go.Figure, steps: list[int], values: list[float], colour: str, name: str, **place: int) -> None:
    faint = {"color": colour, "size": 5, "opacity": 0.35}
    figure.add_trace(
        go.Scatter(x=steps, y=values, mode="markers", marker=faint, name=f"{name}, a step", showlegend=False), **place
    )
    line = {"color": colour, "width": 3}
    figure.add_trace(
        go.Scatter(x=steps, y=smooth(values), mode="lines", line=line, name=name, showlegend=not place), **place
    )


def reward_figure(history: History) -> go.Figure:
    """Mean reward of every step."""
    figure = go.Figure()
    _trend(figure, history.steps, history.series(runs.REWARD), PALETTE[0], f"mean reward ({SMOOTHING}-step average)")
    held_out = zip(history.steps, history.series(runs.VALIDATION), strict=True)
    validated = [(step, value) for step, value in held_out if not math.isnan(value)]
    if validated:
        steps, values = zip(*validated, strict=True)
        line = {"color": PALETTE[1], "width": 3}
        figure.add_trace(go.Scatter(x=steps, y=values, mode="lines+markers", line=line, name="held-out prompts"))
    figure.update_xaxes(title="step").update_yaxes(title="mean reward", rangemode="tozero")
    return _style(figure, 340)


def task_figure(history: History) -> go.Figure:
    """A small panel for each task type, all on the same scale."""
    tasks = history.tasks()
    columns = 3
    rows = max(1, math.ceil(len(tasks) / columns))
    metrics = {task.type: task.metric for task in TASKS}
    titles = [f"{task} · {metrics.get(task, task)}" for task in tasks]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, shared_xaxes=True, shared_yaxes=True, vertical_spacing=0.09
    )
    for index, task in enumerate(tasks):
        values = history.task(task)
        colour = PALETTE[index % len(PALETTE)]
        _trend(figure, history.steps, values, colour, task, row=index // columns + 1, col=index % columns + 1)
    figure.update_yaxes(range=[-0.03, 1.03])
    return _style(figure, 80 + 210 * rows).update_layout(hovermode="closest")


def staleness_figure(history: History, bound: int) -> go.Figure:
    """Staleness of the trained groups beside the bound that was promised."""
    figure = go.Figure()
    steps = history.steps
    figure.add_trace(go.Bar(x=steps, y=history.series("staleness/max"), name="worst group", marker_color=PALETTE[5]))
    mean_line = {"color": PALETTE[0], "width": 3}
    figure.add_trace(go.Scatter(x=steps, y=history.series("staleness/mean"), name="mean", line=mean_line))
    figure.add_hline(bound, line={"color": PALETTE[1], "dash": "dash"}, annotation_text=f"bound: {bound}")
    figure.update_xaxes(title="step").update_yaxes(title="versions late", rangemode="tozero", range=[0, bound + 0.5])
    return _style(figure, 300)


def time_figure(history: History) -> go.Figure:
    """Where a step's wall time went."""
    figure = go.Figure()
    phases = [key for key in history.keys("timing_s/") if key != "timing_s/step"]
    for index, key in enumerate(phases):
        colour = PALETTE[index % len(PALETTE)]
        name = key.removeprefix("timing_s/")
        figure.add_trace(go.Bar(x=history.steps, y=history.series(key), name=name, marker_color=colour))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="step").update_yaxes(title="seconds")
    return _style(figure, 340)


def throughput_figure(history: History) -> go.Figure:
    """Trained tokens a second, and the groups that engines hold."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    steps = history.steps
    tokens, depth = history.series("perf/throughput"), history.series("queue/leased")
    figure.add_trace(go.Scatter(x=steps, y=tokens, name="tokens/s trained", line={"color": PALETTE[2], "width": 3}))
    dots = {"color": PALETTE[3], "width": 2, "dash": "dot"}
    figure.add_trace(go.Scatter(x=steps, y=depth, name="groups being generated", line=dots), secondary_y=True)
    figure.update_xaxes(title="step").update_yaxes(title="tokens/s", rangemode="tozero", secondary_y=False)
    most = max((groups for groups in depth if not math.isnan(groups)), default=0)
    # Whole groups: an axis of its own would show thousandths where engines hold none.
    whole = {"tickmode": "auto", "tickformat": "d", "showgrid": False}
    figure.update_yaxes(title="groups", range=[0, 1.05 * max(4, most)], secondary_y=True, **whole)
    return _style(figure, 300).update_layout(margin_r=55)


def optimiser_figure(history: History) -> go.Figure:
    """The loss's side: gradient norm, clipped share, policy's drift and entropy."""
    keys = ("actor/grad_norm", "actor/pg_clipfrac", "actor/ppo_kl", "actor/entropy_loss")
    figure = make_subplots(1, len(keys), subplot_titles=[key.removeprefix("actor/") for key in keys])
    for column, key in enumerate(keys, start=1):
        _trend(figure, history.steps, history.series(key), PALETTE[column], key, row=1, col=column)
    figure.update_yaxes(rangemode="tozero")
    return _style(figure, 260).update_layout(hovermode="closest")


def cards(history: History, recipe: Recipe) -> list[tuple[str, str]]:
    """The figures worth a glance: (value, what it is)."""
    first, last = history.change()
    seconds = [value for value in history.series("timing_s/step") if not math.isnan(value)]
    worst = max((value for value in history.series("staleness/max") if not math.isnan(value)), default=math.nan)
    found = [
        (f"{first:.2f} → {last:.2f}", "mean reward, first to last five steps"),
        (str(sum(step > 0 for step in history.steps)), "optimizer steps"),
        (str(len(history.tasks())), "task types trained"),
        (f"{worst:.0f} ≤ {recipe.queue.max_staleness}", "worst staleness and its bound"),
        (f"{sum(seconds) / 60:.1f} min", "in steps"),
    ]
    workers = [(key.removeprefix("groups_from/"), history.series(key)) for key in history.keys("groups_from/")]
    counts = [f"{sum(v for v in values if not math.isnan(v)):.0f}" for _, values in workers]
    if workers:
        found.append((" + ".join(counts), f"groups from {', '.join(name for name, _ in workers)}"))
    return found


def _section(name: str, note: str, figure: go.Figure) -> str:
    plot = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    return f'<h2>{name}</h2><p class="note">{note}</p><div class="plot">{plot}</div>'


def render(history: History, recipe: Recipe, run: str, recipe_yaml: str) -> str:
    """The whole page. A history without steps gives a page that says so."""
    title = f"{_TITLE}{html.escape(run)}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    about = f"recipe {recipe.name} · {recipe.algorithm.estimator} · {html.escape(recipe.model.path)}"
    intro = f'<h1>{title}</h1><p class="sub">{about}</p>'
    source = f"<h2>Recipe</h2><pre>{html.escape(recipe_yaml)}</pre>"
    if not history.records:
        return f"{head}<main>{intro}<p>No step has finished yet.</p>{source}</main></html>"
    glance = "".join(
        f'<div class="card"><b>{value}</b><span>{what}</span></div>' for value, what in cards(history, recipe)
    )
    plots = (
        ("Reward", "Every response is scored by its task's own metric, from 0 to 1.", reward_figure(history)),
        ("Reward by task type", "Dots are single steps, lines their moving average.", task_figure(history)),
        (
            "Staleness",
            "Policy versions between sampling and training.",
            staleness_figure(history, recipe.queue.max_staleness),
        ),
        ("Time per phase", "What the learner did in each step.", time_figure(history)),
        ("Throughput", "What was trained, and what was being generated meanwhile.", throughput_figure(history)),
        (
            "Optimizer",
            "Signs of a healthy update. With one update a batch, from log-probs computed anew, "
            "pg_clipfrac and ppo_kl are 0.",
            optimiser_figure(history),
        ),
    )
    body = "".join(_section(name, note, figure) for name, note, figure in plots)
    script = f"<script>{get_plotlyjs()}</script>"
    return f'{head}{script}<main>{intro}<div class="cards">{glance}</div>{body}{source}</main></html>'


def is_another(folder: Path) -> bool:
    """Whether the folder has a file of the report's name that no run of this program wrote."""
    try:
        with (folder / FILE).open("rb") as file:
            return _TITLE.encode() not in file.read(400)
    except FileNotFoundError:
        return False


def write(folder: Path, recipe: Recipe, recipe_yaml: str) -> Path:
    """Write `report.html` of the run in `folder` from its `metrics.jsonl`; returns its path.

    Raises:
        OSError: the storage refused; an earlier report is as it was.
    """
    out = folder / FILE
    files.write_text(out, render(runs.read(folder / "metrics.jsonl"), recipe, folder.name, recipe_yaml))
    return out
