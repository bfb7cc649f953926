"""The run report: one self-contained HTML page made of pictures, from `metrics.jsonl` and the resolved recipe.

What it answers, in this order: did reward rise, for which task types, how long were responses and how many could not be
scored, was staleness held, do engines and learner agree on log-probs, where did the time go, how much was generated.
Nothing is fetched when it is opened. Pictures that belong together are figures of their own in a grid, which has fewer
columns on a narrow screen. Every string of a run (names of runs, workers, models) is escaped.
"""

import base64
import gzip
import html
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from golongrl import files
from golongrl.recipe import Recipe
from golongrl.tasks import TASKS
from golongrl.telemetry import history as runs
from golongrl.telemetry.history import History
from golongrl.telemetry.run_info import RunInfo

FILE = "report.html"
_TITLE = "GoLongRL · "
# Okabe and Ito's palette: nine task types have to stay apart for every reader.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#B8A200", "#555555")
# Keys of a record -> titles of their pictures.
MISMATCH = {
    "rollout_corr/kl": "KL, engine to learner",
    "rollout_corr/log_ppl_abs_diff": "|difference| of log perplexity",
    "rollout_corr/rollout_is_eff_sample_size": "effective sample size",
}
OPTIMIZER = {
    "actor/grad_norm": "gradient norm",
    "actor/pg_clipfrac": "clipped share",
    "actor/ppo_kl": "KL of the update",
    "actor/entropy_loss": "entropy",
}
# Steps of the moving average drawn over the raw rewards of a task type.
SMOOTHING = 5

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f6f7f9;color:#1c2733}
main{max-width:1100px;margin:0 auto;padding:28px 20px 60px}
h1{margin:0;font-size:clamp(20px,5vw,28px);overflow-wrap:anywhere}
h2{margin:36px 0 8px;font-size:20px} p.sub{margin:2px 0 20px;color:#5a6875;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.card{background:#fff;border-radius:10px;padding:14px 16px;box-shadow:0 1px 3px #0001;overflow-wrap:anywhere}
.card b{display:block;font-size:20px} .card span{color:#5a6875;font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:12px}
.plot{background:#fff;border-radius:10px;padding:8px;box-shadow:0 1px 3px #0001;min-width:0;overflow:hidden}
pre{background:#fff;border-radius:10px;padding:16px;overflow:auto;font-size:13px}
.note{color:#5a6875;font-size:14px;margin:4px 0 10px}
"""

# Plotly is 4.8 MB as text and 1.5 MB compressed: browsers decompress it themselves. Figures are drawn once it is there.
LOADER = """
(async () => {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
  for (const element of document.querySelectorAll("script.figure")) {
    const figure = JSON.parse(element.textContent);
    Plotly.newPlot(element.parentElement, figure.data, figure.layout, {displayModeBar: false, responsive: true});
  }
})();
"""


def smooth(values: list[float], window: int = SMOOTHING) -> list[float]:
    """Trailing mean over the last `window` values that are not NaN."""
    out = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        out.append(runs.mean(recent))
    return out


def styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 50, "r": 15, "t": 20, "b": 45},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="x unified",
        # Below the picture, where it may take as many lines as a narrow screen makes of it.
        legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
    )


def small(figure: go.Figure, title: str) -> go.Figure:
    """One of several pictures side by side."""
    title_style = {"text": title, "x": 0.5, "xanchor": "center", "font": {"size": 14}}
    return styled(figure, 230).update_layout(
        title=title_style, margin={"l": 45, "r": 10, "t": 36, "b": 30}, showlegend=False, hovermode="closest"
    )


def _trend(figure: go.Figure, steps: list[int], values: list[float], colour: str, name: str) -> None:
    faint = {"color": colour, "size": 5, "opacity": 0.35}
    figure.add_trace(
        go.Scatter(x=steps, y=values, mode="markers", marker=faint, name=f"{name}, a step", showlegend=False)
    )
    figure.add_trace(go.Scatter(x=steps, y=smooth(values), mode="lines", line={"color": colour, "width": 3}, name=name))


def _line(figure: go.Figure, history: History, key: str, name: str, colour: str) -> None:
    line = {"color": colour, "width": 3}
    figure.add_trace(go.Scatter(x=history.steps, y=history.series(key), mode="lines", name=name, line=line))


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
    return styled(figure, 340)


def task_figures(history: History) -> list[go.Figure]:
    """A small picture for each task type, all on the same scale."""
    metrics = {task.type: task.metric for task in TASKS}
    found = []
    for index, task in enumerate(history.tasks()):
        figure = go.Figure()
        _trend(figure, history.steps, history.task(task), PALETTE[index % len(PALETTE)], task)
        figure.update_yaxes(range=[-0.03, 1.03])
        found.append(small(figure, f"{task} · {metrics.get(task, task)}"))
    return found


def response_figures(history: History) -> list[go.Figure]:
    """How long responses are, and which share of them was cut off or could not be scored."""
    lengths = go.Figure()
    _line(lengths, history, "response_length/max", "longest", PALETTE[5])
    _line(lengths, history, "response_length/mean", "mean", PALETTE[0])
    if limits := [value for value in history.series("response_length/limit") if not math.isnan(value)]:
        lengths.add_hline(limits[-1], line={"color": PALETTE[1], "dash": "dash"})
    lengths.update_xaxes(title="step").update_yaxes(title="tokens", rangemode="tozero")
    shares = go.Figure()
    _line(shares, history, "response_length/clip_ratio", "cut off at the limit", PALETTE[1])
    _line(shares, history, "rewards/unscored_ratio", "unscored", PALETTE[3])
    shares.update_xaxes(title="step").update_yaxes(title="share", range=[-0.03, 1.03], tickformat=".0%")
    return [styled(lengths, 300), styled(shares, 300)]


def staleness_figure(history: History, bound: int) -> go.Figure:
    """Staleness of the trained groups beside the bound that was promised."""
    figure = go.Figure()
    steps = history.steps
    figure.add_trace(go.Bar(x=steps, y=history.series("staleness/max"), name="worst group", marker_color=PALETTE[5]))
    _line(figure, history, "staleness/mean", "mean", PALETTE[0])
    figure.add_hline(bound, line={"color": PALETTE[1], "dash": "dash"}, annotation_text=f"max_staleness: {bound}")
    figure.update_xaxes(title="step").update_yaxes(title="versions late", rangemode="tozero", range=[0, bound + 0.5])
    return styled(figure, 300)


def mismatch_figures(history: History) -> list[go.Figure]:
    """How far the engines' log-probs are from the learner's for the same tokens and weights."""
    return _small_trends(history, MISMATCH)


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
    return styled(figure, 380)


def throughput_figure(history: History) -> go.Figure:
    """Trained tokens a second, and the groups that engines hold."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    steps = history.steps
    tokens, depth = history.series("perf/throughput"), history.series(runs.GENERATING)
    figure.add_trace(go.Scatter(x=steps, y=tokens, name="tokens/s trained", line={"color": PALETTE[2], "width": 3}))
    dots = {"color": PALETTE[3], "width": 2, "dash": "dot"}
    figure.add_trace(go.Scatter(x=steps, y=depth, name="groups being generated", line=dots), secondary_y=True)
    figure.update_xaxes(title="step").update_yaxes(title="tokens/s", rangemode="tozero", secondary_y=False)
    most = max((groups for groups in depth if not math.isnan(groups)), default=0)
    # Whole groups: an axis of its own would show thousandths where engines hold none.
    whole = {"tickmode": "auto", "tickformat": "d", "showgrid": False}
    figure.update_yaxes(title="groups", range=[0, 1.05 * max(4, most)], secondary_y=True, **whole)
    return styled(figure, 300).update_layout(margin_r=50)


def optimiser_figures(history: History) -> list[go.Figure]:
    """The loss's side: gradient norm, clipped share, policy's drift and entropy."""
    return _small_trends(history, OPTIMIZER)


def _small_trends(history: History, keys: Mapping[str, str]) -> list[go.Figure]:
    found = []
    for index, (key, title) in enumerate(keys.items(), start=1):
        if not history.keys(key):
            continue
        figure = go.Figure()
        _trend(figure, history.steps, history.series(key), PALETTE[index], title)
        found.append(small(figure.update_yaxes(rangemode="tozero"), title))
    return found


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


def section(name: str, note: str, figures: Sequence[go.Figure]) -> str:
    # `<` is all that could end the script element.
    drawn = [figure.to_json().replace("<", "\\u003c") for figure in figures]
    plots = "".join(
        f'<div class="plot"><script type="application/json" class="figure">{d}</script></div>' for d in drawn
    )
    return f'<h2>{name}</h2><p class="note">{note}</p><div class="plots">{plots}</div>'


@cache
def plotly_script() -> str:
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return f'<script type="text/plain" id="plotly">{packed}</script><script>{LOADER}</script>'


def render(history: History, recipe: Recipe, run: str, recipe_yaml: str, about: str = "") -> str:
    """The whole page. A history without steps gives a page that says so.

    Args:
        about: where and when the run was, as text.
    """
    title = f"{_TITLE}{html.escape(run)}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
    )
    what = html.escape(f"recipe {recipe.name} · {recipe.algorithm.estimator} · {recipe.model.path}")
    intro = f'<h1>{title}</h1><p class="sub">{what}{f"<br>{html.escape(about)}" if about else ""}</p>'
    source = f"<h2>Recipe</h2><pre>{html.escape(recipe_yaml)}</pre>"
    if not history.records:
        return f"{head}<body><main>{intro}<p>No step has finished yet.</p>{source}</main></body></html>"
    glance = "".join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>'
        for value, what in cards(history, recipe)
    )
    bound = recipe.queue.max_staleness
    plots = (
        ("Reward", "Every response is scored by its task's own metric, from 0 to 1.", [reward_figure(history)]),
        ("Reward by task type", "Dots are single steps, lines their moving average.", task_figures(history)),
        (
            "Responses",
            "Tokens of a response beside the limit (dashed). An unscored response is one whose reward could not be "
            "computed; it is left out of every mean.",
            response_figures(history),
        ),
        ("Staleness", "Policy versions between sampling and training.", [staleness_figure(history, bound)]),
        (
            "Train-rollout mismatch",
            "The engine's and the learner's log-probs of the same tokens: they agree where these are near 0, and the "
            "effective sample size near 1.",
            mismatch_figures(history),
        ),
        ("Time per phase", "What the learner did in each step.", [time_figure(history)]),
        ("Throughput", "What was trained, and what was being generated meanwhile.", [throughput_figure(history)]),
        (
            "Optimizer",
            "Signs of a healthy update. With one update a batch, the clipped share and the KL of the update are 0.",
            optimiser_figures(history),
        ),
    )
    body = "".join(section(name, note, figures) for name, note, figures in plots if figures)
    page = f'<main>{intro}<div class="cards">{glance}</div>{body}{source}</main>'
    return f"{head}<body>{page}{plotly_script()}</body></html>"


def is_another(folder: Path) -> bool:
    """Whether the folder has a file of the report's name that no run of this program wrote."""
    try:
        with (folder / FILE).open("rb") as file:
            return _TITLE.encode() not in file.read(600)
    except FileNotFoundError:
        return False


def write(folder: Path, recipe: Recipe, recipe_yaml: str) -> Path:
    """Write `report.html` of the run in `folder` from its `metrics.jsonl`; returns its path.

    Raises:
        OSError: the storage refused; an earlier report is as it was.
    """
    out = folder / FILE
    info = RunInfo.read(folder)
    about = f"report of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if info is not None:
        about = f"run on {info.machine}, started {info.started.replace('T', ' ').removesuffix('+00:00')} UTC · {about}"
    history = runs.read(folder / "metrics.jsonl")
    files.write_text(out, render(history, recipe, folder.resolve().name, recipe_yaml, about))
    return out
