"""The pictures of a report, from a run's history."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from golongrl.tasks import TASKS
from golongrl.telemetry import history as runs
from golongrl.telemetry.history import History
from golongrl.telemetry.report.style import PALETTE, SMOOTHING, small, styled, text

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
QUEUE = {
    "queue/leased": "being generated",
    "queue/ready": "ready",
    "queue/in_batches": "in batches that are not checkpointed",
}
# Phases of a step -> what a reader calls them; another is shown under its own name.
PHASES = {
    "take": "waits for its batch",
    "assemble": "prepares the batch",
    "ship": "hands it to the ranks",
    "old_log_prob": "log-probabilities",
    "ref": "log-probabilities of the reference",
    "update_actor": "updates",
    "update_weights": "copies the weights",
    "testing": "validates",
    "save_checkpoint": "saves",
}
# The mean over all task types, whose colours are those of the palette.
_ALL = "#d62728"
# Points of a band: how a batch is spread, at its steps.
Spread = Sequence[tuple[int, Mapping[str, float]]]


def smooth(values: list[float], window: int = SMOOTHING) -> list[float]:
    """Trailing mean over the last `window` values that are not NaN."""
    out = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        out.append(runs.mean(recent))
    return out


def trend(figure: go.Figure, steps: list[int], values: list[float], colour: str, name: str) -> None:
    """Single steps as dots, and their moving average as a line."""
    faint = {"color": colour, "size": 5, "opacity": 0.35}
    figure.add_trace(
        go.Scatter(x=steps, y=values, mode="markers", marker=faint, name=f"{name}, a step", showlegend=False)
    )
    figure.add_trace(go.Scatter(x=steps, y=smooth(values), mode="lines", line={"color": colour, "width": 3}, name=name))


def _band(figure: go.Figure, task: str, spread: Spread, colour: str) -> None:
    points = [(step, point) for step, point in spread if f"low/{task}" in point]
    if not points:
        return
    steps = [step for step, _ in points]
    for key, fill in (("high", None), ("low", "tonexty")):
        values = [point[f"{key}/{task}"] for _, point in points]
        figure.add_trace(
            go.Scatter(
                x=steps, y=values, mode="lines", line={"width": 0}, fill=fill, fillcolor=_faint(colour),
                hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _line(figure: go.Figure, history: History, key: str, name: str, colour: str) -> None:
    line = {"color": colour, "width": 3}
    figure.add_trace(go.Scatter(x=history.steps, y=history.series(key), mode="lines", name=name, line=line))


def reward_figure(history: History) -> go.Figure:
    """Mean reward of every step."""
    figure = go.Figure()
    trend(figure, history.steps, history.series(runs.REWARD), PALETTE[0], f"mean reward ({SMOOTHING}-step average)")
    held_out = zip(history.steps, history.series(runs.VALIDATION), strict=True)
    validated = [(step, value) for step, value in held_out if not math.isnan(value)]
    if validated:
        steps, values = zip(*validated, strict=True)
        line = {"color": PALETTE[1], "width": 3}
        figure.add_trace(go.Scatter(x=steps, y=values, mode="lines+markers", line=line, name="held-out prompts"))
    figure.update_xaxes(title="step").update_yaxes(title="mean reward", rangemode="tozero")
    return styled(figure, 340)


def task_figures(history: History, spread: Spread = ()) -> list[go.Figure]:
    """A small picture for each task type, all on the same scale; a band where 80 % of the rewards are."""
    metrics = {task.type: task.metric for task in TASKS}
    found = []
    for index, task in enumerate(history.tasks()):
        figure, colour = go.Figure(), PALETTE[index % len(PALETTE)]
        _band(figure, task, spread, colour)
        trend(figure, history.steps, history.task(task), colour, text(task))
        figure.update_yaxes(range=[-0.03, 1.03])
        found.append(small(figure, f"{text(task)} · {metrics.get(task, '')}".removesuffix(" · ")))
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
        figure.add_trace(
            go.Scatter(
                x=history.steps,
                y=[0.0 if math.isnan(value) else value for value in history.series(key)],
                name=text(PHASES.get(name := key.removeprefix("timing_s/"), name)),
                mode="lines",
                line={"color": colour, "width": 0.5},
                stackgroup="phases",
            )
        )
    figure.update_xaxes(title="step").update_yaxes(title="seconds", rangemode="tozero")
    return styled(figure, 420)


def queue_figures(history: History) -> list[go.Figure]:
    """Groups by state after each step, and the bytes they take."""
    groups = go.Figure()
    for index, (key, name) in enumerate(QUEUE.items()):
        _line(groups, history, key, name, PALETTE[index])
    groups.update_xaxes(title="step").update_yaxes(title="groups", rangemode="tozero")
    size = go.Figure()
    mebibytes = [value / 2**20 for value in history.series("queue/bytes")]
    line = {"color": PALETTE[6], "width": 3}
    size.add_trace(go.Scatter(x=history.steps, y=mebibytes, mode="lines", name="stored", line=line))
    size.update_xaxes(title="step").update_yaxes(title="MiB in the queue", rangemode="tozero")
    return [styled(groups, 300), styled(size, 300)] if history.keys("queue/") else []


def validation_figures(history: History) -> list[go.Figure]:
    """Mean reward on the held-out prompts, as a whole and by task type, and the scores of a suite's benchmarks."""
    figure = go.Figure()
    suites = [key for key in history.keys("val-suite/") if key.endswith(("/score", "/rules"))]
    keys = [key for key in (runs.VALIDATION, *history.keys("val_by_type/"), *suites) if history.keys(key)]
    for index, key in enumerate(keys):
        points = [(s, v) for s, v in zip(history.steps, history.series(key), strict=True) if not math.isnan(v)]
        # A task type has the colour of its own picture.
        whole = key == runs.VALIDATION
        style = {"color": _ALL if whole else PALETTE[(index - 1) % len(PALETTE)], "width": 4 if whole else 2}
        name = "all" if whole else text(_validated(key))
        steps, values = zip(*points, strict=True)
        figure.add_trace(go.Scatter(x=steps, y=values, mode="lines+markers", name=name, line=style))
    figure.update_xaxes(title="step").update_yaxes(title="mean reward or score", range=[-0.03, 1.03])
    return [styled(figure, 380)] if keys else []


