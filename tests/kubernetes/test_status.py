"""What `golongrl status` says of a run as a whole: what is stuck, what is done, and what nobody knows."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.look.queue import look_at_queue
from golongrl.kubernetes.look.status import end, lines, stuck
from golongrl.queue import SampleQueue
from golongrl.rollout.backoff import Pause
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.observe.waits import WaitReport
from golongrl.telemetry.waits import PendingWait, dumps
from support.groups import queue_settings

QUEUE: dict[str, Any] = {
    "version": 40, "committed": 40, "leased": 0, "ready": 0, "groups_per_step": 2, "in_batches": 0, "trained": 80,
    "rows": 80, "rejected": 0, "bytes": 0, "reserved_bytes": 0, "max_bytes": 1 << 20, "staleness": {},
    "max_staleness": 1, "stopped": None, "blocking": None,
}  # fmt: skip
BROKEN = Pod("w-0", "rollout", "Pending", ready=False, restarts=0, trouble="worker: ImagePullBackOff: no such tag")


def status(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own: it sets up logging."""
    line = [sys.executable, "-m", "golongrl", "status", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)


def worker(**fields: str) -> dict[str, Any]:
    return {"service": "rollout", "id": "pod-a", "age_s": 1.0, "fields": {"phase": "waiting", **fields}}


def learner(doing: str = "updating", for_s: str = "1") -> dict[str, Any]:
    return {"service": "learner", "id": "host", "age_s": 1.0, "fields": {"doing": doing, "for_s": for_s}}


def ended(reason: str, detail: str) -> dict[str, Any]:
    return QUEUE | {"stopped": {"reason": reason, "detail": detail}}


def text(*items: Any, **more: Any) -> str:
    return "\n".join(lines(*items, **more))


def test_nobody_to_ask_is_not_fine() -> None:
    told = "queue state unknown: no running worker or learner answered"
    assert text([], None, None) == told
    assert text([BROKEN], None, None).splitlines()[-2:] == [f"stuck: pod {BROKEN.name}: {BROKEN.trouble}", told]


def test_the_waits_of_a_heartbeat_are_words() -> None:
    waits = dumps(
        [PendingWait("ranks", "{on} to do step 4", 3.0), PendingWait("engine", "{on} to generate", 2, 60, 3, "group")]
    )
    shown = text([], QUEUE, [worker(waits=waits, reward_waits="[]"), learner()])
    assert "waits ranks to do step 4, 3 s; engine to generate 3 groups, 2 s (reported" in shown
    assert "reward_waits" not in shown


OVER = worker(phase="idle", wait="stopped", waiting_for="the run is over: 40 steps", for_s="9999")


@pytest.mark.parametrize(
    ("queue", "services", "told"),
    [
        (ended("complete", "40 steps"), [OVER], ["done: 40 steps"]),
        (ended("complete", "40 steps"), [OVER, learner("waiting for step 41: none", "999")], ["done: 40 steps"]),
        (ended("complete", "40 steps"), [], ["done: 40 steps"]),
        (ended("failed", "the loss is not finite"), [OVER], ["failed: the loss is not finite"]),
        (ended("all_equal", "9 groups had equal rewards"), [], ["failed: 9 groups had equal rewards"]),
        (
            ended("exhausted", "every row is trained or rejected"),
            [OVER, learner("exporting")],
            ["ending: every row is trained or rejected"],
        ),
        (QUEUE, [worker(phase="generating", waiting_for=""), learner()], ["nothing is stuck"]),
    ],
)  # fmt: skip
def test_a_run_that_has_ended_is_not_stuck(queue: Any, services: Any, told: list[str]) -> None:
    assert text([], queue, services).split("\n\n")[-1].splitlines() == told
    assert (end(queue) != "") == (queue["stopped"] is not None)


def test_a_failed_run_still_names_what_is_broken_and_a_complete_one_does_not() -> None:
    assert stuck([BROKEN], ended("failed", "x"), [OVER], ["secret hf does not exist: job x needs it"]) == [
        "secret hf does not exist: job x needs it",
        "pod w-0: worker: ImagePullBackOff: no such tag",
    ]
    assert stuck([BROKEN], ended("complete", "40 steps"), [OVER], ["x"]) == []


