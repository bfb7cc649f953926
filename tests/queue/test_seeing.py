"""What people and Prometheus see of a queue."""

import asyncio
import json
import socket

import pytest
import typer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from golongrl.errors import InputError
from golongrl.kubernetes.command import status
from golongrl.queue import NotSetUpError, Patience, QueueError, RejectReason, SampleQueue
from golongrl.queue.command import app
from golongrl.queue.metrics import QueueCollector
from support.redis_server import free_port

from .conftest import Play

look = typer.Typer()
look.command()(status)


async def busy(play: Play) -> Play:
    """One batch trained, one lease generating, one rejected, one released."""
    await play.start(rows=10, max_staleness=2)
    for lease in await play.leases(2):
        await play.submit(lease)
    await play.batch(1)
    await play.announce(1)
    await play.finish(1)
    await play.commit(1)
    slow, rejected, released, ready = await play.leases(4)
    await play.queue.reject(rejected, RejectReason.OVERLONG)
    await play.queue.release(released, "abort")
    await play.queue.advance(20)
    await play.queue.renew("w", {slow.token: 77}, {slow.token: "generating"})
    await play.submit(ready)
    await play.queue.advance(30)
    return play


async def test_stats_name_the_group_that_holds_things_up(play: Play) -> None:
    stats = await (await busy(play)).queue.stats()
    assert stats.blocking is not None
    assert (stats.blocking.uid, stats.blocking.worker, stats.blocking.phase) == ("0-2", "w", "generating")
    assert (stats.blocking.progress, stats.blocking.age_s, stats.blocking.progress_age_s) == (77, 50.0, 30.0)
    assert stats.oldest_wait_s == 30
    assert stats.staleness == {1: 2}
    assert stats.trained_staleness == {0: 2}
    assert stats.redone_by == {"released:abort": 1}
    assert stats.rejected_by == {"overlong": 1}
    wait = await play.waits(2)
    assert (wait.uid, wait.worker, wait.phase) == ("0-2", "w", "generating")
    assert "waits for 0-2 on worker w, generating, 77 tokens, last progress 30 s ago" in wait.detail


async def test_metrics_can_be_scraped(play: Play) -> None:
    collector = QueueCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    assert generate_latest(registry) == b""
    assert await collector.refresh((await busy(play)).queue) is None
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert samples["golongrl_queue_groups", "ready"] == 1
    assert samples["golongrl_queue_groups", "unread"] == 4
    assert samples["golongrl_queue_groups", "returned"] == 1
    assert samples["golongrl_queue_rejected_total", "overlong"] == 1
    assert samples["golongrl_queue_redone_total", "released:abort"] == 1
    assert samples["golongrl_queue_trained_total", "0"] == 2
    assert samples["golongrl_queue_leases", "w"] == 1
    assert samples["golongrl_queue_oldest_lease_seconds", "w"] == 50
    assert samples["golongrl_queue_stalled_seconds",] == 30


async def test_metrics_of_a_queue_that_is_not_there_are_left_out(play: Play) -> None:
    collector = QueueCollector(await (await busy(play)).queue.stats())
    async with SampleQueue.from_url(f"redis://127.0.0.1:{free_port()}/0", "r") as nowhere:
        assert await collector.refresh(nowhere, within_s=0.1) == "the queue did not answer within 0.1 s"
    assert collector.stats is None
    async with SampleQueue.from_url(f"redis://127.0.0.1:{free_port()}/0", "r", patience=Patience(0)) as hasty:
        assert "waited for a connection" in (await collector.refresh(hasty) or "")


async def test_peek(play: Play) -> None:
    await busy(play)
    places = {uid: (await play.queue.peek(uid)).state for uid in ("0-0", "0-2", "0-3", "0-4", "0-5", "0-9")}
    assert places == {
        "0-0": "trained",
        "0-2": "leased",
        "0-3": "rejected",
        "0-4": "returned",
        "0-5": "ready",
        "0-9": "unread",
    }
    group = (await play.queue.peek("0-5")).group
    assert group is not None
    assert len(group.responses) == 2
    for wrong in ("0-10", "7-0", "x", "1"):
        with pytest.raises(QueueError):
            await play.queue.peek(wrong)


