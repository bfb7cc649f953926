"""The scheduler's rules, by example and over random histories."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from golongrl.engine.scheduler import (
    DuplicateRequestError,
    Finish,
    GenerationRequest,
    QueueFullError,
    RequestSampling,
    Scheduler,
    SequencePhase,
    TokenSpan,
    first_stop,
)


def letters(ids: Sequence[int]) -> str:
    """A vocabulary of one letter a token."""
    return "".join(chr(ord("a") + token) for token in ids)


def scheduler(max_batch: int = 2, max_queue: int = 10) -> Scheduler:
    return Scheduler(max_batch, max_queue, "0", letters)


def request(rid: str, prompt: tuple[int, ...] = (1,), parent: str | None = None, **sampling) -> GenerationRequest:
    return GenerationRequest(rid, prompt, RequestSampling(**{"max_new_tokens": 5, **sampling}), parent=parent)


def feed(machine: Scheduler, each: GenerationRequest, *tokens: int) -> None:
    for token in tokens:
        machine.extend(each, token, -1.0)


def test_equal_prompts_are_prefilled_once_and_long_ones_wait_for_the_next_round() -> None:
    machine = scheduler(max_batch=8)
    requests = [request("a", (1, 2)), request("b", (1, 2)), request("c", (3,) * 9), request("d", (1, 2))]
    machine.submit(requests)
    (first,) = machine.admit(max_tokens=5)
    assert [each.rid for each in first.requests] == ["a", "b"]
    assert [each.cached_tokens for each in first.requests] == [0, 2]
    # c alone exceeds the budget and still runs; d comes after it, not before.
    (second,) = machine.admit(max_tokens=5)
    assert [each.rid for each in second.requests] == ["c"]
    assert [each.rid for each in machine.running] == ["a", "b", "c"]


def test_a_retracted_request_returns_to_the_head_with_its_output_and_is_prefilled_with_it() -> None:
    machine = scheduler(max_batch=1)
    old, new = request("old", (1, 2)), request("new")
    machine.submit([old, new])
    machine.admit(100)
    feed(machine, old, 7, 8)
    assert machine.pause("retract") == []
    assert machine.admit(100) == []
    machine.version = "1"
    machine.resume()
    (prefill,) = machine.admit(100)
    assert (prefill.tokens, prefill.requests) == ((1, 2, 7, 8), (old,))
    feed(machine, old, 9)
    assert old.spans == [TokenSpan("0", 0, 2), TokenSpan("1", 2, 3)]
    assert old.retractions == 1


@pytest.mark.parametrize(
    ("sampling", "tokens", "finish"),
    [
        ({"max_new_tokens": 3}, (0, 0, 0), Finish("length")),
        ({"stop_token_ids": frozenset({4})}, (0, 4), Finish("stop", matched=4)),
        ({"max_new_tokens": 2, "stop_token_ids": frozenset({4})}, (0, 4), Finish("length")),
        ({"stop": ("cab",)}, (1, 2, 0, 1), Finish("stop", matched="cab")),
        ({"stop": ("zz", "b")}, (0, 1), Finish("stop", matched="b")),
    ],
)
def test_what_ends_a_response(sampling, tokens, finish) -> None:
    machine = scheduler()
    each = request("a", **sampling)
    machine.submit([each])
    machine.admit(100)
    feed(machine, each, *tokens)
    assert each.finish == finish
    assert (each.phase, machine.live) == (SequencePhase.FINISHED, [])


def test_abort_by_the_callers_id_ends_all_its_responses_and_an_unknown_id_none() -> None:
    machine = scheduler(max_batch=1)
    machine.submit([request("a_0", parent="a"), request("a_1", parent="a"), request("b")])
    machine.admit(100)
    assert machine.abort(lambda each: each.named("nobody")) == []
    assert [(each.rid, each.finish.message) for each in machine.abort(lambda each: each.named("a"))] == [
        ("a_0", "Aborted"),
        ("a_1", "Abort in waiting queue"),
    ]
    assert [each.rid for each in machine.live] == ["b"]


def test_submission_is_all_or_none() -> None:
    machine = scheduler(max_batch=1, max_queue=1)
    machine.submit([request("a")])
    with pytest.raises(DuplicateRequestError, match="a"):
        machine.submit([request("b"), request("a")])
    with pytest.raises(DuplicateRequestError, match="c"):
        machine.submit([request("c"), request("c")])
    with pytest.raises(QueueFullError):
        machine.submit([request("b"), request("c")])
    assert [each.rid for each in machine.live] == ["a"]


def test_a_paused_engine_is_busy_only_if_cache_is_held() -> None:
    machine = scheduler()
    machine.submit([request("a")])
    assert machine.busy
    machine.pause("in_place")
    assert not machine.busy
    machine.resume()
    machine.admit(100)
    machine.pause("in_place")
    assert machine.busy
    machine.pause("retract")
    assert not machine.busy


def test_nothing_is_extended_while_paused() -> None:
    machine = scheduler()
    each = request("a")
    machine.submit([each])
    machine.admit(100)
    machine.pause("in_place")
    with pytest.raises(ValueError, match="cannot be extended"):
        machine.extend(each, 1, -1.0)


def test_first_stop() -> None:
    assert first_stop("abc", ["x", "c", "b"]) == "c"
    assert first_stop("abc", []) is None


class Histories(RuleBasedStateMachine):
    """Any order of arrivals, steps, aborts, pauses and version changes keeps the module's promises."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = scheduler(max_batch=3, max_queue=4)
        self.everything: list[GenerationRequest] = []
        self.ended: dict[str, tuple[int, Finish | None]] = {}
        self.made = 0

    @rule(count=st.integers(1, 3), prompt=st.integers(0, 2), longest=st.integers(1, 4))
    def submit(self, count: int, prompt: int, longest: int) -> None:
        fresh = [
            request(
                f"r{self.made + i}", (prompt,) * (prompt + 1), max_new_tokens=longest, stop_token_ids=frozenset({3})
            )
            for i in range(count)
        ]
        room = 4 + 3 - len(self.machine.running) - len(self.machine.waiting)
        if count > room:
            with pytest.raises(QueueFullError):
                self.machine.submit(fresh)
            return
        self.machine.submit(fresh)
        self.made += count
        self.everything += fresh

    @precondition(lambda self: self.machine.live)
    @rule(pick=st.randoms(use_true_random=False))
    def submit_a_live_id(self, pick) -> None:
        rid = pick.choice(self.machine.live).rid
        with pytest.raises(DuplicateRequestError):
            self.machine.submit([request(rid)])

    @rule(tokens=st.integers(1, 6))
    def admit(self, tokens: int) -> None:
        paused, free = self.machine.paused, 3 - len(self.machine.running)
        waiting = [each.rid for each in self.machine.waiting]
        prefills = self.machine.admit(tokens)
        started = [each for prefill in prefills for each in prefill.requests]
        assert not (paused and started)
        assert bool(started) == (not paused and free > 0 and bool(waiting))
        for prefill in prefills:
            assert all(each.tokens == prefill.tokens for each in prefill.requests)
        # A prefix of the queue: nobody is overtaken.
        assert sorted(each.rid for each in started) == sorted(waiting[: len(started)])

    @precondition(lambda self: self.machine.running and self.machine.paused is None)
    @rule(tokens=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def step(self, tokens: list[int]) -> None:
        for each, token in zip(list(self.machine.running), tokens, strict=False):
            ended = self.machine.extend(each, token, -0.5)
            assert ended == (token == 3 or len(each.output) == each.sampling.max_new_tokens)

    @rule(pick=st.integers(0, 30))
    def abort(self, pick: int) -> None:
        for each in self.machine.abort(lambda each: each.named(f"r{pick}")):
            assert each.finish.type == "abort"

    @rule(mode=st.sampled_from(["abort", "retract", "in_place"]))
    def pause(self, mode) -> None:
        running = list(self.machine.running)
        self.machine.pause(mode)
        assert self.machine.running == (running if mode == "in_place" else [])
        if mode == "retract":
            assert list(self.machine.waiting)[: len(running)] == running

    @rule()
    def resume(self) -> None:
        self.machine.resume()

    @rule(version=st.sampled_from(["0", "1", "2"]))
    def new_version(self, version: str) -> None:
        self.machine.version = version

    @invariant()
    def every_request_is_in_one_place(self) -> None:
        live = self.machine.live
        assert len(self.machine.running) <= 3
        assert len({id(each) for each in live}) == len(live)
        assert {each.rid for each in live} == {e.rid for e in self.everything if e.phase is not SequencePhase.FINISHED}
        assert all(each.phase is SequencePhase.RUNNING for each in self.machine.running)
        assert all(each.phase is SequencePhase.WAITING for each in self.machine.waiting)

    @invariant()
    def spans_cover_the_output(self) -> None:
        for each in self.everything:
            edges = [0, *(span.end for span in each.spans)]
            assert [span.start for span in each.spans] == edges[:-1]
            assert edges[-1] == len(each.output) == len(each.logprobs)
            versions = [span.version for span in each.spans]
            assert all(a != b for a, b in pairwise(versions))

    @invariant()
    def finished_is_final(self) -> None:
        for each in self.everything:
            assert (each.finish is not None) == (each.phase is SequencePhase.FINISHED)
            if each.finish is not None:
                seen = (len(each.output), each.finish)
                assert self.ended.setdefault(each.rid, seen) == seen


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)
