"""What objects of every kind tell in the same form. Pure: the API server's JSON in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = Mapping[str, Any]


def conditions(item: Json) -> dict[str, Json]:
    """The conditions of an object's status, by their type."""
    return {entry["type"]: entry for entry in (item.get("status") or {}).get("conditions") or []}


def holds(item: Json, kind: str) -> bool:
    """Whether the object says that this condition is true."""
    return bool(conditions(item).get(kind, {}).get("status") == "True")


def age_s(time: str, now: datetime | None = None) -> float:
    """Seconds since a time of Kubernetes; `now` is for tests."""
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(time)).total_seconds()


def overdue(metadata: Json, allowed_s: float, now: datetime) -> str:
    """That an object should have been deleted long ago, and what keeps it; empty if not.

    Args:
        allowed_s: how long its deletion may take.
    """
    deleted = metadata.get("deletionTimestamp")
    if not deleted or age_s(deleted, now) <= allowed_s:
        return ""
    waits = ", ".join(metadata.get("finalizers") or [])
    return f"should be deleted since {deleted}: " + (
        f"it waits for its finalizers: {waits}" if waits else "is its node lost?"
    )