def test_a_release_whose_learner_is_done_is_not_stuck_where_no_queue_answers() -> None:
    """Redis is scaled down or evicted, and the workers that miss it crash again and again."""
    told = text(
        [BROKEN], None, None, refused=["secret hf does not exist: job x needs it"], done="done: job x is complete"
    )
    assert told.split("\n\n")[-1].splitlines() == ["done: job x is complete"]


def test_a_failed_helm_test_is_shown_and_stops_nothing() -> None:
    told = text([replace(BROKEN, name="demo-test", component="test")], QUEUE, [worker(), learner()])
    assert "demo-test" in told
    assert told.splitlines()[-1] == "nothing is stuck"


def test_a_suspended_run_is_said_to_be_and_its_broken_pods_are_named() -> None:
    held = ["trainingrun r is suspended: spec.suspend is set"]
    assert text([], None, None, held=held).splitlines()[-2] == held[0]
    assert text([BROKEN], QUEUE, [worker()], held=held).splitlines()[-2:] == [
        held[0],
        "stuck: pod w-0: worker: ImagePullBackOff: no such tag",
    ]


def test_what_could_not_be_checked_is_never_fine() -> None:
    told = text([], QUEUE, [worker(), learner()], unknown=["list of events: 403"]).splitlines()
    assert told[-2:] == ["not checked: list of events: 403", "nothing is stuck, as far as it was checked"]


def test_while_somebody_is_away_nothing_is_said_to_be_fine() -> None:
    away = ["learner: restarting (death 1)"]
    assert text([], QUEUE, [worker()], away=away, chains=False).splitlines()[-1] == f"away: {away[0]}"
    over = ended("complete", "40 steps")
    assert text([], over, [OVER], away=["engine-0: ending"], chains=False).splitlines()[-1] == "done: 40 steps"


def test_a_real_queue_is_shown(redis_url: str, run_with_queue: str) -> None:
    picture = json.loads(json.dumps(asyncio.run(look_at_queue(redis_url, run_with_queue))))
    told = text(None, picture["queue"], picture["services"])
    assert "leased 1, ready 0 of 2 a step" in told
    assert "max_staleness 1" in told
    assert "rollout pod-a: phase waiting, waiting_for the engine (reported 0 s ago)" in told
    assert "stuck: no learner reports to the queue" in told
    picture["queue"]["blocking"] = {"uid": "0-3", "worker": "pod-a", "progress_age_s": 500.0}
    assert "stuck: the next batch waits for group 0-3 on pod-a, which made no progress for 500 s" in text(
        None, picture["queue"], []
    )


IDLE = "waiting for step 3: 1 of 2 groups"


@pytest.mark.parametrize(
    ("label", "for_s", "doing", "idle_s", "late"),
    [
        # A response to end, or groups in flight: their leases' progress tells, however long it takes.
        ("slots", "7200", "updating", "1", False),
        ("slots", "7200", IDLE, "7200", False),
        ("drain", "7200", "updating", "1", False),
        # What the learner ends: not while it works, however long a step takes, and not in the moment between two.
        *((label, "7200", "updating", "7200", False) for label in ("full", "behind", "bytes", "no_rows", "weights")),
        *((label, "7200", IDLE, "1", False) for label in ("full", "behind", "bytes", "no_rows", "weights")),
        *((label, "7200", IDLE, "121", True) for label in ("full", "behind", "bytes", "no_rows", "weights")),
        ("full", "1", IDLE, "121", False),
        # The others have deadlines of their own.
        *((label, "119", "updating", "1", False) for label in ("queue", "reward", "source", "ahead", "lineage")),
        *((label, "121", "updating", "1", True) for label in ("queue", "reward", "source", "ahead", "lineage")),
        ("adoption", "659", IDLE, "600", False),
        ("adoption", "721", "updating", "1", True),
        ("setup", "2600", "updating", "1", False),
        ("setup", "2800", "updating", "1", True),
        ("stopped", "7200", "updating", "1", False),
    ],
)
def test_a_wait_is_stuck_only_past_its_deadline(label: str, for_s: str, doing: str, idle_s: str, late: bool) -> None:
    waits = worker(wait=label, waiting_for="that", for_s=for_s, engine_version="3")
    found = stuck((), QUEUE, [waits, learner(doing, idle_s)])
    assert found == ([f"rollout pod-a waits for that, for {for_s} s"] if late else [])


