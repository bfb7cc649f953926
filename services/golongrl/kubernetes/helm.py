"""The helm on PATH: found, called with a deadline, and its answers read by their form. Errors are one line.

Whatever is called helm may be something else, hang, be killed, or print what no helm prints: each is a HelmError.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import yaml

from golongrl.errors import GolongrlError

# Rendering takes a second; a chart on a file system that hangs ends here.
_RENDER_S: Final = 120
# A helm that has printed nothing for so long is spoken of.
_QUIET_S: Final = 10
# A helm that is ended gets this long to write that its release has failed.
_END_S: Final = 5
# Characters of helm's own words in an error.
_SHOWN: Final = 2000
# Where in the chart's templates helm stopped, also at a question to the API server: the rest of the line says why.
_PLACE: Final = re.compile(
    r"Error: |execution error at \([^)]*\): |template: [^<]*(?=<lookup [^>]*>: error calling lookup: )"
)
# What a proxy answers in the place of the API server tells nothing.
_PAGE: Final = re.compile(r"<(!doctype|html)\b.*?(</html>|$)", re.IGNORECASE)


class HelmError(GolongrlError):
    """helm is missing or failed; the message is its own, in one line."""


def helm_path() -> str:
    """The helm on PATH.

    Raises:
        HelmError: there is none.
    """
    found = shutil.which("helm")
    if found is None:
        raise HelmError("helm is not on PATH: install Helm 3.17 or newer (https://helm.sh/docs/intro/install)")
    return found


def call(
    arguments: Sequence[str], given: bytes | None, deadline_s: float, waits_for: Callable[[], str] = str
) -> "subprocess.CompletedProcess[bytes]":
    """One call of helm, with this JSON on its standard input; when the deadline is over it is ended with its children.

    Args:
        waits_for: what a helm that does not end may be waiting for, or nothing; asked once, and told on standard error.

    Raises:
        HelmError: helm is missing, cannot be run, or does not end.
    """
    command = [helm_path(), *arguments]
    # Helm reads it as YAML, which does not know JSON's two escapes for one character, such as an emoji.
    given = given and json.dumps(json.loads(given), ensure_ascii=False).encode()
    try:
        running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise HelmError(f"{command[0]} cannot be run: {error}: install Helm 3.17 or newer") from error
    try:
        printed, complained = _output(running, f"helm {command[1]}", given, deadline_s, waits_for)
    finally:
        if running.poll() is None:
            _end(running)
    return subprocess.CompletedProcess(command, running.returncode, printed, complained)


def _output(
    running: "subprocess.Popen[bytes]", what: str, given: bytes | None, deadline_s: float, waits_for: Callable[[], str]
) -> tuple[bytes, bytes]:
    why, quiet_s = "", min(_QUIET_S, deadline_s)
    try:
        try:
            return running.communicate(given, quiet_s)
        except subprocess.TimeoutExpired:
            if quiet_s == deadline_s:
                raise
        why = f": {line}" if (line := waits_for()) else ""
        print(f"waiting for {what}, at most {deadline_s:.0f} s{why}", file=sys.stderr, flush=True)
        return running.communicate(timeout=deadline_s - quiet_s)
    except subprocess.TimeoutExpired as error:
        raise HelmError(f"{what} did not end within {deadline_s:.0f} s{why}") from error


def _end(running: "subprocess.Popen[bytes]") -> None:
    """Ended politely, then not: its children may hold its output open."""
    os.killpg(running.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        running.wait(_END_S)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


# The pure-Python parser takes a second for one release.
class _HelmLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what helm writes: the values `=` and `<<` are texts to helm and kubectl, and refused by PyYAML."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _tag in ("value", "merge"):
    _HelmLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _text)


def rendered(text: str) -> list[dict[str, Any]]:
    """The objects of a stream that helm wrote; raises what PyYAML raises."""
    return [item for item in yaml.load_all(text, Loader=_HelmLoader) if item]


def template(arguments: Sequence[str], values: str) -> list[dict[str, Any]]:
    """The objects that `helm template` makes of these arguments and values.

    Raises:
        HelmError: helm is missing, refuses, does not end, or prints something else.
    """
    done = call(["template", *arguments], values.encode(), _RENDER_S)
    if done.returncode:
        raise HelmError(f"helm template: {reason(done.stderr, done.returncode)}")
    with answers("helm template"):
        objects = rendered(done.stdout.decode())
        # Each has a kind and a name; anything else was not made by this chart.
        if not objects or not all(item["kind"] and item["metadata"]["name"] for item in objects):
            raise ValueError("no objects")
        return objects


@contextmanager
def answers(what: str) -> Iterator[None]:
    """Around code that reads an answer of helm: an answer of another form is a HelmError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise HelmError(
            f"{what}: the answer of {helm_path()} has not the form of Helm 3.17 or newer: see what `helm version` says"
        ) from error


def reason(stderr: bytes, code: int | None = None) -> str:
    """Why helm failed, in one line, without its warnings before and its advice after that."""
    lines = [" ".join(line.split()) for line in stderr.decode(errors="replace").splitlines()]
    start = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), 0)
    words = [line for line in lines[start:] if line and not line.startswith("Use --debug")]
    said = _PLACE.sub("", " ".join(words))
    said = _PAGE.sub("<a page>", said)[:_SHOWN]
    ended = f"ended by signal {-code}" if code is not None and code < 0 else "it gave no reason"
    return said or ended
