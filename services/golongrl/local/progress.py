"""What a person sees of a run: a live table on a terminal, plain lines elsewhere.

`RunSnapshot` holds the facts; the functions that turn it into text, and `Silence`, which decides when a line has to say
what is waited for, are pure.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from golongrl.errors import printable
from golongrl.queue import Presence, QueueStats
from golongrl.tasks import TASKS
from golongrl.telemetry import history as runs
from golongrl.telemetry.history import History
from golongrl.telemetry.watchdog import SILENT_S, Stall

# Bars of a reward's sparkline, lowest to highest.
BARS = "▁▂▃▄▅▆▇█"
# Characters of a sparkline.
SPARK_WIDTH = 30
# Silence after which a line says what is waited for, and again.
SILENCE_S = 15.0
# Waits named in one line.
MOST_WAITS = 3
# Seconds without a token after which the group that the next batch needs is named.
SLOW_GROUP_S = 15.0
# The state of a service that was asked to end, or ends by itself.
ENDING = "ending"
# A worker that waits for one of these is at work.
AT_WORK = ("a response to end", "a group to end")


@dataclass(frozen=True)
class RunSnapshot:
    """The state of a run at one moment."""

    run: str
    total_steps: int | None
    history: History = field(default_factory=lambda: History(()))
    queue: QueueStats | None = None
    processes: Sequence[Presence] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    stalls: tuple[Stall, ...] = ()
    """Who waits for a process from which nothing comes."""


def spark(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The last `width` values (0..1) as bars."""
    top = len(BARS) - 1
    known = [value for value in values if not math.isnan(value)]
    return "".join(BARS[min(top, max(0, round(value * top)))] for value in known[-width:])


def down(snapshot: RunSnapshot) -> list[str]:
    """Services that are not up."""
    return [f"{name}: {state}" for name, state in snapshot.states.items() if state not in ("up", "done")]


def silent(snapshot: RunSnapshot) -> list[str]:
    """Services that should report to the queue and do not: stopped, or cut off from Redis."""
    if snapshot.queue is None or snapshot.queue.stopped:
        return []  # who does not report cannot be told, or has ended
    heard = {_name(process) for process in snapshot.processes if process.age_s <= SILENT_S}
    reporting = [name for name in snapshot.states if name == "learner" or name.startswith("rollout-")]
    return [f"{name}: no heartbeat" for name in reporting if snapshot.states[name] == "up" and name not in heard]


def waits(snapshot: RunSnapshot) -> list[str]:
    """What is being waited for, by whom: services that are not up, the group that holds up the batch, the learner, then
    workers that are not at work."""
    learner = [p for p in snapshot.processes if p.service == "learner"]
    learning = any(not p.fields.get("doing", "").startswith("waiting") for p in learner)
    blocking = snapshot.queue.blocking if snapshot.queue else None
    group = []
    if blocking is not None and not learning and blocking.progress_age_s > SLOW_GROUP_S:
        what = "waits for the reward service" if blocking.phase == "scoring" else f"is {blocking.phase}"
        since = f"no progress for {blocking.progress_age_s:.0f} s"
        group.append(f"{blocking.worker}: group {blocking.uid} {what} ({since})")
    workers = [
        p
        for p in snapshot.processes
        if p.service != "learner"
        and (wait := p.fields.get("waiting_for", ""))
        and wait not in AT_WORK
        and not (snapshot.queue and snapshot.queue.stopped)
        # As many groups as max_staleness allows lie ready: nothing is wrong while the learner works on them.
        and not (learning and wait.startswith("full:"))
    ]
    said = [f"{_name(p)}: {doing(p)}" for p in (*learner, *workers) if doing(p)]
    return [*map(str, snapshot.stalls), *down(snapshot), *silent(snapshot), *group, *said]


def _name(process: Presence) -> str:
    """The service as the supervisor calls it, which starts one learner and gives its workers their ids."""
    return process.service if process.service == "learner" else process.id


