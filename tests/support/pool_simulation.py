"""A run in virtual time, to compare ways of sizing its pool over days. Pure: a seed and a load in, figures out.

The model is the loop of the design in flows. An engine generates groups, each of which costs engine-seconds; admission
holds it back while enough groups are ready; the learner takes B groups, works for a while, and waits if there are too
few. Engines load for minutes after they are added, end their groups when they are removed, and die. After each step
they take new weights and generate nothing meanwhile. An engine whose groups do not fit into its KV cache computes some
of their tokens twice. The load changes: answers grow while the model learns, and the learner's steps change with them.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from golongrl_operator.scaling.controller import Memory, PoolLimits, resize
from golongrl_operator.scaling.signals import Signals

# The operator's pass.
TICK_S: Final = 15.0
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Load:
    """What generation and training cost at one moment."""

    group_s: float
    """Engine-seconds of a group."""
    step_s: float
    """The learner's own seconds for a step."""
    adopt_s: float = 0.0
    """Seconds in which each engine takes the weights of a step, and generates nothing."""
    kv: float = 0.05
    """Share of an engine's KV cache that a group takes."""


@dataclass(frozen=True, slots=True)
class World:
    """The run and its cluster."""

    load: Callable[[float], Load]
    days: float = 3.0
    groups_per_step: int = 128
    max_staleness: int = 1
    slots: int = 8
    engine_gpus: int = 8
    learner_gpus: int = 16
    most: int = 32
    starts_s: float = 300.0
    drains_s: float = 180.0
    deaths_a_day: float = 1.0
    """Of one engine."""
    noise: float = 0.15
    """Spread of a tick's rate around its mean."""
    silent_share: float = 0.01
    """Of the ticks, in which the queue does not answer the controller."""


class Policy(Protocol):
    """A way of sizing the pool: sees what its kind can see, and gives the number of engines to ask for."""

    def size(self, sight: "Sight") -> int: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a policy could look at. Only hindsight looks at the load."""

    now: float
    signals: Signals
    load: Load


@dataclass
class Fixed:
    """A static split."""

    engines: int

    def size(self, _: Sight) -> int:
        return self.engines


@dataclass
class Controlled:
    """The operator's controller."""

    limits: PoolLimits
    memory: Memory = field(default_factory=Memory)

    def size(self, sight: Sight) -> int:
        found = resize(sight.signals, self.limits, self.memory, sight.now)
        self.memory = found.memory
        return found.engines


@dataclass
class GpuUse:
    """Kubernetes' HorizontalPodAutoscaler on GPU use, with its defaults: 80 % wanted, 10 % tolerance, at most twice as
    many in 15 s, and the largest wish of the last five minutes before anything is removed."""

    limits: PoolLimits
    target: float = 0.8
    wishes: list[tuple[float, int]] = field(default_factory=list)

    def size(self, sight: Sight) -> int:
        now, signals = sight.now, sight.signals
        if not signals.ready or signals.busy is None:
            return signals.engines
        ratio = signals.busy / signals.ready / self.target
        wish = signals.engines if abs(ratio - 1.0) <= 0.1 else math.ceil(signals.engines * ratio)
        self.wishes = [(at, old) for at, old in self.wishes if now - at < 300.0] + [(now, wish)]
        wish = max(old for _, old in self.wishes) if wish < signals.engines else min(wish, 2 * signals.engines)
        return self.limits.clamp(wish)


@dataclass
class Hindsight:
    """Knows the load of every moment and wastes no time on loading engines: what no controller can reach."""

    world: World
    limits: PoolLimits

    def size(self, sight: Sight) -> int:
        return self.limits.clamp(needed(self.world, sight.load))


@dataclass(frozen=True, slots=True)
class Moment:
    """One tick, for a plot."""

    at: float
    asked: int
    ready: int
    need: float
    steps: float
    waits: bool


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What a policy made of a world."""

    steps: float
    engine_hours: float
    """Hours of GPUs of engines, loading and draining ones too."""
    gpu_hours: float
    """Those and the learner's."""
    changes: int
    moments: tuple[Moment, ...]