async def test_presence_ends(play: Play) -> None:
    await play.queue.beat("rollout", "w1", {"version": "3"}, ttl_s=60)
    await play.queue.beat("learner", "l", {}, ttl_s=60)
    await play.queue.beat("rollout", "gone", {}, ttl_s=-1)
    found = await play.queue.services()
    assert [(one.service, one.id, one.fields) for one in found] == [
        ("learner", "l", {}),
        ("rollout", "w1", {"version": "3"}),
    ]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging belongs to the process, and this one is pytest's."""
    monkeypatch.setattr("golongrl.telemetry.logging.configure", lambda *_, **__: None)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("command", "words"), [(app, ["stats"]), (look, [])])
def test_a_server_that_the_environment_named_and_that_is_dead_is_named_with_its_variable(
    command: typer.Typer, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golongrl.queue.look.PATIENCE_S", 0.1)
    monkeypatch.setenv("GOLONGRL_REDIS_URL", "redis://127.0.0.1:1/0")
    named = CliRunner().invoke(command, [*words, "--run", "mine"])
    assert str(named.exception).startswith("GOLONGRL_REDIS_URL: ")
    typed = CliRunner().invoke(command, [*words, "--run", "mine", "--redis-url", "redis://127.0.0.1:2/0"])
    assert "Redis at 127.0.0.1:2 kept failing" in str(typed.exception)
    assert "GOLONGRL_REDIS_URL" not in str(typed.exception)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("redis", ["stats"]), ("redis", ["check"]), ("redis", ["remove", "--yes"]), ("redis", ["set-aside", "list"]),
        ("rediss", ["stats"]),
    ],
)  # fmt: skip
def test_a_server_that_takes_connections_and_is_silent_is_named_soon(
    scheme: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golongrl.queue.look.LOOK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"{scheme}://{server}/0"
        said = CliRunner().invoke(app, [*words, "--run", "mine", "--redis-url", url]).exception
    hint = "; one without TLS is silent to rediss://, give redis://" if scheme == "rediss" else ""
    assert str(said) == f"Redis at {server} has not answered for 0.2 s{hint}"


@pytest.mark.usefixtures("quiet")
def test_command(redis_url: str, run_name: str, play: Play) -> None:

    async def prepare() -> None:
        async with SampleQueue.from_url(redis_url, run_name) as queue:
            await busy(Play(queue))

    asyncio.run(prepare())
    runner = CliRunner(env={"GOLONGRL_REDIS_URL": redis_url, "GOLONGRL_RUN": run_name})
    text = runner.invoke(app, ["stats"])
    assert text.exit_code == 0
    assert "next batch waits for 0-2 on w: generating, 77 tokens" in text.stdout
    assert json.loads(runner.invoke(app, ["stats", "--json"]).stdout)["rejected_by"] == {"overlong": 1}
    peeked = runner.invoke(app, ["peek", "0-5"])
    assert peeked.stdout.startswith("0-5: ready")
    assert "1: 4 tokens, stop, reward 1, v0[0:4]" in peeked.stdout
    missing = runner.invoke(app, ["peek", "0-99"]).exception
    assert isinstance(missing, QueueError)
    assert str(missing) == f"run {run_name} has no row 0-99"
    malformed = ("0", "\u00b2-1", "\u0663-1", "-1-0", "0-1\n", "9" * 30 + "-1", "0-" + "9" * 5000)
    for uid in (*malformed, "00-0", "0-00", "0-05"):
        no_row = runner.invoke(app, ["peek", "--", uid]).exception
        assert isinstance(no_row, QueueError), uid
        assert "is not of the form EPOCH-ROW" in str(no_row)
    assert "has no row" in str(runner.invoke(app, ["peek", "9999999999-9999999999"]).exception)
    unknown = runner.invoke(app, ["stats", "--run", "nobody"]).exception
    assert isinstance(unknown, NotSetUpError)
    assert str(unknown).startswith("run nobody is not on this Redis. If it has never started: ")


@pytest.mark.usefixtures("quiet")
def test_an_address_that_is_no_redis_is_named_without_its_password() -> None:
    refused = CliRunner().invoke(app, ["stats", "--run", "r", "--redis-url", "http://:secret@host"]).exception
    assert isinstance(refused, InputError)
    assert str(refused).startswith("--redis-url: ")
    assert "secret" not in str(refused)


@pytest.mark.usefixtures("quiet")
def test_set_aside_command(redis_url: str, run_name: str) -> None:
    async def prepare() -> None:
        async with SampleQueue.from_url(redis_url, run_name) as queue:
            play = await Play(queue).start(rows=10, groups_per_step=3)
            for lease in await play.leases(3):
                await play.submit(lease)
            for uid in await play.batch(1):
                await queue.set_aside(play.fence, 1, uid, f"{uid} is broken")

    asyncio.run(prepare())
    runner = CliRunner(env={"GOLONGRL_REDIS_URL": redis_url, "GOLONGRL_RUN": run_name})
    listed = runner.invoke(app, ["set-aside", "list"]).stdout.splitlines()
    assert [line.split(":")[0] for line in listed] == ["0-0", "0-1", "0-2"]
    assert listed[0].startswith("0-0: step 1, worker w, 20")
    assert listed[0].endswith("B: 0-0 is broken")
    assert json.loads(runner.invoke(app, ["set-aside", "list", "--json"]).stdout)[2]["uid"] == "0-2"
    stats = runner.invoke(app, ["stats"]).stdout
    assert "3 groups cannot be trained and wait for a decision: `golongrl queue set-aside list`" in stats
    peeked = runner.invoke(app, ["peek", "0-0"]).stdout
    assert peeked.startswith("0-0: set_aside\n  worker w, batch 1, reason 0-0 is broken")
    assert "0: 4 tokens, stop, reward 0" in peeked
    assert runner.invoke(app, ["set-aside", "retry", "0-0", "0-0"]).exit_code == 0
    assert runner.invoke(app, ["peek", "0-0"]).stdout == "0-0: returned\n"
    again = runner.invoke(app, ["set-aside", "retry", "0-0", "0-1", "9-9"]).exception
    assert isinstance(again, QueueError)
    assert str(again).startswith(f"run {run_name} has not set aside 0-0, 9-9; ")
    assert runner.invoke(app, ["set-aside", "drop", "--all"]).stdout == "rejected: 0-2\n"
    assert runner.invoke(app, ["set-aside", "drop", "--all"]).stdout == "rejected: no group\n"
    assert runner.invoke(app, ["set-aside", "list"]).stdout == "no group is set aside\n"
    assert runner.invoke(app, ["peek", "0-2"]).stdout.startswith("0-2: rejected")
    for words in (["set-aside", "drop"], ["set-aside", "retry", "0-0", "--all"]):
        assert isinstance(runner.invoke(app, words).exception, InputError)


@pytest.mark.usefixtures("quiet")
def test_check_and_remove_commands(redis_url: str, run_name: str) -> None:
    async def prepare() -> None:
        async with SampleQueue.from_url(redis_url, run_name) as queue:
            await Play(queue).start()

    asyncio.run(prepare())
    runner = CliRunner(env={"GOLONGRL_REDIS_URL": redis_url, "GOLONGRL_RUN": run_name})
    checked = runner.invoke(app, ["check"])
    assert checked.stdout == "OK: writes are confirmed by appendfsync always, and by 0 replicas\n"
    for answer in ("n\n", ""):
        refused = runner.invoke(app, ["remove"], input=answer).exception
        assert str(refused) == "queue remove: not confirmed, nothing was deleted; --yes deletes without asking"
    assert runner.invoke(app, ["stats"]).exit_code == 0
    removed = runner.invoke(app, ["remove", "--yes"])
    assert removed.exit_code == 0
    assert removed.stdout.startswith("removed ")
    assert isinstance(runner.invoke(app, ["stats"]).exception, NotSetUpError)


async def test_set_aside_and_failed_rows_are_metrics(play: Play) -> None:
    await play.start(rows=10, max_tries=1)
    await play.queue.release(await play.lease(), "engine_failed", failed=True)
    for lease in await play.leases(2):
        await play.submit(lease)
    await play.queue.set_aside(play.fence, 1, (await play.batch(1))[0], "broken")
    registry = CollectorRegistry()
    collector = QueueCollector()
    registry.register(collector)
    assert await collector.refresh(play.queue) is None
    text = generate_latest(registry).decode()
    assert "golongrl_queue_set_aside_groups 1.0" in text
    assert 'golongrl_queue_groups{state="set_aside"} 1.0' in text
    assert 'golongrl_queue_rejected_total{reason="failed:engine_failed"} 1.0' in text
