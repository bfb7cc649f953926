"""Who holds up a run: from the waits and heartbeats of all processes to a chain that ends at the one to look at. Pure.

    learner waits for step 4: 15 of 18 groups, 12 s <- rollout-0 waits for engine-0 to generate 3 groups, 11 s <-
    engine-0 was stopped by a signal (pid 4711)

Invariants:
- every process in trouble ends exactly one chain, whoever waits for it or not;
- a wait past its own deadline is a chain too, where no process in trouble explains it, and continues through what is
  waited for as far as that waits itself;
- a process that should report and does not is in trouble: silence is not progress;
- every chain is finite, also where processes wait for each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from golongrl.telemetry import waits
from golongrl.telemetry.waits import PendingWait

Json = Mapping[str, Any]

# Who can be waited for, as metrics call it.
KINDS: Final = ("learner", "rollout", "engine", "reward", "redis", "ranks", "storage")
# A process reports every 2 s; after so long without a report it is silent.
SILENT_S: Final = 6.0
# A service that a worker or supervisor asks every few seconds, and that has not answered for so long, does not answer.
UNANSWERED_S: Final = 8.0
# A chain is as long as the run's processes; no sentence needs more.
_LONGEST: Final = 6
_NAMES: Final = {"ranks": "the ranks", "storage": "the storage", "reward": "the reward service"}


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as others see it.

    Attributes:
        key: as `PendingWait.on` names it: learner, rollout/ID, engine/ID (of that worker), reward, redis.
        name: as people know it.
        trouble: why nothing is to be expected of it, as it continues its name; empty if it is well.
        unanswered: that the trouble is nothing but that it did not answer somebody.
        known: that the trouble is known to whoever started it, which has told it and acts on it (a restart).
    """

    key: str
    name: str
    waits: tuple[PendingWait, ...] = ()
    trouble: str = ""
    unanswered: bool = False
    known: bool = False

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.key.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Stall:
    """A chain of who waits for whom; the last one is the one to look at."""

    culprit: str
    """Its key."""
    name: str
    links: tuple[str, ...]

    def __str__(self) -> str:
        return " <- ".join(self.links)

    @property
    def kind(self) -> str:
        """Of the culprit: one of KINDS."""
        return self.culprit.partition("/")[0]


def read(services: Iterable[Json]) -> dict[str, Process]:
    """The processes of a run, from the heartbeats in its queue.

    Engines and the reward service have no heartbeat: the workers say whether they answer, and what they wait for.
    """
    found: dict[str, Process] = {}
    reward_s, reward_waits = 0.0, tuple[PendingWait, ...]()
    for service in current(services):
        fields, silent_s = service["fields"], float(service["age_s"])
        kind, own = service["service"], service["id"]
        key = "learner" if kind == "learner" else f"{kind}/{own}"
        silent = silent_s > SILENT_S
        trouble = f"has sent no heartbeat for {silent_s:.0f} s" if silent else ""
        own_waits = _read(fields.get("waits", ""), own, "engine")
        found[key] = Process(key, "learner" if kind == "learner" else own, own_waits, trouble)
        if kind != "rollout":
            continue
        engine = f"engine/{own}"
        # What a silent worker last said of others may have changed.
        trouble, unanswered = ("", False) if silent else _engine(fields)
        engines = "" if silent or unanswered else fields.get("engine_waits", "")
        told = _read(engines, own, "engine", "rollout")
        found[engine] = Process(engine, f"engine {fields.get('engine', own)}", told, trouble, unanswered)
        if not silent:
            reward_s = max(reward_s, _number(fields.get("reward_silent_s", "")))
            # All of them ask the same service.
            reward_waits = reward_waits or tuple(waits.loads(fields.get("reward_waits", "")))
    unanswered = reward_s >= UNANSWERED_S
    if unanswered or reward_waits:
        trouble = f"has not answered for {reward_s:.0f} s" if unanswered else ""
        told = () if unanswered else reward_waits
        found["reward"] = Process("reward", _NAMES["reward"], told, trouble, unanswered)
    return found


def current(services: Iterable[Json]) -> list[Json]:
    """All processes but the learners that a newer one has replaced: a run has one."""
    services = list(services)
    learners = [service for service in services if service["service"] == "learner"]
    newest = min((float(service["age_s"]) for service in learners), default=0.0)
    return [item for item in services if item["service"] != "learner" or float(item["age_s"]) == newest]


def _read(text: str, worker: str, *kinds: str) -> tuple[PendingWait, ...]:
    """Waits of a worker or of its engine; one on another of these `kinds` is on that of this pair."""
    return tuple(replace(wait, on=f"{wait.on}/{worker}") if wait.on in kinds else wait for wait in waits.loads(text))


