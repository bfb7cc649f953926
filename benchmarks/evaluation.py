"""What the evaluation's runner costs: its throughput beside a bare client's, and its memory with prompts of 5 MB.

    python benchmarks/evaluation.py throughput --samples 2000 --latency 0.5
    python benchmarks/evaluation.py memory --prompts 60 --megabytes 5

`throughput` asks one fake server (a process of its own, which answers after a fixed time) twice in one run: by the
whole `golongrl eval run` path (reading, fitting, asking, scoring in processes, journal) and by a bare asyncio client
that posts the same bodies with as many requests in flight. Their ratio is what counts; start-up is not in it. `memory`
runs the command as a process and reports the most memory that it or one of its scorers had.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from golongrl.data.models import QUICKSTART, resolve
from golongrl.evaluation.benchmark import DataFiles
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.run.ask import Course, Questioner
from golongrl.evaluation.run.prompts import Counts, ModelTokens, plan
from golongrl.evaluation.run.scoring import Scorer
from golongrl.evaluation.store.journal import SampleJournal
from golongrl.evaluation.suite import load
from golongrl.llm import ChatClient, Endpoint

NAME = "longbench-v2"
# Of a thought and an answer.
REPLY = f"<think>{'I read on. ' * 200}</think>\n\nThe correct answer is (A)"


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


def serve(latency: float, port: "multiprocessing.Queue[int]") -> None:
    """The fake server: reads a request whole, waits, answers."""
    usage = {"prompt_tokens": 10, "completion_tokens": 10}
    choices = [{"message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}]
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
def server(latency: float) -> Iterator[str]:
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(latency, port), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}/v1"
    finally:
        process.kill()
        process.join()


async def through_the_runner(url: str, data: Path, out: Path, concurrency: int) -> float:
    suite = load(NAME, ["context.length=8192", "sampling.max_tokens=1024"])
    asked = plan(BENCHMARKS[NAME], suite, None)
    tokens = ModelTokens(resolve(QUICKSTART), None)
    with DataFiles.find(data, BENCHMARKS[NAME].sources) as files, SampleJournal(out / "b.jsonl") as journal:
        course = Course(asked, journal, files, list(BENCHMARKS[NAME].problems(files)))
        endpoint = Endpoint(url, "m", concurrency)
        async with Scorer() as scorer, ChatClient(endpoint) as client:
            counts = Counts(out / "tokens.jsonl", "q")
            questioner = Questioner([client], tokens, counts, scorer, None, prompt_bytes=1 << 30)
            began = time.perf_counter()
            await questioner.ask([course])
            seconds = time.perf_counter() - began
        assert all(entry.sample.score == 1.0 for entry in course.entries())
        return len(course.entries()) / seconds


async def bare(url: str, data: Path, concurrency: int) -> float:
    benchmark = BENCHMARKS[NAME]
    with DataFiles.find(data, benchmark.sources) as files:
        chats = [benchmark.messages(problem, files) for problem in benchmark.problems(files)]
    bodies = iter([{"model": "m", "messages": chat, "max_tokens": 1024, "temperature": 0.7} for chat in chats])
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:

        async def work() -> None:
            for body in bodies:
                answer = await client.post(f"{url}/chat/completions", json=body)
                assert answer.json()["choices"]

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrency)))
        return len(chats) / (time.perf_counter() - began)


def throughput(samples: int, latency: float, concurrency: int, folder: Path) -> None:
    rows(folder / f"{NAME}.jsonl", samples, 4000)
    with server(latency) as url:
        plain = asyncio.run(bare(url, folder, concurrency))
        ours = asyncio.run(through_the_runner(url, folder, folder, concurrency))
    print(f"{samples} samples of 4 KB, {concurrency} in flight, answers after {latency} s")
    print(f"bare client {plain:.1f}/s, runner {ours:.1f}/s, ratio {ours / plain:.2f}")


def memory(prompts: int, megabytes: float, concurrency: int, folder: Path) -> None:
    rows(folder / f"{NAME}.jsonl", prompts, int(megabytes * 1e6))
    with server(2.0) as url:
        words = [sys.executable, "-m", "golongrl", "eval", "run", NAME, "--target", url, "--data", str(folder)]
        words += ["--tokenizer", str(resolve(QUICKSTART)), "--out", str(folder / "out")]
        for item in ("context.length=8000000", "context.input_tokens=7000000", "sampling.max_tokens=1024"):
            words += ["--set", item]
        words += ["--set", f"limits.concurrency={concurrency}"]
        began = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    log = (folder / "out/points/model" / f"{NAME}.jsonl").stat().st_size
    total = prompts * megabytes
    print(f"{prompts} prompts of {megabytes:g} MB ({total:.0f} MB), {concurrency} in flight: {seconds:.0f} s")
    print(f"most memory of a process {most:.0f} MiB, journal {log / 1024:.0f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory"])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "throughput":
            throughput(options.samples, options.latency, options.concurrency, Path(name))
        else:
            memory(options.prompts, options.megabytes, options.concurrency, Path(name))


if __name__ == "__main__":
    main()
