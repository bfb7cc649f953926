r"""The \boxed{...} of a math response, and the plain text that one holds."""

import re
from collections.abc import Sequence
from functools import lru_cache

from golongrl.tasks.notation import plain
from golongrl.tasks.spelling import one_spelling

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# Between boxes that stand side by side.
HEDGE = re.compile(r"[\s$,，、/]*(?:or|and|或|或者|和|及)?[\s$,，、/]*", re.IGNORECASE)


Box = tuple[int, int, str]  # start, end, content


@lru_cache(maxsize=64)  # one response is looked at from several sides
def boxes_in(tail: str) -> Sequence[Box]:
    """The innermost boxes with balanced braces, in order; "\\boxed{}" and "\\boxed{...}" are none."""
    found = []
    for opening in BOX.finditer(tail):
        end = closing(tail, opening.end())
        content = tail[opening.end() : end]
        if end is not None and content.strip(" .…") and not BOX.search(content):
            found.append((opening.start(), end + 1, content))
    return tuple(found)


def closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` is closed."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth:
            return i
    return None


@lru_cache(maxsize=1024)  # asked for the same box several times
def text_of(written: str) -> str:
    """What is compared as a text: plain, in one spelling."""
    return one_spelling(plain(written))
