"""What the evaluation's runner costs: its throughput beside a bare client's, and its memory with prompts of 5 MB.

    python benchmarks/evaluation.py throughput --samples 2000 --latency 0.5
    python benchmarks/evaluation.py memory --prompts 60 --megabytes 5
    python benchmarks/evaluation.py memory --prompts 600 --megabytes 5 --uncounted
    python benchmarks/evaluation.py memory --prompts 12000 --megabytes 0.001 --answer 130000

`throughput` asks one fake server (a process of its own, which answers after a fixed time) in one run: by the whole
`golongrl eval run` path (reading, fitting, asking, scoring in processes, journal) and by two bare asyncio clients that
post the same bodies with as many requests in flight, aiohttp's and httpx's. The ratios are what counts; start-up is not
in them. Beside them stands the processor time of the asking process for each sample, which a busy machine changes less.
`memory` runs the command as a process, report included, and says how much memory it or one of its scorers had at most;
`--answer` is the length of an answer in characters, and `--uncounted` spares counting each prompt's tokens, which takes
a core for seconds.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx

from golongrl.data.models import QUICKSTART, resolve
from golongrl.evaluation.prompts import Counts, ModelTokens, plan
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.run.ask import Course, Questioner
from golongrl.evaluation.scoring import Scorer
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.store.journal import SampleJournal
from golongrl.evaluation.suite import load
from golongrl.llm import ChatClient, Endpoint

NAME = "longbench-v2"


def reply(characters: int) -> str:
    """A thought of this length, and an answer."""
    thought = "I read on. " * (characters // 11)
    return f"<think>{thought}</think>\n\nThe correct answer is (A)"


def rows(path: Path, number: int, characters: int) -> None:
    """LongBench-V2's columns, with contexts of this size."""
    context = "The lighthouse keeper of Varn wrote the tide tables by hand. " * (characters // 61 + 1)
    with path.open("w", encoding="utf-8") as file:
        for i in range(number):
            row = {
                "_id": str(i), "domain": "d", "sub_domain": "s", "difficulty": "easy", "length": "short",
                "question": f"Question {i}?", "choice_A": "a", "choice_B": "b", "choice_C": "c", "choice_D": "d",
                "answer": "A", "context": context[:characters],
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def serve(latency: float, answer: int, port: "multiprocessing.Queue[int]") -> None:
    """The fake server: reads a request whole, waits, answers."""
    usage = {"prompt_tokens": 10, "completion_tokens": 10}
    choices = [{"message": {"role": "assistant", "content": reply(answer)}, "finish_reason": "stop"}]
    body = json.dumps({"choices": choices, "usage": usage}).encode()
    models = json.dumps({"data": [{"id": "m"}]}).encode()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
                )
                left = length
                while left:
                    left -= len(await reader.read(min(left, 1 << 16)))
                if length:
                    await asyncio.sleep(latency)
                payload = body if length else models
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(payload)
                )
                writer.write(payload)
                await writer.drain()

    async def main() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def server(latency: float, answer: int = 2200) -> Iterator[str]:
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(latency, answer, port), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}/v1"
    finally:
        process.kill()
        process.join()


Rate = tuple[float, float]
"""Samples a second, and milliseconds of processor time for each."""


@contextlib.contextmanager
def measured(samples: int, into: list[Rate]) -> Iterator[None]:
    began, spent = time.perf_counter(), time.process_time()
    yield
    into.append((samples / (time.perf_counter() - began), 1000 * (time.process_time() - spent) / samples))


