"""The durable sample queue: leases, groups, staleness and commits in Redis, every transition one Lua script.

Nothing is lost, nothing is trained twice, nothing is trained staler than promised, whatever crashes.
"""

from golongrl.queue.client import SampleQueue
from golongrl.queue.connection import Patience
from golongrl.queue.errors import (
    Fenced,
    NotDurable,
    NotSetUp,
    OutOfOrder,
    QueueError,
    SettingsMismatch,
    Unavailable,
    UnreadableGroup,
)
from golongrl.queue.schema import Group, Response, VersionSpan, decode, encode
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
    "Group",
    "Lease",
    "LeaseStats",
    "NotDurable",
    "NotSetUp",
    "OutOfOrder",
    "Patience",
    "Peek",
    "Presence",
    "QueueError",
    "QueueSettings",
    "QueueStats",
    "Refusal",
    "RejectReason",
    "Response",
    "SampleQueue",
    "SettingsMismatch",
    "Stopped",
    "SubmitOutcome",
    "Unavailable",
    "UnreadableGroup",
    "ValidationItem",
    "ValidationProgress",
    "ValidationResult",
    "VersionSpan",
    "Wait",
    "WeightsRef",
    "decode",
    "encode",
]
