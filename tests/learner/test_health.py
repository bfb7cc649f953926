"""What a scrape of the learner shows: its steps and the real queue's state at that moment."""

import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from golongrl.learner.observe.health import LearnerMetrics, create_app
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.queue_settings import queue_settings
from golongrl.queue import Lease, SampleQueue
from golongrl.serving import bind, served
from support.embedded_server import EmbeddedServer
from support.learner_run import small_recipe
from support.redis_server import free_port

RECORD = {
    "policy/version": 5.0,
    "perf/total_num_tokens": 100.0,
    "timing_s/take": 1.5,
    "timing_s/update_actor": 4.0,
    "timing_s/step": 6.0,
    "reward_by_type/T1": 0.25,
}


def test_the_clock_of_what_is_done_starts_over_with_each_step() -> None:
    status = LearnerStatus(since=0.0)
    status.set("updating", 1)
    assert status.since > 0
    status.since = 0.0
    status.set("updating", 1)
    status.set("updating")
    assert (status.since, status.step) == (0.0, 1)
    status.set("updating", 2)
    assert status.since > 0


async def test_steps_and_the_queue_are_scraped(tiny_model: Path, tmp_path: Path) -> None:
    settings = queue_settings(small_recipe(tiny_model))
    async with EmbeddedServer(free_port(), tmp_path) as server, SampleQueue.from_url(server.url, "test") as queue:
        metrics, status, port = LearnerMetrics(), LearnerStatus(), free_port()
        await queue.setup(settings, [list(range(9))], ["EM"] * 9)
        status.set("updating", 3)
        async with (
            served(create_app(status, queue, metrics), bind("127.0.0.1", port)),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            metrics.observe(3, RECORD)
            metrics.observe(4, RECORD)
            health = (await client.get("/healthz")).json()
            assert (health["status"], health["doing"], health["step"]) == ("ok", "updating", 3)

            async def scrape() -> dict[tuple[str, str], float]:
                return _values((await client.get("/metrics")).text)

            values = await _with_queue(scrape)
            assert values["golongrl_learner_step", ""] == 4
            assert values["golongrl_learner_policy_version", ""] == 5
            assert values["golongrl_learner_steps_total", ""] == 2
            assert values["golongrl_learner_tokens_total", ""] == 200
            assert values["golongrl_learner_phase_seconds_total", "take"] == 3
            assert ("golongrl_learner_phase_seconds_total", "step") not in values
            assert values["golongrl_learner_reward", "T1"] == 0.25
            assert values["golongrl_queue_groups", "unread"] == 9
        with socket.create_server(("127.0.0.1", port)):
            pass  # free again


async def test_a_scrape_shows_the_queue_as_it_is_or_not_at_all(tiny_model: Path, tmp_path: Path) -> None:
    settings = queue_settings(small_recipe(tiny_model, "queue.lease_s=3600"))
    async with EmbeddedServer(free_port(), tmp_path) as server, SampleQueue.from_url(server.url, "test") as queue:
        await queue.setup(settings, [list(range(9))], ["EM"] * 9)
        metrics = LearnerMetrics()
        metrics.observe(3, RECORD)
        transport = httpx.ASGITransport(create_app(LearnerStatus(), queue, metrics))
        async with httpx.AsyncClient(transport=transport, base_url="http://learner") as client:

            async def scrape() -> dict[tuple[str, str], float]:
                return _values((await client.get("/metrics")).raise_for_status().text)

            assert (await _with_queue(scrape))["golongrl_queue_groups", "leased"] == 0
            for leased in (1, 2):
                assert isinstance(await queue.lease("w", 0), Lease)
                values = await _with_queue(scrape)
                assert values["golongrl_queue_groups", "leased"] == values["golongrl_queue_leases", "w"] == leased
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)  # accepts connections, and answers nothing
            try:
                values = await scrape()
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert values["golongrl_learner_step", ""] == 3
            assert not [name for name, _ in values if name.startswith("golongrl_queue")]
            assert (await _with_queue(scrape))["golongrl_queue_groups", "leased"] == 2
            await server.kill()
            assert not [name for name, _ in await scrape() if name.startswith("golongrl_queue")]


async def _with_queue(scrape: Callable[[], Awaitable[dict[tuple[str, str], float]]]) -> dict[tuple[str, str], float]:
    """A scrape for which the queue answered in time; on a busy machine that may not be the first."""
    values = await scrape()
    while not any(name.startswith("golongrl_queue") for name, _ in values):
        values = await scrape()
    return values


def _values(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
