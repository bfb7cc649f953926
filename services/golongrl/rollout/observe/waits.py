"""What a worker waits for, reported in one place: state, metric and log always agree.

Every wait has a label (of the metric golongrl_rollout_waiting), and none is given up. The loop looks four times a
second; where a look costs something it comes less often:

    setup           the learner to create the run
    queue           Redis; each look takes its patience (5 s)
    engine          an engine to answer (each call has a deadline, doubled up to 8 times while there is silence), or to
                    make groups again (a group at least every 10 s)
    weights         an announcement
    source          announced weights that the worker cannot get: tried at least every 30 s
    quarantine      an engine that does not confirm them, or answered nonsense: tried at least every 30 s
    drain           groups or rows in flight, which end, or lose their leases without progress (stall_s)
    slots           a response to end: likewise
    reward          the reward service, with finished groups waiting for it: until their rows are given back
    full, behind, ahead, bytes, no_rows, lineage: the queue's refusals of a lease
    stopped         the run is over, unless a learner resumes it

What waiting cannot fix ends the worker: data, recipe and model that do not fit together, a reward service of another
version, a second process under the same worker id, a queue that refuses the password.
"""

import time

import structlog

from golongrl.rollout.backoff import Pause
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State

log = structlog.get_logger(__name__)


class WaitReport:
    """Keeps `state` and `metrics` on what the worker's loop does and waits for."""

    def __init__(self, state: State, metrics: RolloutMetrics, slots: int) -> None:
        self._state = state
        self._metrics = metrics
        self._slots = slots
        self._label: str | None = None
        self._generated = False

    def does(self, phase: str, reason: str | None = None, label: str | None = None) -> None:
        """The worker works, or (with a reason) waits for something that it has asked for."""
        self._state.phase = phase
        self._state.waiting_for = reason
        if label != self._state.wait:
            self._state.wait, self._state.since = label, time.monotonic()
        self._label = label
        self._metrics.wait_for(label)
        # The first load of the weights is no loss of an engine that could generate.
        self._generated |= phase == "generating"
        if self._generated:
            self._state.adoption.see(self._lost(label), time.monotonic())

    def _lost(self, label: str | None) -> float:
        """Which share of the engine new weights cost now: all of it, or the places that stay empty."""
        if label == "drain":
            return max(0.0, 1.0 - self._state.groups / self._slots)
        return float(label == "adoption")

    def waits(self, pause: Pause) -> None:
        """The loop can do nothing before something changes."""
        # Counts inside a reason change all the time, and full slots are no news; what is wrong with an engine is.
        if pause.label not in (self._label, "slots") or (
            pause.label == "engine" and pause.reason != self._state.waiting_for
        ):
            log.info("waiting", phase=pause.phase, waiting_for=pause.reason)
        self.does(pause.phase, pause.reason, pause.label)
