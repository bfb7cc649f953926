"""Who holds up a run, from the waits and heartbeats of its processes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.telemetry.waits import PendingWait, dumps
from golongrl.telemetry.watchdog import KINDS, Process, Stall, Watch, current, read, stalls, with_troubles


def learner(*waits: PendingWait, age_s: float = 0.5, id: str = "host") -> dict[str, Any]:
    return {"service": "learner", "id": id, "age_s": age_s, "fields": {"doing": "x", "waits": dumps(waits)}}


def worker(*waits: PendingWait, id: str = "rollout-0", age_s: float = 0.5, **fields: str) -> dict[str, Any]:
    told = {"engine": f"http://{id}:30000", "waits": dumps(waits), **fields}
    return {"service": "rollout", "id": id, "age_s": age_s, "fields": told}


GROUPS = PendingWait("rollout/rollout-0", "3 groups of step 4", 12.0)
GENERATE = PendingWait("engine", "{on} to generate", 11.0, 120.0, 3, "group")
LATE = PendingWait("engine", "{on} to generate", 121.0, 120.0, 3, "group")
MODEL = dumps([PendingWait("engine", "its model to end a step", 119.0)])
ITEMS = dumps([PendingWait("reward", "a process for", 16.0, 15.0, 2, "item")])
READING = dumps([PendingWait("storage", "{on}", 9.0, 1.0)])
SCORE = PendingWait("reward", "{on} to score", 9.0, None, 1, "group")
STEP = PendingWait("learner", "full: enough groups wait", 20.0)


@pytest.mark.parametrize(
    ("services", "told"),
    [
        ([learner(), worker()], []),
        # Waits alone are no trouble, however long: a group may take an hour.
        ([learner(PendingWait("rollout", "3 groups", 3600.0)), worker(PendingWait("engine", "{on}", 3600.0))], []),
        (
            [learner(GROUPS), worker(GENERATE, engine_silent_s="10")],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for engine http://rollout-0:30000 to generate 3 groups, 11 s <- "
                "engine http://rollout-0:30000 has not answered for 10 s"
            ],
        ),
        (
            [learner(GROUPS), worker(GENERATE, engine_paused_s="9", engine_paused_by="rollout-0 for version 7")],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for engine http://rollout-0:30000 to generate 3 groups, 11 s <- "
                "engine http://rollout-0:30000 is paused by rollout-0 for version 7, 9 s"
            ],
        ),
        (
            [learner(GROUPS), worker(SCORE, reward_silent_s="8"), worker(SCORE, id="rollout-1", reward_silent_s="11")],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for the reward service to score a group, 9 s <- "
                "the reward service has not answered for 11 s"
            ],
        ),
        # What a worker that reports nothing last said of its engine counts no more.
        (
            [learner(GROUPS), worker(GENERATE, age_s=9.0, engine_silent_s="10")],
            ["learner waits for 3 groups of step 4, 12 s <- rollout-0 has sent no heartbeat for 9 s"],
        ),
        (
            [learner(age_s=8.0), worker(STEP)],
            ["rollout-0 waits for full: enough groups wait, 20 s <- learner has sent no heartbeat for 8 s"],
        ),
        # An earlier learner on another host has been replaced.
        ([learner(age_s=200.0, id="old"), learner(), worker()], []),
        # Nobody waits for this one, and it is named all the same.
        ([learner(), worker(), worker(id="rollout-1", age_s=30.0)], ["rollout-1 has sent no heartbeat for 30 s"]),
        # Any worker will do: the one in trouble is named.
        (
            [learner(PendingWait("rollout", "2 groups of step 4", 7.0)), worker(id="rollout-1", age_s=9.0), worker()],
            ["learner waits for 2 groups of step 4, 7 s <- rollout-1 has sent no heartbeat for 9 s"],
        ),
        # Past its own deadline, with nobody in trouble.
        ([learner(PendingWait("ranks", "{on} to start", 61.0, 60.0))], ["learner waits for the ranks to start, 61 s"]),
        # Past the deadline of who waits for an engine that answers: it says itself what it waits for.
        (
            [learner(GROUPS), worker(LATE, engine_waits=MODEL)],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for engine http://rollout-0:30000 to generate 3 groups, 121 s <- "
                "engine http://rollout-0:30000 waits for its model to end a step, 119 s"
            ],
        ),
        (
            [
                learner(GROUPS),
                worker(SCORE),
                worker(SCORE, id="rollout-1", reward_waits=ITEMS),
            ],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for the reward service to score a group, 9 s <- "
                "the reward service waits for a process for 2 items, 16 s"
            ],
        ),
        # Both are late: one chain, which goes to the end.
        (
            [learner(PendingWait("rollout/rollout-0", "3 groups", 61.0, 60.0)), worker(LATE)],
            [
                "learner waits for 3 groups, 61 s <- "
                "rollout-0 waits for engine http://rollout-0:30000 to generate 3 groups, 121 s"
            ],
        ),
        # What an engine that does not answer, or one of a silent worker, said last may have changed.
        (
            [learner(GROUPS), worker(GENERATE, engine_silent_s="10", engine_waits=READING)],
            [
                "learner waits for 3 groups of step 4, 12 s <- "
                "rollout-0 waits for engine http://rollout-0:30000 to generate 3 groups, 11 s <- "
                "engine http://rollout-0:30000 has not answered for 10 s"
            ],
        ),
        (
            [learner(GROUPS), worker(age_s=9.0, engine_waits=READING)],
            ["learner waits for 3 groups of step 4, 12 s <- rollout-0 has sent no heartbeat for 9 s"],
        ),
    ],
)  # fmt: skip
def test_the_chain_ends_at_the_process_to_look_at(services: list[dict[str, Any]], told: list[str]) -> None:
    assert [str(stall) for stall in stalls(read(services))] == told


def test_a_run_has_one_learner() -> None:
    old, new = learner(id="a", age_s=40.0), learner(id="b", age_s=0.5)
    assert current([old, worker(age_s=50.0), new]) == [worker(age_s=50.0), new]
    assert current([old]) == [old]
    assert current([]) == []


def test_a_supervisor_knows_better() -> None:
    seen = read([learner(GROUPS), worker(GENERATE, engine_silent_s="10")])
    stopped = Process("engine/rollout-0", "engine-0", (), "was stopped by a signal (pid 7)")
    [stall] = stalls(with_troubles(seen, [stopped, Process("reward", "reward")]))
    assert str(stall).endswith(
        "rollout-0 waits for engine-0 to generate 3 groups, 11 s <- engine-0 was stopped by a signal (pid 7)"
    )
    assert (stall.kind, stall.name) == ("engine", "engine-0")


def test_what_answers_the_supervisor_is_not_in_trouble_for_being_slow_with_a_worker() -> None:
    seen = read([learner(GROUPS), worker(SCORE, engine_silent_s="9", reward_silent_s="9")])
    assert len(stalls(seen)) == 2
    asked = [Process("engine/rollout-0", "engine-0"), Process("reward", "reward")]
    assert stalls(with_troubles(seen, asked)) == []
    paused = read([learner(GROUPS), worker(engine_paused_s="9", engine_paused_by="somebody else")])
    [stall] = stalls(with_troubles(paused, asked))
    assert str(stall).endswith("engine-0 is paused by somebody else, 9 s")


def test_the_chain_that_reaches_the_learner_comes_first() -> None:
    seen = [learner(GROUPS), worker(GENERATE, engine_silent_s="9"), worker(id="rollout-1", age_s=50.0)]
    assert [stall.name for stall in stalls(read(seen))] == ["engine http://rollout-0:30000", "rollout-1"]


keys = st.sampled_from(["learner", "rollout/a", "rollout/b", "engine/a", "engine/b", "reward", "redis"])
some_waits = st.lists(
    st.builds(PendingWait, on=keys | st.sampled_from(KINDS), what=st.just("{on}"), for_s=st.floats(0, 100)), max_size=4
)


@given(st.dictionaries(keys, st.tuples(some_waits, st.sampled_from(["", "is silent"]))))
def test_every_process_in_trouble_ends_one_finite_chain(found: dict[str, tuple[list[PendingWait], str]]) -> None:
    processes = {key: Process(key, key, tuple(waits), trouble) for key, (waits, trouble) in found.items()}
    chains = stalls(processes)
    troubled = sorted(key for key, process in processes.items() if process.trouble)
    assert sorted(stall.culprit for stall in chains) == troubled
    for stall in chains:
        assert stall.links[-1] == f"{stall.culprit} is silent"
        assert len(set(stall.links)) == len(stall.links) <= 6


@given(st.dictionaries(keys, st.lists(st.builds(
    PendingWait, on=keys | st.sampled_from(KINDS), what=st.just("{on}"), for_s=st.floats(0, 100),
    deadline_s=st.none() | st.floats(0, 100),
), max_size=4)))  # fmt: skip
def test_whoever_waits_for_whom_chains_are_finite_and_one_is_told_if_anybody_is_late(
    found: dict[str, list[PendingWait]],
) -> None:
    processes = {key: Process(key, key, tuple(waits)) for key, waits in found.items()}
    late = any(wait.late for waits in found.values() for wait in waits)
    chains = stalls(processes)
    assert bool(chains) == late
    assert all(1 <= len(chain.links) <= 6 for chain in chains)


def test_only_what_lasts_is_told() -> None:
    watch, stall = Watch(lasting_s=3.0), Stall("reward", "reward", ("reward is silent",))
    assert [bool(watch.seen([stall], now)) for now in (10.0, 12.0, 13.0, 20.0)] == [False, False, True, True]
    assert watch.seen([], 21.0) == []
    assert watch.seen([stall], 22.0) == []