async def through_the_runner(url: str, data: Path, out: Path, concurrency: int) -> Rate:
    suite = load(NAME, ["context.length=8192", "sampling.max_tokens=1024"])
    asked = plan(BENCHMARKS[NAME], suite, None)
    tokens = ModelTokens(resolve(QUICKSTART), None)
    found: list[Rate] = []
    with DataFiles.find(data, BENCHMARKS[NAME].sources) as files, SampleJournal(out / "b.jsonl") as journal:
        course = Course(asked, journal, files, list(BENCHMARKS[NAME].problems(files)))
        endpoint = Endpoint(url, "m", concurrency)
        async with Scorer() as scorer, ChatClient(endpoint) as client:
            counts = Counts(out / "tokens.jsonl", "q")
            questioner = Questioner([client], tokens, counts, scorer, None, prompt_bytes=1 << 30)
            with measured(len(course.problems), found):
                await questioner.ask([course])
        assert all(entry.sample.score == 1.0 for entry in course.entries())
        assert len(course.entries()) == len(course.problems)
    return found[0]


async def _httpx_post(client: httpx.AsyncClient, url: str, body: object) -> None:
    assert (await client.post(url, json=body)).json()["choices"]


async def _aiohttp_post(client: aiohttp.ClientSession, url: str, body: object) -> None:
    async with client.post(url, json=body) as answer:
        assert (await answer.json())["choices"]


async def bare(name: str, url: str, data: Path, concurrency: int) -> Rate:
    """By aiohttp or httpx alone."""
    benchmark = BENCHMARKS[NAME]
    with DataFiles.find(data, benchmark.sources) as files:
        chats = [benchmark.messages(problem, files) for problem in benchmark.problems(files)]
    bodies = iter([{"model": "m", "messages": chat, "max_tokens": 1024, "temperature": 0.7} for chat in chats])
    found: list[Rate] = []
    async with contextlib.AsyncExitStack() as stack:
        if name == "aiohttp":
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            post = functools.partial(_aiohttp_post, session, f"{url}/chat/completions")
        else:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=concurrency)
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=600, limits=limits))
            post = functools.partial(_httpx_post, client, f"{url}/chat/completions")

        async def work() -> None:
            for body in bodies:
                await post(body)

        with measured(len(chats), found):
            await asyncio.gather(*(work() for _ in range(concurrency)))
    return found[0]


def throughput(samples: int, latency: float, concurrency: int, folder: Path) -> None:
    rows(folder / f"{NAME}.jsonl", samples, 4000)
    with server(latency) as url:
        plain = {name: asyncio.run(bare(name, url, folder, concurrency)) for name in ("aiohttp", "httpx")}
        ours, spent = asyncio.run(through_the_runner(url, folder, folder, concurrency))
    print(f"{samples} samples of 4 KB, {concurrency} in flight, answers after {latency} s")
    print(f"runner {ours:.1f}/s, {spent:.1f} ms of processor time a sample")
    for name, (rate, its) in plain.items():
        print(f"bare {name} {rate:.1f}/s, {its:.1f} ms; ratio {ours / rate:.2f}")


def memory(options: argparse.Namespace, folder: Path) -> None:
    prompts, megabytes = options.prompts, options.megabytes
    rows(folder / f"{NAME}.jsonl", prompts, int(megabytes * 1e6))
    with server(options.latency, options.answer) as url:
        words = [sys.executable, "-m", "golongrl", "eval", "run", NAME, "--target", url, "--data", str(folder)]
        words += ["--out", str(folder / "out")]
        if not options.uncounted:
            words += ["--tokenizer", str(resolve(QUICKSTART))]
        for item in ("context.length=8000000", "context.input_tokens=7000000", "sampling.max_tokens=1024"):
            words += ["--set", item]
        words += ["--set", f"limits.concurrency={options.concurrency}"]
        began = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    log = (folder / "out/points/model" / f"{NAME}.jsonl").stat().st_size
    how = "not counted" if options.uncounted else "counted"
    print(f"{prompts} prompts of {megabytes:g} MB, {how}, {options.concurrency} in flight: {seconds:.0f} s")
    print(f"most memory of a process {most:.0f} MiB, journal {log / (1 << 20):.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory"])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--answer", type=int, default=2200)
    parser.add_argument("--uncounted", action="store_true")
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "throughput":
            throughput(options.samples, options.latency, options.concurrency, Path(name))
        else:
            memory(options, Path(name))


if __name__ == "__main__":
    main()
