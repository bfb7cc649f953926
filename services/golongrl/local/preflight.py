"""What can be wrong with the options is found here, before any process is started; each problem is one line."""

import asyncio
import resource
import socket
from pathlib import Path

from golongrl.errors import GolongrlError, InputError
from golongrl.local.plan import HOST, Options, Ports
from golongrl.ports import unused
from golongrl.queue import Presence, QueueError, QueueServerReport, SampleQueue
from golongrl.queue.address import named_by, silence
from golongrl.queue.connection import Patience
from golongrl.queue.errors import last_reason
from golongrl.telemetry import watchdog

# An outside Redis that answers at all answers by then.
_REDIS_S = 3.0
# What takes a connection and is silent for so long is no Redis, or hangs.
_SILENT_S = 10.0
# The default of Linux. Redis, Ray and each of its processes have hundreds open.
_OPEN_FILES = 1024


def free_ports(engines: int) -> Ports:
    """Ports that are free now, all different."""
    return Ports.of(unused(Ports.count(engines)), engines)


def check_ports(ports: Ports, *, outside_redis: bool = False) -> None:
    """Raises InputError naming the first port in use and the service that wanted it."""
    for name, port in ports.named().items():
        if name == "redis" and outside_redis:
            continue
        try:
            socket.create_server((HOST, port)).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} for {name}: {error.args[-1]}; choose another --base-port") from error


def check_redis(url: str, run: str, shown: str, *, new: bool = False) -> None:
    """Raises InputError when an outside Redis does not answer, or would lose the run's keys, or where processes of a
    run of this name, which is to be `new`, report to it; the message has `shown`, the URL without a password."""
    named = f"{named_by(url)} {shown}"

    async def ask() -> tuple[QueueServerReport, list[Presence]]:
        async with (
            SampleQueue.from_url(url, run, patience=Patience(total_s=_REDIS_S)) as queue,
            asyncio.timeout(_SILENT_S),
        ):
            report = await queue.inspect_server()
            return report, await queue.services() if new and not report.refusals else []

    try:
        report, processes = asyncio.run(ask())
    except TimeoutError:
        raise InputError(f"{named}: takes connections and {silence(url, _SILENT_S)}") from None
    except QueueError as error:
        # The last try's error: that there were several tries does not help a person who has just typed the URL.
        raise InputError(f"{named}: {last_reason(error)}") from error
    if report.refusals:
        raise InputError(f"{named}: {'; '.join(report.refusals)}")
    # Its workers would take the places of those of the same names, and its learner the other one's.
    if at_work := [process.id for process in processes if process.age_s < watchdog.SILENT_S]:
        raise InputError(f"{named}: run {run} is at work there ({', '.join(at_work)}); choose another --name")


def check_sglang(venv: Path) -> None:
    """Raises InputError when the real SGLang is not installed where it is expected."""
    if not (venv / "bin" / "python").exists() or not list(venv.glob("lib/python3.*/site-packages/sglang")):
        raise InputError(f"--engine sglang: no SGLang in {venv}; run `make sglang` (or give --sglang-venv)")


def check_open_files() -> None:
    """Let this process and those it starts open as many files as a run needs, as far as the system allows.

    Raises:
        GolongrlError: the limit is too low; Ray would never come up, and nothing would say why.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _OPEN_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
        raise GolongrlError(
            f"a process may open {hard} files at most here, and a run needs {_OPEN_FILES}; raise the limit "
            f"(ulimit -n {_OPEN_FILES}, or where the container is started)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, hard))


def check(options: Options, *, routes: bool = False) -> None:
    """All checks of the options that need no dataset.

    Args:
        routes: engines must tell the experts of each token.

    Raises:
        InputError: something that the options need is missing, or taken.
    """
    check_open_files()
    if options.engine == "sglang":
        if routes:
            raise InputError(
                "learner.routing_replay: SGLang on a CPU cannot return experts (it registers their buffer with CUDA); "
                "--engine embedded works, or learner.routing_replay false"
            )
        check_sglang(options.sglang_venv)
    check_ports(options.ports, outside_redis=options.redis_url is not None)
