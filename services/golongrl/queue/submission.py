"""What a worker may hand in under a lease. Pure.

Stricter than what a stored group is judged by when it is taken: a group is its lease's, and its texts are short and can
be written as UTF-8.
"""

from collections.abc import Iterator

from golongrl.errors import has_half_character
from golongrl.queue.schema import Group, fault, rewards_fault
from golongrl.queue.types import Lease

# Characters of a sentence for a person, and of a name; what it quotes may be long.
MOST_REASON = 1000
# What a group repeats of its lease.
_OF_THE_LEASE = ("row", "epoch", "worker", "engine_version")
_NAMES = ("task", "metric", "task_key", "reward_mode")


def refusal(group: Group, lease: Lease) -> str | None:
    """Why `group` cannot be handed in under `lease`, None if it can."""
    wrong = (
        _differs(group, lease)
        or fault(group, lease.vocabulary)
        or rewards_fault(group)
        or next(_text_faults_of(group), None)
    )
    return wrong[:MOST_REASON] if wrong else None


def _differs(group: Group, lease: Lease) -> str | None:
    for name in _OF_THE_LEASE:
        found, expected = getattr(group, name), getattr(lease, name)
        if type(found) is not type(expected) or found != expected:
            return f"{name} {found!a} differs from its lease's {expected!a}"
    if lease.task_key and group.task_key != lease.task_key:
        return f"task_key {group.task_key!a} differs from its row's {lease.task_key!a}"
    return None


def _text_faults_of(group: Group) -> Iterator[str]:
    for name in _NAMES:
        yield from _text_faults(name, getattr(group, name))
    for name in (*group.timings, *group.moments):
        yield from _text_faults("a name of its times", name)
    for index, response in enumerate(group.responses):
        for name in ("finish_reason", "reason"):
            yield from _text_faults(f"response {index}: {name}", getattr(response, name))


def _text_faults(name: str, text: object) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"{name} is not text, but of type {type(text).__name__}"
    elif len(text) > MOST_REASON:
        yield f"{name} has {len(text)} characters, more than {MOST_REASON}"
    elif has_half_character(text):
        yield f"{name} has half a character (a lone surrogate): {text!a}"
