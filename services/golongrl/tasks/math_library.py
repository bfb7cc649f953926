"""math-verify as this package uses it: loaded on first use, repaired, and with its swallowed errors made visible.

`parse` and `verify` answer an error of their own with "nothing found" and "not equal", and tell only their log. Here a
listener in that log returns the error beside the answer.
"""

import logging
import threading
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal

from golongrl.errors import brief

_LOGGERS = ("math_verify.parser", "math_verify.grader")


class _Listener(logging.Handler):
    """Keeps the last error that the library logged in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.heard.error = record.exc_info[1]


@lru_cache(maxsize=1)
def _load() -> tuple[ModuleType, _Listener]:
    """The library, which loads SymPy, and its listener.

    The LaTeX parser generated for ANTLR 4.9.3, the runtime that OmegaConf pins, lacks one accessor which its converter
    calls for every percentage and matrix; without it those answers silently fail to parse. It is the only difference to
    the parsers for newer runtimes.
    """
    import math_verify
    from latex2sympy2_extended.antlr_parser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda atom: atom.getToken(PSParser.FUNC_GAMMA, 0)
    listener = _Listener()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False  # it also warns once that it keeps no deadline, which is its caller's business here
        logger.addHandler(listener)
    return math_verify, listener


def call(function: Literal["parse", "verify"], *arguments: Any, **options: Any) -> tuple[Any, BaseException | None]:
    """What the function returns, and the error it swallowed on the way, if any."""
    library, listener = _load()
    listener.heard.error = None
    answer = getattr(library, function)(*arguments, **options)
    error, listener.heard.error = listener.heard.error, None
    return answer, error


def describe(crash: BaseException) -> str:
    """The reason of an outcome that a swallowed error left without a score."""
    said = crash.args[0] if crash.args and isinstance(crash.args[0], str) else ""  # never print an expression
    return f"metric crashed: {type(crash).__name__}: {brief(said, 200)}"