def _engine(fields: Mapping[str, str]) -> tuple[str, bool]:
    """Its trouble, and whether that is only that it does not answer."""
    silent_s = _number(fields.get("engine_silent_s", ""))
    if silent_s >= UNANSWERED_S:
        return f"has not answered for {silent_s:.0f} s", True
    paused_s = _number(fields.get("engine_paused_s", ""))
    if paused_s >= UNANSWERED_S:
        return f"is paused by {fields.get('engine_paused_by') or 'somebody else'}, {paused_s:.0f} s", False
    return "", False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def with_troubles(processes: Mapping[str, Process], troubles: Iterable[Process]) -> dict[str, Process]:
    """`processes` with what a supervisor knows better, which has asked each of `troubles` itself: their names and
    troubles hold, and what has answered it is not in trouble for not answering a worker as fast."""
    found = dict(processes)
    for process in troubles:
        before = found.get(process.key)
        if before is not None:
            trouble = process.trouble or ("" if before.unanswered else before.trouble)
            process = replace(process, waits=before.waits, trouble=trouble)
        found[process.key] = process
    return found


def stalls(processes: Mapping[str, Process]) -> list[Stall]:
    """A chain for each process in trouble, the one that the learner waits for first; else for each wait past its
    deadline."""
    troubled = [process for process in processes.values() if process.trouble]
    found = [_chain(processes, process) for process in troubled]
    if not found:
        found = list(_late(processes))
    return sorted(found, key=lambda stall: (not stall.links[0].startswith("learner"), -len(stall.links)))


def _chain(processes: Mapping[str, Process], culprit: Process) -> Stall:
    """Up from the process in trouble to whoever waits for it, and so on."""
    links = [f"{culprit.name} {culprit.trouble}"]
    _climb(processes, culprit, links, {culprit.key})
    return Stall(culprit.key, culprit.name, tuple(links))


def _climb(processes: Mapping[str, Process], at: Process, links: list[str], seen: set[str]) -> None:
    """Put before `links` who waits for `at`, who waits for that one, and so on."""
    while len(links) < _LONGEST:
        found = [
            (process, wait)
            for process in processes.values()
            if process.key not in seen
            for wait in process.waits
            if _concerns(wait.on, at.key)
        ]
        if not found:
            break
        above, wait = max(found, key=lambda pair: (pair[0].key == "learner", not pair[0].trouble, pair[1].for_s))
        links.insert(0, f"{above.name} waits for {wait.words(_named(processes, wait.on, at))}")
        seen.add(above.key)
        at = above


def _late(processes: Mapping[str, Process]) -> Iterator[Stall]:
    """A chain for each wait past its deadline, but for those on a process that has such a wait itself."""
    found = [(process, wait) for process in processes.values() for wait in process.waits if wait.late]
    late = {process.key for process, _ in found}
    deepest = [
        (process, wait) for process, wait in found if not any(_concerns(wait.on, key) for key in late - {process.key})
    ]
    for process, wait in deepest or found:
        yield _through(processes, process, wait)


def _through(processes: Mapping[str, Process], process: Process, wait: PendingWait) -> Stall:
    """Up from the process that waits, and down through what it waits for, as long as that waits, too."""
    name = _name(processes, wait.on)
    links, seen, on = [f"{process.name} waits for {wait.words(name)}"], {process.key}, wait.on
    while on in processes and on not in seen and processes[on].waits and len(links) < _LONGEST:
        below = max(processes[on].waits, key=lambda each: each.for_s)
        links.append(f"{processes[on].name} waits for {below.words(_name(processes, below.on))}")
        seen.add(on)
        on = below.on
    _climb(processes, process, links, seen)
    return Stall(on, _name(processes, on), tuple(links))


def _name(processes: Mapping[str, Process], on: str) -> str:
    return processes[on].name if on in processes else _NAMES.get(on, on)


def _concerns(on: str, key: str) -> bool:
    """Whether a wait on `on` may be ended by the process `key`: "rollout" is any worker."""
    return on == key or ("/" not in on and key.startswith(f"{on}/"))


def _named(processes: Mapping[str, Process], on: str, at: Process) -> str:
    return processes[on].name if on in processes else at.name


@dataclass
class Watch:
    """Which stalls to tell of: those that last. Times are seconds of any one clock.

    A process may miss a beat on a busy machine, and after a pause of Redis all of them seem silent until they report.
    """

    lasting_s: float = 3.0
    _since: dict[str, float] = field(default_factory=dict)

    def seen(self, found: Sequence[Stall], now: float) -> list[Stall]:
        """The stalls of this look that have lasted."""
        self._since = {stall.culprit: self._since.get(stall.culprit, now) for stall in found}
        return [stall for stall in found if self.for_s(stall, now) >= self.lasting_s]

    def for_s(self, stall: Stall, now: float) -> float:
        """How long a stall of the last look has been seen."""
        return now - self._since[stall.culprit]
