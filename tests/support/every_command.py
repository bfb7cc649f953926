"""Runs every command of the command line, each in a fork of a process that has imported it; results as JSON.

`python -m support.every_command FOLDER`: what becomes of its help on outputs that cannot be written, and of the command
itself where a signal comes while it reads or waits. FOLDER is empty and is where they run.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import typer

from golongrl import cli

OUTPUTS = ("full", "left")
# What every command does the same way is tried with one.
OTHER_OUTPUTS = ("closed", "errors full")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where a command waits: FIFO is a file that nobody writes to, SILENT an address that accepts and never answers.
FIFO, SILENT, REDIS = "FIFO", "SILENT", ["--redis-url", "redis://SILENT/0", "--run", "r"]
WAITING: dict[str, list[str]] = {
    "reward score": [FIFO],
    "queue set-aside drop": [*REDIS, "--all"],
    "queue set-aside retry": [*REDIS, "0-1"],
    "queue set-aside list": REDIS,
    "queue remove": [*REDIS, "--yes"],
    "queue check": REDIS,
    "queue peek": ["0-0", *REDIS],
    "queue stats": REDIS,
    "status": ["--redis-url", "redis://SILENT/0", "--run", "r"],
}


def commands() -> Iterator[list[str]]:
    cli._register_commands()
    left: list[tuple[list[str], Any]] = [([], typer.main.get_command(cli.app))]
    while left:
        words, command = left.pop()
        yield words
        left += [([*words, name], child) for name, child in getattr(command, "commands", {}).items()]


def forked(words: list[str], prepare: Callable[[], None]) -> int:
    """The process of a command whose streams are as `prepare` leaves them."""
    if pid := os.fork():
        return pid
    code = 99
    try:
        prepare()
        # As a new process has them.
        sys.stdout, sys.stderr = _stream(1), _stream(2)
        sys.argv = ["golongrl", *words]
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - it is what the test looks for
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)


def _stream(number: int) -> Any:
    try:
        os.fstat(number)
    except OSError:
        return None
    return open(number, "w", closefd=False)


def _code(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def printed(words: list[str], where: str) -> dict[str, Any]:
    """The help of a command on such an output."""
    errors = Path("errors")

    def prepare() -> None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        if where == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        elif where == "errors full":
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        elif where == "closed":
            os.close(1)
        else:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)

    _, status = os.waitpid(forked([*words, "--help" if where != "errors full" else "--nonsense"], prepare), 0)
    return {"words": words, "where": where, "code": _code(status), "errors": errors.read_text()}


def interrupted(words: list[str], options: list[str], number: int) -> dict[str, Any]:
    """The command ends by a signal that comes while it reads FIFO or waits for SILENT."""
    fifo, errors, output = Path("fifo"), Path("errors"), Path("output")
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"

    def prepare() -> None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)

    arguments = [option.replace(FIFO, str(fifo)).replace(SILENT, address) for option in options]
    pid = forked([*words, *arguments], prepare)
    ended = 0
    with server:
        while not ended:
            with contextlib.suppress(OSError):
                held = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # refused until somebody reads
                break
            if select.select([server], [], [], 0.05)[0]:
                client = server.accept()[0]
                client.recv(1)  # asyncio logs a connection that is cancelled in the moment it is made as its own fault
                held = client.detach()
                break
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            os.kill(pid, number)
            _, status = os.waitpid(pid, 0)
            os.close(held)
    said = errors.read_text() + output.read_text()
    left = sorted(str(path) for path in Path().rglob("*") if path.name not in ("fifo", "errors", "output"))
    return {"words": words, "signal": number, "early": bool(ended), "code": _code(status), "errors": said, "left": left}


def main(folder: Path) -> NoReturn:
    os.chdir(folder)
    every = list(commands())
    known = {" ".join(words) for words in every}
    assert set(WAITING) <= known, set(WAITING) - known
    results = {
        "printed": [printed(words, where) for words in every for where in OUTPUTS]
        + [printed(["recipe", "list"], where) for where in OTHER_OUTPUTS],
        "interrupted": [
            interrupted(name.split(), options, number) for name, options in WAITING.items() for number in SIGNALS
        ],
    }
    print(json.dumps(results))
    sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
