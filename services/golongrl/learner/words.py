"""Arguments of `golongrl learner` that pass through several shells unchanged.

The chart writes an argument that a shell could change as `--encoded=WORD`, percent-encoded. Ray takes a job's
entrypoint as text, which up to two shells and Ray's own quoting read before the learner does.
"""

from typing import Any, Final
from urllib.parse import unquote_plus

from typer.core import TyperCommand

_ENCODED: Final = "--encoded="


class EncodedWordsCommand(TyperCommand):
    """A command that takes `--encoded=WORD` anywhere for the argument WORD."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Click's own, with each such argument decoded."""
        return super().parse_args(ctx, [decoded(word) for word in args])


def decoded(word: str) -> str:
    """The argument that a word stands for: itself, unless it is encoded."""
    return unquote_plus(word.removeprefix(_ENCODED)) if word.startswith(_ENCODED) else word
