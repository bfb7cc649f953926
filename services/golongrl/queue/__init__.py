"""The durable sample queue: leases, groups, staleness and commits in Redis, every transition one Lua script.

Nothing is lost, nothing is trained twice, nothing is trained staler than promised, whatever crashes.
"""

from golongrl.queue.client import SampleQueue
from golongrl.queue.connection import Patience
from golongrl.queue.errors import (
    FencedError,
    NotDurableError,
    NotSetUpError,
    OutOfOrderError,
    QueueDamagedError,
    QueueError,
    QueueServerError,
    QueueUnavailableError,
    SettingsMismatchError,
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
    "FencedError",
    "Group",
    "Lease",
    "LeaseStats",
    "NotDurableError",
    "NotSetUpError",
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
    "SettingsMismatchError",
    "Stopped",
    "SubmitOutcome",
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

# The names of version 0.1, which code outside the repository catches.
Fenced, NotDurable, NotSetUp, OutOfOrder = FencedError, NotDurableError, NotSetUpError, OutOfOrderError
SettingsMismatch, Unavailable, UnreadableGroup = SettingsMismatchError, QueueUnavailableError, UnreadableGroupError
