"""The Lua scripts as the server gets them: flags, the shared prelude, then the operation.

Flags follow Redis 7's script header. Scripts that only free memory or add a few bytes are allowed when the server is
out of memory (`allow-oom`), or a full server could never be emptied; the others fail there as a whole, before any
write.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_GUARD = ("prelude", "guard", "tick")
# Parts before the operation's own file.
_PARTS: dict[str, tuple[str, ...]] = {
    "setup": ("prelude",),
    "beat": ("prelude",),
    "services": ("prelude",),
    "sweep": ("prelude",),
    "probe": ("prelude",),
    "weights": ("prelude",),
    "attach": (*_GUARD, "commit_steps"),
    "commit": (*_GUARD, "commit_steps"),
    "set_aside": (*_GUARD, "aside"),
    "set_aside_end": (*_GUARD, "aside"),
    # A damaged run can be forgotten, too.
    "forget": ("prelude",),
}
_COMMAND = re.compile(r"\b(?:redis\.)?call\('([A-Z]+)'")
_VALIDATION = "validation_"
_DENIED_WHEN_FULL = {"setup", "lease", "submit", "beat", "validation_open", "validation_submit"}
_READS = {"stats", "weights", "peek", "set_aside_list"}


@dataclass(frozen=True, slots=True)
class Script:
    """One operation: its source and the SHA-1 the server knows it by."""

    name: str
    source: str
    sha: str


@cache
def commands() -> tuple[str, ...]:
    """The commands that the scripts call, by which a server that lacks one is recognised at set-up."""
    sources = (part.read_text() for part in (files("golongrl.queue") / "lua").iterdir() if part.name.endswith(".lua"))
    return tuple(sorted({name for source in sources for name in _COMMAND.findall(source)}))


@cache
def script(name: str) -> Script:
    """The operation `name`, read from the package once."""
    folder = files("golongrl.queue") / "lua"
    shared = (*_GUARD, "validation") if name.startswith(_VALIDATION) else _PARTS.get(name, _GUARD)
    if name in _READS:
        shared = tuple(part for part in shared if part != "tick")
    parts = [(folder / f"{part}.lua").read_text() for part in (*shared, name)]
    flags = "no-writes" if name in _READS else "" if name in _DENIED_WHEN_FULL else "allow-oom"
    header = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    source = header + "\n".join(parts)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