@dataclass
class _State:
    ready: int
    starting: list[float]
    draining: list[float]
    groups: float = 0.0
    """Ready ones."""
    left_s: float = 0.0
    """Of the learner's present step."""
    steps: float = 0.0
    up_s: float = 0.0
    waited_s: float = 0.0
    engine_s: float = 0.0
    adopting_s: float = 0.0
    """Until the engines have taken the present weights."""
    lost: float = 0.0
    """What the workers say that this costs: the mean of the last minutes."""
    kv: float = 0.0
    """Share of an engine's KV cache in use."""


def needed(world: World, load: Load) -> int:
    """The fewest engines with which the learner waits for nothing; at most one more than the world has."""
    for engines in range(1, world.most + 1):
        made = engines * max(0.0, load.step_s - load.adopt_s) / (load.group_s * _again(world, load, engines)[0])
        if made >= world.groups_per_step * (1.0 - 1e-9):
            return engines
    return world.most + 1


# Of the tokens that do not fit, as many are computed twice: a retracted answer is computed again up to where it was.
_TWICE: Final = 0.5
# The mean that workers report is over about so many seconds.
_LOSS_WINDOW_S: Final = 600.0


def _again(world: World, load: Load, engines: float) -> tuple[float, float]:
    """How often a token is computed, and how full a KV cache is, if so many engines share what admission allows."""
    groups = min(float(world.slots), (world.max_staleness + 1) * world.groups_per_step / max(engines, 1.0))
    wanted = groups * load.kv
    return 1.0 + _TWICE * max(0.0, wanted - 1.0), min(1.0, wanted)


def simulate(world: World, policy: Policy, seed: int = 0, start: int = 4, instant: bool = False) -> SimulatedRun:
    """Run it to its end.

    Args:
        instant: engines load and drain in no time, and none dies.
    """
    luck = random.Random(seed)
    state = _State(start, [], [])
    asked, changes, moments = start, 0, list[Moment]()
    seen = (0.0, 0.0)
    for tick in range(int(world.days * DAY_S / TICK_S)):
        now = tick * TICK_S
        load = world.load(now)
        _engines(world, state, now, asked, luck, instant)
        busy = _advance(world, state, load, luck)
        passed, waited = state.up_s - seen[0], state.waited_s - seen[1]
        # As the operator: the first step says nothing.
        silent = luck.random() < world.silent_share or state.steps < 1.0
        signals = Signals(
            engines=asked,
            ready=state.ready,
            wait_share=None if silent else waited / passed,
            busy=None if silent else busy,
            held=round(busy * world.slots * 0.5),
            slots=world.slots,
            step_s=load.step_s,
            kv=busy * state.kv,
            kv_short=round(busy) if _again(world, load, state.ready)[0] > 1.0 else 0,
            lost=state.lost,
        )
        if not silent:
            seen = (state.up_s, state.waited_s)
        wish = policy.size(Sight(now, signals, load))
        changes += wish != asked
        asked = wish
        need = float(needed(world, load))
        moments.append(Moment(now, asked, state.ready, need, state.steps, waited > 0))
    engine_hours = state.engine_s * world.engine_gpus / 3600.0
    learner_hours = world.days * 24.0 * world.learner_gpus
    return SimulatedRun(state.steps, engine_hours, engine_hours + learner_hours, changes, tuple(moments))


def _engines(world: World, state: _State, now: float, asked: int, luck: random.Random, instant: bool) -> None:
    """Engines are added, load, drain and die."""
    if instant:
        state.ready, state.starting, state.draining = asked, [], []
    else:
        state.ready += sum(at <= now for at in state.starting)
        state.starting = [at for at in state.starting if at > now]
        state.draining = [at for at in state.draining if at > now]
        dead = sum(luck.random() < world.deaths_a_day * TICK_S / DAY_S for _ in range(state.ready))
        state.ready -= dead
        # A dead engine is replaced by its controller.
        state.starting += [now + world.starts_s] * dead
        for _ in range(asked - state.ready - len(state.starting)):
            state.starting.append(now + world.starts_s)
        while state.ready + len(state.starting) > asked:
            if state.starting:
                state.starting.pop()
            else:
                state.ready -= 1
                state.draining.append(now + world.drains_s)
    state.engine_s += TICK_S * (state.ready + len(state.starting) + len(state.draining))