def _validated(key: str) -> str:
    """The task type of `val_by_type/T1`, or the benchmark of `val-suite/NAME/score` and `.../rules`."""
    task = key.removeprefix("val_by_type/")
    if task != key:
        return task
    benchmark, _, kind = key.removeprefix("val-suite/").rpartition("/")
    return f"{benchmark} (rules)" if kind == "rules" else benchmark


def spread_figures(spread: Spread) -> list[go.Figure]:
    """Over the steps: how many groups have which pass rate, and how many responses which advantage."""
    found = []
    for prefix, low, high, title in (
        ("pass/", 0.0, 1.0, "pass rate of groups"),
        ("advantage/", -3.0, 3.0, "advantages of responses"),
    ):
        bins = sorted(
            {int(name.removeprefix(prefix)) for _, point in spread for name in point if name.startswith(prefix)}
        )
        if not bins:
            continue
        width = (high - low) / len(bins)
        rows = [[point.get(f"{prefix}{place}", 0.0) for _, point in spread] for place in bins]
        figure = go.Figure(
            go.Heatmap(
                x=[step for step, _ in spread],
                y=[round(low + (place + 0.5) * width, 3) for place in bins],
                z=rows,
                colorscale="Viridis",
                zmin=0,
                colorbar={"title": "share", "tickformat": ".0%", "thickness": 12},
                hovertemplate="step %{x}<br>about %{y}: %{z:.0%}<extra></extra>",
            )
        )
        figure.update_xaxes(title="step").update_yaxes(title=title)
        found.append(styled(figure, 320).update_layout(hovermode="closest"))
    return found


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
        trend(figure, history.steps, history.series(key), PALETTE[index], title)
        found.append(small(figure.update_yaxes(rangemode="tozero"), title))
    return found
