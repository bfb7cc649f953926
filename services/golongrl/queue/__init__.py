"""The durable sample queue: leases, groups, staleness and commits in Redis, every transition one Lua script.

Nothing is lost, nothing is trained twice, nothing is trained staler than promised, whatever crashes.
"""

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from golongrl.queue.client import SampleQueue
    from golongrl.queue.connection import Patience
    from golongrl.queue.errors import (
        Fenced,
        FencedError,
        NotDurable,
        NotDurableError,
        NotSetUp,
        NotSetUpError,
        OutOfOrder,
        OutOfOrderError,
        QueueDamagedError,
        QueueError,
        QueueServerError,
        QueueUnavailableError,
        SettingsMismatch,
        SettingsMismatchError,
        Unavailable,
        UnreadableGroup,
        UnreadableGroupError,
    )
    from golongrl.queue.schema import Group, Response, VersionSpan, decode, encode, fault
    from golongrl.queue.server import QueueServerReport
    from golongrl.queue.types import (
        Attachment,
        Batch,
        Behind,
        Lease,
        LeaseStats,
        Peek,
        Presence,
        QueueSettings,
        QueueStats,
        Refusal,
        RejectReason,
        SetAside,
        Stopped,
        SubmitOutcome,
        Wait,
        WeightsRef,
    )
    from golongrl.queue.validation import ValidationItem, ValidationProgress, ValidationResult

__all__ = [
    "Attachment",
    "Batch",
    "Behind",
    "Fenced",
    "FencedError",
    "Group",
    "Lease",
    "LeaseStats",
    "NotDurable",
    "NotDurableError",
    "NotSetUp",
    "NotSetUpError",
    "OutOfOrder",
    "OutOfOrderError",
    "Patience",
    "Peek",
    "Presence",
    "QueueDamagedError",
    "QueueError",
    "QueueServerError",
    "QueueServerReport",
    "QueueSettings",
    "QueueStats",
    "QueueUnavailableError",
    "Refusal",
    "RejectReason",
    "Response",
    "SampleQueue",
    "SetAside",
    "SettingsMismatch",
    "SettingsMismatchError",
    "Stopped",
    "SubmitOutcome",
    "Unavailable",
    "UnreadableGroup",
    "UnreadableGroupError",
    "ValidationItem",
    "ValidationProgress",
    "ValidationResult",
    "VersionSpan",
    "Wait",
    "WeightsRef",
    "decode",
    "encode",
    "fault",
]

# Where the names are; the modules that are read fastest come first.
_MODULES: Final = ("errors", "types", "validation", "schema", "server", "connection", "client")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The name, from its module. `golongrl` reads this package at each start, for the help of `golongrl queue`; the
        Redis client and NumPy, which most commands do not need, would take a third of that start."""
        if name in __all__:
            for module in _MODULES:
                found = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
                if found is not None:
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
