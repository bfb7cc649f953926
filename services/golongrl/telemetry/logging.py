"""Structured logs, set up once at process start.

One JSON object a line where nobody watches (pods, files), coloured text on a terminal. No line has a password: those of
URLs, and the values of secret environment variables, are replaced. Nor has one the text of a prompt or an answer:
a value is a number or a short text, and lists and arrays are only counted. docs/logs.md lists the events.
"""

import logging
import sys
from collections.abc import Mapping, Sized
from typing import Any, Final

import structlog

from golongrl.errors import printable, without_secrets
from golongrl.telemetry.tracing import of_group, of_version

# The program's packages: loggers are named after modules.
_OWN: Final = ("golongrl", "golongrl_operator")
# Of a text in a line: an error may quote what it was given.
_LONGEST: Final = 1000
# Of a table in a line.
_MOST: Final = 32
# Written by the program, and cut nowhere; `uids` are names of groups, which tell the life of one from its lines.
_WHOLE: Final = frozenset({"exception", "traceback", "event", "uids"})


def configure(service: str, run: str | None = None, level: str = "INFO", *, traced: bool = False) -> None:
    """Send structlog and the standard library's loggers to stderr; lines carry `service` and, if given, `run`.

    With `traced`, spans are sent somewhere: lines of a group or a version carry the `trace_id` that they are under.
    """
    tracing: list[structlog.typing.Processor] = [_with_trace] if traced else []
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *tracing,
    ]
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    tracebacks: list[structlog.typing.Processor] = [] if terminal else [structlog.processors.format_exc_info]
    # JSON escapes control characters by itself.
    shown: list[structlog.typing.Processor] = [_printable] if terminal else []
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A cached logger keeps the processors of its first line, whoever configures or captures later.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *tracebacks,
                _bounded,
                _redact,
                *shown,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries may write whole requests at DEBUG, with their prompts and keys.
    root.setLevel(max(logging.getLevelNamesMapping()[level], logging.INFO))
    for own in _OWN:
        logging.getLogger(own).setLevel(level)
    # A line per HTTP request drowns the lines that matter.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service, **({"run": run} if run else {}))


def _with_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event with its trace: that of its group, else of the version that is made (`step`) or told of."""
    match event:
        case {"trace_id": _}:  # a request's, as its header said
            return event
        case {"run": str(run), "uid": str(uid)}:
            context = of_group(run, uid)
        case {"run": str(run), "lineage": str(lineage), "step": int(number)}:
            context = of_version(run, lineage, number)
        case {"run": str(run), "lineage": str(lineage), "version": int(number)}:
            context = of_version(run, lineage, number)
        case _:
            return event
    return {**event, "trace_id": context.trace_id}


def _bounded(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event with short values."""
    return {name: value if name in _WHOLE else short(value) for name, value in event.items()}


def short(value: Any) -> Any:
    """A value as a line shows it."""
    match value:
        case bool() | int() | float() | None:
            return value
        case str():
            return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}... ({len(value)} characters)"
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case Mapping() if len(value) <= _MOST:
            return {str(key): short(item) for key, item in value.items()}
        case Sized():  # lists, arrays, tensors: token ids, most likely
            return f"<{len(value)} items>"
    return short(str(value))


def _redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event without secrets in its texts, its traceback included."""
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _redacted(item) for name, item in value.items()}
    return without_secrets(value) if isinstance(value, str) else value


def _printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event as a terminal may show it."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
