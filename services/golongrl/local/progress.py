"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere.

`RunSnapshot` holds the facts; the functions that turn it into text are pure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from golongrl.queue import Presence, QueueStats
from golongrl.tasks import TASKS
from golongrl.telemetry import history as runs
from golongrl.telemetry.history import History

# Bars of a reward's sparkline, lowest to highest.
BARS = "▁▂▃▄▅▆▇█"
# Characters of a sparkline.
SPARK_WIDTH = 30


@dataclass(frozen=True)
class RunSnapshot:
    """The state of a run at one moment."""

    run: str
    total_steps: int | None
    history: History = field(default_factory=lambda: History(()))
    queue: QueueStats | None = None
    processes: Sequence[Presence] = ()
    states: Mapping[str, str] = field(default_factory=dict)


def spark(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The last `width` values (0..1) as bars."""
    top = len(BARS) - 1
    known = [value for value in values if not math.isnan(value)]
    return "".join(BARS[min(top, max(0, round(value * top)))] for value in known[-width:])


def waits(snapshot: RunSnapshot) -> list[str]:
    """What is being waited for, by whom; services that are not up come first."""
    down = [f"{name}: {state}" for name, state in snapshot.states.items() if state not in ("up", "done")]
    said = [f"{p.service} {p.id}: {doing(p)}" for p in snapshot.processes if doing(p)]
    return down + said


def doing(process: Presence) -> str:
    """What a process says it does (the learner) or waits for (a worker); empty when it says nothing."""
    if process.service == "learner":
        since = process.fields.get("for_s", "")
        return process.fields.get("doing", "") + (f" ({since} s)" if since else "")
    return process.fields.get("waiting_for", "")


def step_line(record: Mapping[str, float], total: int | None) -> str:
    """One finished step in one line."""
    step = int(record[runs.STEP])
    parts = [
        f"step {step}" + (f"/{total}" if total else ""),
    ]
    if runs.VALIDATION in record:
        parts.append(f"held-out reward {record[runs.VALIDATION]:.3f}")
    if step == 0:  # the validation before training, and nothing else
        return " · ".join(parts)
    parts += [
        f"reward {record.get(runs.REWARD, math.nan):.3f}",
        f"staleness {record.get('staleness/mean', math.nan):.2f} (max {record.get('staleness/max', math.nan):.0f})",
        f"{record.get('perf/throughput', math.nan):.0f} tokens/s",
        f"{record.get('timing_s/step', math.nan):.1f} s",
    ]
    return " · ".join(parts)


def queue_line(stats: QueueStats) -> str:
    """The queue in one line."""
    rejected = sum(stats.rejected_by.values())
    return (
        f"version {stats.version} · leased {stats.leased} · ready {stats.ready} · in batches {stats.in_batches} · "
        f"checkpointed {stats.trained} · rejected {rejected} · {stats.bytes / 2**20:.1f} MiB"
    )


def render(snapshot: RunSnapshot) -> RenderableType:
    """The live view."""
    history = snapshot.history
    step = history.steps[-1] if history.records else 0
    head = Text(
        f"{snapshot.run}  step {step}" + (f" of {snapshot.total_steps}" if snapshot.total_steps else ""), "bold"
    )
    parts: list[RenderableType] = [head]
    if snapshot.total_steps:
        # A bar ends no line of its own; padding does.
        parts.append(Padding(ProgressBar(total=snapshot.total_steps, completed=step), 0))
    if history.records:
        parts.append(Text(step_line(history.records[-1], snapshot.total_steps)))
        parts.append(_task_table(history))
    if snapshot.queue:
        parts.append(Text(queue_line(snapshot.queue)))
    waiting = Table.grid(padding=(0, 2))
    for row, line in enumerate(waits(snapshot)[:6]):
        waiting.add_row("waiting" if row == 0 else "", Text(line), style="yellow")
    if waiting.rows:
        parts.append(waiting)
    return Panel(Group(*parts), title="GoLongRL", border_style="blue")


def _task_table(history: History) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "reward", "first 5 → last 5", ""):
        table.add_column(name)
    metrics = {task.type: task.metric for task in TASKS}
    keys = [(f"{task} {metrics.get(task, '')}", runs.TYPE_PREFIX + task) for task in history.tasks()]
    for name, key in [*keys, ("all", runs.REWARD)]:
        values = history.series(key)
        first, last = history.change(key)
        now = f"{values[-1]:.3f}" if not math.isnan(values[-1]) else "-"
        table.add_row(name, now, f"{first:.2f} → {last:.2f}", spark(values), style="bold" if name == "all" else "")
    return table


class Display:
    """Shows snapshots and events: live on a terminal, as lines otherwise (a line per new step, wait or event)."""

    def __init__(self, console: Console, live: bool) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False) if live else None
        self._steps_said = 0
        self._waits_said: list[str] = []

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """An event worth a line of its own."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, snapshot: RunSnapshot) -> None:
        """The newest snapshot."""
        if self._live:
            self._live.update(render(snapshot))
            return
        for record in snapshot.history.records[self._steps_said :]:
            self.say(step_line(record, snapshot.total_steps))
        new_steps = len(snapshot.history.records) > self._steps_said
        self._steps_said = max(self._steps_said, len(snapshot.history.records))
        waiting = [name for name, state in snapshot.states.items() if state not in ("up", "done")]
        if not new_steps and not snapshot.history.records and waiting != self._waits_said:
            self._waits_said = waiting
            if waiting:
                self.say(f"starting: {', '.join(waiting)}")