def _advance(world: World, state: _State, load: Load, luck: random.Random) -> float:
    """Generate and train for one tick; the mean number of busy engines, those that take weights included."""
    again, full = _again(world, load, state.ready)
    adopting = min(TICK_S, state.adopting_s)
    state.adopting_s -= adopting
    lost = adopting / TICK_S
    state.lost += (1.0 - math.exp(-TICK_S / _LOSS_WINDOW_S)) * (lost - state.lost)
    # As many as admission allows, of which a step's worth is in the learner's hands.
    room = (world.max_staleness + 1) * world.groups_per_step - state.groups
    rate = math.exp(luck.gauss(0.0, world.noise)) / (load.group_s * again)
    possible = state.ready * (TICK_S - adopting) * rate
    made = max(0.0, min(possible, room))
    state.groups += made
    busy = lost + (1.0 - lost) * (made / possible if possible else 0.0)
    state.kv = full * busy
    left = TICK_S
    while left > 1e-9:
        if state.left_s <= 0:
            if state.groups < world.groups_per_step:
                state.waited_s += left
                break
            state.groups -= world.groups_per_step
            state.left_s = load.step_s
            # Those of the step before.
            state.adopting_s = load.adopt_s
        worked = min(left, state.left_s)
        state.left_s -= worked
        state.steps += worked / load.step_s
        left -= worked
    state.up_s += TICK_S
    return state.ready * busy


def growing_answers(now: float) -> Load:
    """Answers that grow to four times their length in three days, and the learner's steps with them, but slower; the
    mixture of tasks changes twice a day."""
    days = now / DAY_S
    length = 1.0 + days
    mixture = 1.0 + 0.25 * math.sin(2.0 * math.pi * days * 2.0)
    return Load(group_s=14.0 * length * mixture, step_s=240.0 * (0.7 + 0.3 * length))


def shifts(now: float) -> Load:
    """Phases of eight hours, between which the load jumps."""
    phase = int(now / (8 * 3600.0)) % 4
    return Load(group_s=(15.0, 30.0, 10.0, 40.0)[phase], step_s=(240.0, 300.0, 240.0, 360.0)[phase])


def steady(now: float) -> Load:
    """The same load all the time."""
    del now
    return Load(group_s=20.0, step_s=300.0)


def slow_weights(now: float) -> Load:
    """The engines take longer and longer for new weights, up to a third of a step."""
    return Load(group_s=20.0, step_s=300.0, adopt_s=min(100.0, 20.0 + 40.0 * now / DAY_S))


def full_caches(now: float) -> Load:
    """Answers that grow until the groups of an engine take one and a half of its KV cache."""
    days = now / DAY_S
    return Load(group_s=16.0 + 4.0 * days, step_s=300.0, kv=0.06 + 0.05 * min(2.5, days))


LOADS: Final = {
    "growing answers": growing_answers,
    "shifts": shifts,
    "steady": steady,
    "slow weights": slow_weights,
    "full caches": full_caches,
}


def compare(world: World, seed: int = 0) -> dict[str, SimulatedRun]:
    """Every policy in one world; the static split is the one that fits the first hour."""
    limits = PoolLimits(1, world.most)
    first = world.load(0.0)
    fits = limits.clamp(needed(world, first))
    return {
        "controller": simulate(world, Controlled(limits), seed, fits),
        "static split": simulate(world, Fixed(fits), seed, fits),
        "HPA on GPU use": simulate(world, GpuUse(limits), seed, fits),
        "best static split in hindsight": best_static(world, seed),
        "hindsight": simulate(world, Hindsight(world, limits), seed, fits, instant=True),
    }


def best_static(world: World, seed: int) -> SimulatedRun:
    """The smallest static split with 95 % of the largest one's steps."""
    outcomes = list(_statics(world, seed))
    most = max(outcome.steps for outcome in outcomes)
    return next(outcome for outcome in outcomes if outcome.steps >= 0.95 * most)


def _statics(world: World, seed: int) -> Iterator[SimulatedRun]:
    for engines in range(1, world.most + 1):
        yield simulate(world, Fixed(engines), seed, engines)
