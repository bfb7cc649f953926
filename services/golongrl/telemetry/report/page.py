"""The run report: one self-contained HTML page, written in one step while a run continues or when it has ended.

What it answers, in this order: did reward rise, for which task types, also on held-out prompts; how long were responses
and how many could not be scored; was staleness held; who waited for whom; do engines and learner agree on log-probs;
how are rewards spread; what do good and bad answers look like.
"""

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import plotly.graph_objects as go

from golongrl import files
from golongrl.errors import writing_to
from golongrl.recipe import Recipe
from golongrl.telemetry import history as runs
from golongrl.telemetry.report import figures, groups, timeline
from golongrl.telemetry.report.evaluations import evaluation_figures
from golongrl.telemetry.report.gather import RunData, gather
from golongrl.telemetry.report.style import cards, head, plotly_script, section
from golongrl.telemetry.run_info import RunInfo

FILE = "report.html"
TITLE = "GoLongRL · "
# Workers named beside their counts of groups.
_NAMED = 4


def glance(data: RunData, recipe: Recipe) -> list[tuple[str, str]]:
    """The figures worth a glance: (value, what it is)."""
    totals = data.totals
    first, last = runs.mean(totals.first), runs.mean(list(totals.last))
    found = [
        (f"{first:.2f} → {last:.2f}", "mean reward, first to last five steps"),
        (str(totals.steps), "optimizer steps"),
        (str(len(data.history.tasks())), "task types trained"),
        (f"{totals.worst_staleness:.0f} ≤ {recipe.queue.max_staleness}", "worst staleness and its bound"),
        (f"{totals.seconds / 60:.1f} min", "in steps"),
    ]
    if workers := sorted(totals.groups_from.items()):
        named = ", ".join(name for name, _ in workers[:_NAMED]) + (" and others" if len(workers) > _NAMED else "")
        counts = " + ".join(f"{count:.0f}" for _, count in workers[:_NAMED])
        found.append((counts + (" + …" if len(workers) > _NAMED else ""), f"groups from {named}"))
    found += [(str(count), what) for name, what in _EVENTS if (count := data.timeline.counts.get(name))]
    return found


_EVENTS = (
    ("took", "adoptions of new weights"),
    ("back", "times a worker came back"),
    ("quarantined", "quarantined engines"),
    ("lost", "times an engine lost its weights"),
)


def _plots(data: RunData, bound: int) -> Sequence[tuple[str, str, Sequence[go.Figure]]]:
    """Each section's name, what it shows, and its figures; without figures it is left out."""
    history = data.history
    return (
        ("Reward", "Every response is scored by its task's own metric, from 0 to 1.", [figures.reward_figure(history)]),
        (
            "Reward by task type",
            "Dots are single steps, lines their moving average; the middle 80 % of a batch's rewards lie in the band.",
            figures.task_figures(history, data.spread),
        ),
        ("Validation", "Mean reward on the held-out prompts.", figures.validation_figures(history)),
        (
            "Evaluation",
            "Scores of the run's checkpoints by golongrl eval, whose own report has every figure and sample.",
            evaluation_figures(data.evaluations),
        ),
        (
            "Responses",
            "Tokens of a response beside the limit (dashed). An unscored response is one whose reward could not be "
            "computed; it is left out of every mean.",
            figures.response_figures(history),
        ),
        (
            "Staleness",
            "Policy versions between sampling and training.",
            [figures.staleness_figure(history, bound)],
        ),
        ("Queue", "What the sample queue held when a step ended.", figures.queue_figures(history)),
        ("Time per phase", "What the learner did in each step.", [figures.time_figure(history)]),
        (
            "Who waited for whom",
            "The newest part of the run as the learner saw it every few seconds. Ticks are adopted weights, restarts "
            "and quarantines.",
            timeline.figures(data.timeline)[:1],
        ),
        (
            "Shares of time",
            "The same for the whole run: what each process spent its time on.",
            timeline.figures(data.timeline)[1:],
        ),
        (
            "Throughput",
            "What was trained, and what was being generated meanwhile.",
            [figures.throughput_figure(history)],
        ),
        (
            "Spread",
            "Groups with a pass rate of 0 or 1 teach nothing. Advantages beyond 3 are counted at the edge.",
            figures.spread_figures(data.spread),
        ),
        (
            "Train-rollout mismatch",
            "The engine's and the learner's log-probs of the same tokens: they agree where these are near 0, and the "
            "effective sample size near 1.",
            figures.mismatch_figures(history),
        ),
        (
            "Optimizer",
            "Signs of a healthy update. With one update a batch, the clipped share and the KL of the update are 0.",
            figures.optimiser_figures(history),
        ),
    )


def render(data: RunData, recipe: Recipe, run: str, recipe_yaml: str, about: str = "") -> str:
    """The whole page. A run without steps gives a page that says so.

    Args:
        about: where and when the run was, as text.
    """
    title, history = f"{TITLE}{run}", data.history
    what = html.escape(f"recipe {recipe.name} · {recipe.algorithm.estimator} · {recipe.model.path}")
    intro = f'<h1>{html.escape(title)}</h1><p class="sub">{what}{f"<br>{html.escape(about)}" if about else ""}</p>'
    source = f"<h2>Recipe</h2><pre>{html.escape(recipe_yaml)}</pre>"
    if not history.records:
        return f"{head(title)}<body><main>{intro}<p>No step has finished yet.</p>{source}</main></body></html>"
    body = "".join(
        section(name, note, drawn) for name, note, drawn in _plots(data, recipe.queue.max_staleness) if drawn
    )
    page = f"<main>{intro}{cards(glance(data, recipe))}{body}{groups.section(data.groups)}{source}</main>"
    return f"{head(title)}<body>{page}{plotly_script()}</body></html>"


def is_another(folder: Path, name: str = FILE) -> bool:
    """Whether the folder has a file of the report's name that no run of this program wrote."""
    try:
        with (folder / name).open("rb") as file:
            return TITLE.encode() not in file.read(600)
    except FileNotFoundError:
        return False


def about(folder: Path) -> str:
    """Where and when the run was."""
    info, now = RunInfo.read(folder), f"report of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if info is None:
        return now
    started = info.started.replace("T", " ").removesuffix("+00:00")
    return f"run on {info.machine}, started {started} UTC, {info.state}, GoLongRL {info.version} · {now}"


def write(folder: Path, recipe: Recipe, recipe_yaml: str, evaluations: Sequence[Path] = ()) -> Path:
    """Write `report.html` of the run in `folder` from its files; returns its path.

    Raises:
        InputError: a folder of `evaluations` has none, a file of the run cannot be read, or the report not be written;
            an earlier report is as it was.
    """
    out, data = folder / FILE, gather(folder, evaluations)
    page = render(data, recipe, folder.resolve().name, recipe_yaml, about(folder))
    files.sweep_staged(folder)  # what a report that was killed left
    # With prompts and answers in it, it is as private as they are.
    with writing_to(f"report {out}", folder=folder):
        (files.write_private if data.groups else files.write_text)(out, page)
    return out
