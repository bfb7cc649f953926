"""A run's evaluations (`golongrl eval run SUITE --target runs/NAME`), read from their results.json: scores by step.

Invariant: an evaluation that was not asked for by name is one of this run's checkpoints, by the run's name in it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from golongrl.errors import InputError
from golongrl.reading import refuse_special, small_text
from golongrl.telemetry.report.style import DASHES, PALETTE, styled, text, titled

FILE = "results.json"
# Where `golongrl eval run` puts its folders.
FOLDER = "evals"
# Half the width of a 95 % interval in standard errors.
_INTERVAL = 1.96


@dataclass(frozen=True)
class BenchmarkScore:
    """A benchmark's score at one step; `stderr` is nan where it has none."""

    step: int
    value: float
    stderr: float


@dataclass(frozen=True)
class RunEvaluation:
    """One suite's scores of a run, by benchmark."""

    name: str
    scores: Mapping[str, Sequence[BenchmarkScore]]


def of_run(run: Path, asked: Iterable[Path] = ()) -> list[RunEvaluation]:
    """The run's evaluations: those asked for, and those in `evals` here or beside the run's folder.

    Raises:
        InputError: a folder that was asked for has no results.
    """
    found = {folder.resolve(): _read(folder) for folder in asked}
    places = (Path(FOLDER), run.resolve().parent / FOLDER, run.resolve().parent.parent / FOLDER)
    for path in sorted({path.resolve() for place in places for path in place.glob(f"*/{FILE}")}):
        if path.parent not in found and (record := _json(path)) and record.get("target") == run.resolve().name:
            found[path.parent] = _evaluation(path.parent, record)
    return [one for one in found.values() if one.scores]


def _read(folder: Path) -> RunEvaluation:
    record = _json(folder / FILE)
    if record is None:
        raise InputError(f"--evaluation {folder}: no evaluation's {FILE} there; `golongrl eval report` writes it")
    return _evaluation(folder, record)


def _json(path: Path) -> dict[str, Any] | None:
    """A results file; None for one that is missing, unreadable or of another kind."""
    try:
        refuse_special(path)
        found = json.loads(small_text(path))
    except (InputError, OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("points"), list) else None


def _evaluation(folder: Path, record: Mapping[str, Any]) -> RunEvaluation:
    scores: dict[str, list[BenchmarkScore]] = {}
    for point in record["points"]:
        match point:
            case {"step": int(step), "benchmarks": dict(benchmarks)}:
                for name, one in benchmarks.items():
                    match one:
                        case {"value": int(value) | float(value)}:
                            error = one.get("stderr")
                            stderr = _real(error) if isinstance(error, int | float) else math.nan
                            scores.setdefault(str(name), []).append(BenchmarkScore(step, _real(value), stderr))
    return RunEvaluation(folder.name, {name: sorted(found, key=lambda one: one.step) for name, found in scores.items()})


def _real(number: float) -> float:
    """A number of a file, where integers have no bound."""
    try:
        return float(number)
    except OverflowError:
        return math.nan


def evaluation_figures(found: Sequence[RunEvaluation]) -> list[go.Figure]:
    """A picture a suite: the score of each benchmark at each evaluated step, with its 95 % interval."""
    made = []
    for evaluation in found:
        figure = go.Figure()
        for index, (name, scores) in enumerate(sorted(evaluation.scores.items())):
            colour, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
            errors = [0.0 if math.isnan(one.stderr) else _INTERVAL * one.stderr for one in scores]
            figure.add_trace(
                go.Scatter(
                    x=[one.step for one in scores],
                    y=[one.value for one in scores],
                    error_y={"type": "data", "array": errors, "color": colour},
                    mode="lines+markers",
                    name=text(name),
                    line={"color": colour, "dash": dash},
                )
            )
        figure.update_xaxes(title="step").update_yaxes(title="score, 95 % interval", range=[-0.03, 1.03])
        made.append(titled(styled(figure, 400), text(evaluation.name)))
    return made
