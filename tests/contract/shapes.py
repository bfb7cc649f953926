"""Comparing answers by shape: keys and types, all the way down; ids, numbers and texts vary."""

from typing import Any

# Present, absent or null depending on timing, cache state or an option that was not set, in the recordings too.
VARYING = {"decode_throughput", "cached_tokens_details", "response_sent_to_client_ts", "max_queued_requests"}


def differences(recorded: Any, answer: Any, *, subset: bool = False, at: str = "$") -> list[str]:
    """Where `answer` has not the shape of `recorded`. With `subset` it may lack keys, but not bring new ones."""
    if isinstance(recorded, dict) and isinstance(answer, dict):
        missing = [] if subset else sorted(recorded.keys() - answer.keys() - VARYING)
        found = [f"{at}.{key} is missing" for key in missing]
        found += [f"{at}.{key} is new" for key in sorted(answer.keys() - recorded.keys() - VARYING)]
        for key in recorded.keys() & answer.keys() - VARYING:
            found += differences(recorded[key], answer[key], subset=subset, at=f"{at}.{key}")
        return found
    if isinstance(recorded, list) and isinstance(answer, list):
        return [
            difference
            for index, (old, new) in enumerate(zip(recorded, answer, strict=False))
            for difference in differences(old, new, subset=subset, at=f"{at}[{index}]")
        ]
    old, new = _kind(recorded), _kind(answer)
    return [] if old == new else [f"{at} is {new}, recorded {old}"]


def _kind(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