@pytest.mark.parametrize(("version", "for_s", "late"), [("", "2600", False), ("", "2800", True), ("3", "121", True)])
def test_an_engine_may_take_long_to_load_and_not_to_come_back(version: str, for_s: str, late: bool) -> None:
    waits = worker(wait="engine", waiting_for="the engine", for_s=for_s, engine_version=version)
    assert bool(stuck((), QUEUE, [waits, learner()])) == late


def test_a_wait_of_unknown_length_is_not_fine() -> None:
    assert stuck((), QUEUE, [worker(waiting_for="the engine"), learner()]) == ["rollout pod-a waits for the engine"]


def test_processes_that_do_not_report_and_engines_in_quarantine_are_named() -> None:
    assert stuck((), QUEUE, []) == [
        "no learner reports to the queue: it has not started, or has ended",
        "no rollout worker reports to the queue: nothing generates",
    ]
    quarantined = worker(phase="quarantined", quarantine="it has version 3, not 4", waiting_for="x", for_s="9")
    assert stuck((), QUEUE, [quarantined, learner()]) == [
        "rollout pod-a: its engine is quarantined: it has version 3, not 4"
    ]


def test_a_full_queue_is_stuck_only_while_the_learner_is_idle() -> None:
    full = QUEUE | {"bytes": 1 << 20}
    assert stuck((), full, [worker(), learner()]) == []
    assert stuck((), full, [worker(), learner(IDLE, "300")]) == [
        "the queue is full: no lease until the learner's next checkpoint frees its batches"
    ]


def test_a_workers_heartbeat_says_what_it_waits_for_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a wait starts again with another label, and not with another count in its words."""
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    state = State()
    report = WaitReport(state, RolloutMetrics(), 2)
    report.waits(Pause("waiting", "reward", "the reward service: 3 groups"))
    clock = 1100.0
    report.waits(Pause("waiting", "reward", "the reward service: 4 groups"))
    clock = 1150.0
    found = state.heartbeat("http://engine")
    assert (found["wait"], found["waiting_for"], found["for_s"]) == ("reward", "the reward service: 4 groups", "150")
    report.does("generating")
    found = state.heartbeat("http://engine")
    assert (found["wait"], found["waiting_for"], found["for_s"]) == ("", "", "0")


@pytest.fixture
def run_with_queue(redis_url: str, run_name: str) -> str:
    async def fill() -> None:
        async with SampleQueue.from_url(redis_url, run_name) as queue:
            settings = queue_settings(2, max_bytes=1 << 20, lease_s=3600, stall_s=3600)
            await queue.setup(settings, [[0, 1, 2, 3]], ["T1"] * 4)
            await queue.beat("rollout", "pod-a", {"phase": "waiting", "waiting_for": "the engine"}, 3600)
            await queue.lease("pod-a", 0)

    asyncio.run(fill())
    return run_name


def test_the_command_asks_a_queue_directly(redis_url: str, run_with_queue: str) -> None:
    words = ["--redis-url", redis_url, "--run", run_with_queue]
    assert "queue: version 0" in status(*words).stdout
    assert json.loads(status(*words, "--json").stdout)["queue"]["leased"] == 1


def test_a_silent_queue_is_one_line() -> None:
    """Of many tries; what a pod prints for `golongrl status --release` stays JSON alone."""
    done = status("--redis-url", "redis://127.0.0.1:1/0", "--run", "x", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Redis at 127.0.0.1:1" in done.stderr


def test_who_waits_for_what_does_not_answer_is_a_chain() -> None:
    groups = PendingWait("rollout/pod-a", "3 groups of step 4", 12.0)
    generate = PendingWait("engine", "{on} to generate", 11.0, None, 3, "group")
    waiting = learner()
    waiting["fields"]["waits"] = dumps([groups])
    asks = worker(wait="slots", waits=dumps([generate]), engine="http://e:1", engine_silent_s="10")
    chain = (
        "learner waits for 3 groups of step 4, 12 s <- pod-a waits for engine http://e:1 to generate 3 groups, 11 s <- "
        "engine http://e:1 has not answered for 10 s"
    )
    assert stuck((), QUEUE, [asks, waiting]) == [chain]
    assert stuck((), QUEUE, [asks, waiting], chains=False) == []
    silent = {**worker(), "age_s": 30.0}
    assert stuck((), QUEUE, [silent, waiting]) == [
        "learner waits for 3 groups of step 4, 12 s <- pod-a has sent no heartbeat for 30 s"
    ]
    assert stuck((), ended("complete", "40 steps"), [silent, waiting]) == []
