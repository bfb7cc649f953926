"""What the last pass wrote into a run's status, as far as this operator can read it. Pure.

Another version of the operator wrote it, or a person. A part that is not as `RunStatus` has it is left out, and the
rest counts: a count of restarts is not forgotten because a message is odd.

A time that has not come yet is read as now. The clock was set back meanwhile, or another operator's is ahead; a pause
or a deadline counted from such a time would last until this clock has caught up.
"""

from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from golongrl.kubernetes.forms import moment, text
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl_operator.api import RunStatus
from golongrl_operator.conditions import stamp

# Keys whose value is a time, wherever they are.
_TIMES: Final = frozenset({"time", "since", "at", "changed", "low", "started", "finished", "lastTransitionTime"})
# Errors come together; what an error hides is found by the next try.
_TRIES: Final = 20

Path = tuple[str | int, ...]


def remembered(status: Any, now: datetime) -> Manifest:
    """The parts of a run's status that can be read."""
    tree: Any = _with_times(status if isinstance(status, dict) else {}, now)
    for _ in range(_TRIES):
        try:
            RunStatus.model_validate(tree)
        except ValidationError as error:
            # Later entries of a list first, so that the places of the others hold.
            for path in sorted({_place(tree, one["loc"]) for one in error.errors()}, key=_order, reverse=True):
                tree = _without(tree, path)
        else:
            return dict(tree)
    return {}


def _with_times(node: Any, now: datetime) -> Any:
    """Without what should be a time and is none, and without texts that cannot be written."""
    if isinstance(node, list):
        return [_with_times(entry, now) for entry in node if _writable(entry)]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if (moment(value) if key in _TIMES else _writable(value))}
    return {key: _past(value, now) if key in _TIMES else _with_times(value, now) for key, value in kept.items()}


def _writable(value: Any) -> bool:
    return text(value) or not isinstance(value, str)


def _past(time: str, now: datetime) -> str:
    return time if datetime.fromisoformat(time) <= now else stamp(now)


def _place(tree: Any, where: Path) -> Path:
    """The part that is there: of a missing key, what lacks it."""
    for depth, key in enumerate(where):
        inside: Any = tree
        if not (isinstance(tree, dict) and key in tree) and not (isinstance(tree, list) and isinstance(key, int)):
            return where[:depth]
        tree = inside[key]
    return where


def _order(path: Path) -> list[tuple[bool, int, str]]:
    return [(isinstance(key, int), key if isinstance(key, int) else 0, str(key)) for key in path]


def _without(tree: Any, path: Path) -> Any:
    if not path:
        return {}
    key, rest = path[0], path[1:]
    if isinstance(tree, list) and isinstance(key, int) and key < len(tree):
        kept = [_without(tree[key], rest)] if rest else []
        return [*tree[:key], *kept, *tree[key + 1 :]]
    if isinstance(tree, dict) and key in tree:
        kept_keys = {name: value for name, value in tree.items() if name != key}
        return kept_keys | ({key: _without(tree[key], rest)} if rest else {})
    return tree
