"""What an engine reads back is believed only where it fits what was sent."""

import pytest

from golongrl.broadcast.verify import Reading, problem

SENT = {"a": "1", "b": "2", "c": "3"}
SENT_BEFORE = {"a": "1", "b": "0", "c": "0"}
SHARDS_BEFORE = {"a": "1", "b": "s0", "c": "s0"}
# An engine that hashes in its own way.
OTHER = {"a": "x1", "b": "x2", "c": "x3"}
OTHER_BEFORE = {"a": "x1", "b": "x0", "c": "x0"}


@pytest.mark.parametrize(
    ("checksums", "before", "ranks", "wrong"),
    [
        (SENT, None, 1, None),
        ({**SENT, "rotary": "9"}, None, 1, None),
        ({**SENT, "b": "0"}, None, 1, "b differ from what was sent"),
        ({"a": "1", "b": "3", "c": "2"}, None, 1, "b and 1 more differ from what was sent"),
        ({"z": "1"}, None, 1, "the engine names none of the 3 tensors that were sent"),
        (OTHER, None, 1, None),
        (OTHER, Reading(SENT_BEFORE, OTHER_BEFORE), 1, None),
        (OTHER_BEFORE, Reading(SENT_BEFORE, OTHER_BEFORE), 1, "b and 1 more did not change as sent"),
        ({**OTHER, "c": "x0"}, Reading(SENT_BEFORE, OTHER_BEFORE), 1, "c did not change as sent"),
        ({**OTHER, "a": "y"}, Reading(SENT_BEFORE, OTHER_BEFORE), 1, "a changed though the same was sent"),
        # Tensor parallel: what every rank holds whole is equal, the shards are not.
        ({"a": "1", "b": "s2", "c": "s3"}, Reading(SENT_BEFORE, SHARDS_BEFORE), 8, None),
        ({"a": "1", "b": "s0", "c": "s3"}, Reading(SENT_BEFORE, SHARDS_BEFORE), 8, "b did not change as sent"),
        # A change in one rank's shard is one.
        ({"a": "1", "b": "s0,s2", "c": "s3"}, Reading(SENT_BEFORE, {**SHARDS_BEFORE, "b": "s0,s1"}), 2, None),
    ],
)  # fmt: skip
def test_verdicts(checksums: dict[str, str], before: Reading | None, ranks: int, wrong: str | None) -> None:
    assert problem(Reading(SENT, checksums), before, ranks=ranks) == wrong