def doing(process: Presence) -> str:
    """What a process reports that it does (the learner) or waits for (a worker); empty when it reports nothing."""
    if process.service == "learner":
        since = process.fields.get("for_s", "")
        return process.fields.get("doing", "") + (f" ({since} s)" if since else "")
    return process.fields.get("waiting_for", "")


def starting(snapshot: RunSnapshot) -> list[str]:
    """What a run that has not finished a step is starting, in words that change only when something else is started."""
    found = [name for name, state in snapshot.states.items() if state not in ("up", "done", ENDING)]
    # What a learner of an earlier start did last is no news.
    for process in (each for each in snapshot.processes if each.age_s <= SILENT_S):
        # Counts behind the colon change all the time.
        if process.service == "learner" and (words := process.fields.get("doing", "").partition(":")[0]):
            if process.service in found:
                found.remove(process.service)
            found.append(f"{process.service} ({words})")
    return found


@dataclass
class Silence:
    """When a line has to say what is waited for, because nothing was printed for long. Times are seconds."""

    since: float
    spoke: float = 0.0

    def progress(self, now: float) -> None:
        """A line was printed: the silence starts again."""
        self.since = self.spoke = now

    def due(self, now: float) -> bool:
        """Whether a line is due now; it then counts as written."""
        if now - max(self.since, self.spoke) < SILENCE_S:
            return False
        self.spoke = now
        return True


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
        waiting.add_row("waiting" if row == 0 else "", Text(printable(line)), style="yellow")
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
    """Shows snapshots and events: live on a terminal, as lines otherwise (a line per new step, event or long wait).

    Args:
        seen: steps up to this one were shown before (by an earlier start of the run).
    """

    def __init__(self, console: Console, live: bool, seen: int = -1, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False) if live else None
        self._seen = seen
        self._steps = 0
        self._starting: list[str] = []
        self._now = now
        self._silence = Silence(now())
        self._stalled: dict[str, Silence] = {}
        self._names: dict[str, str] = {}

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """An event worth a line of its own."""
        self._silence.progress(self._now())
        self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, snapshot: RunSnapshot) -> None:
        """The newest snapshot."""
        if self._live:
            self._live.update(render(snapshot))
            return
        for record in snapshot.history.records:
            if record[runs.STEP] > self._seen:
                self._seen = int(record[runs.STEP])
                self._steps += 1
                self.say(step_line(record, snapshot.total_steps))
        self._tell_stalls(snapshot)
        current = starting(snapshot)
        if not self._steps and current and current != self._starting:
            self._starting = current
            self.say(f"starting: {', '.join(current)}")
        if snapshot.states and not snapshot.stalls and self._silence.due(self._now()):
            self._print(wait_line(snapshot, self._now() - self._silence.since))

    def _tell_stalls(self, snapshot: RunSnapshot) -> None:
        """A line for each stall at once, one every 15 s while it lasts, and one when its culprit is back."""
        now, found = self._now(), {stall.culprit: stall for stall in snapshot.stalls}
        for culprit in self._stalled.keys() - found.keys():
            del self._stalled[culprit]
            self.say(f"no longer stalled: {self._names.pop(culprit)}")
        for culprit, stall in found.items():
            new = culprit not in self._stalled
            if new or self._stalled[culprit].due(now):
                self._stalled.setdefault(culprit, Silence(now))
                self._names[culprit] = stall.name
                self.say(f"stalled: {stall}")


def wait_line(snapshot: RunSnapshot, silence_s: float) -> str:
    """What is waited for, after so many seconds without progress."""
    found = waits(snapshot)
    ending = snapshot.queue is not None and snapshot.queue.stopped is not None
    words = "; ".join(found[:MOST_WAITS]) or ("learner: ending" if ending else "no process reports what it waits for")
    return f"waiting for {silence_s:.0f} s: {words}"


class Screen(Console):
    """A console for text of a run, whose control characters the terminal would obey."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Text without them."""
        return super().render_str(printable(text), *args, **options)
