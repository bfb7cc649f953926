"""What a value of a recipe may be: its type, bounds and form, in names that sections, suites and pipelines share.

Sizes are in tokens unless a name says otherwise, durations in seconds (`_s`), sizes in bytes (`_bytes`).
"""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from golongrl.errors import url_without_secret

# Most seconds that one response may be scored for: a request may not hold a worker of the reward service for longer.
MAX_DEADLINE_S = 120.0

# The largest whole number that every reader of a recipe keeps: Lua and JSON have floats of 64 bits.
MOST = 2**53
# The longest time that sockets and timers can be told to wait.
LONGEST_S = 30 * 86_400.0

# Also a name of Kubernetes objects (labels joined by dots), and a folder's.
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
# What a run counts, one by one.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
# A lease is renewed at a third of its time, by a round trip to Redis that may wait for its disk. Less than this, and a
# living worker loses every lease.
LEAST_LEASE_S = 0.5
# A clock tick of a process: less, and whatever was to be waited for is given up before it is looked at once.
LEAST_DEADLINE_S = 0.01


def _renewable(seconds: float) -> float:
    if 0 < seconds < LEAST_LEASE_S:
        raise ValueError(f"below {LEAST_LEASE_S:g} s: a living worker could not renew its lease in time")
    return seconds


def waitable(seconds: float) -> float:
    """A deadline in which something can end. Raises ValueError."""
    if 0 < seconds < LEAST_DEADLINE_S:
        raise ValueError(f"below {LEAST_DEADLINE_S:g} s: it would be over before any work could end")
    return seconds


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"not the address of a collector: {error}") from error
    if not known:
        raise ValueError("not the address of a collector: it needs a host, and a port from 1 to 65535")
    return url


COLLECTOR = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"
CollectorUrl = Annotated[str, Field(pattern=COLLECTOR), AfterValidator(_address)]
# What the client of Weights & Biases takes for a name.
PROJECT = r"^[^/\\#?%:]+$"
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S)]
LeaseSeconds = Annotated[Seconds, AfterValidator(_renewable)]
DeadlineSeconds = Annotated[Seconds, AfterValidator(waitable)]
# Training is in floats of 32 bits: below this a number becomes 0.
LEAST_FLOAT = 2.0**-126
# Far below infinity, and written without an exponent by Python and Kubernetes: a YAML 1.1 reader may take one for text.
MOST_FLOAT = 1e15


def not_tiny(number: float) -> float:
    """A number that is not 0 in training's floats. Raises ValueError."""
    if 0 < number < LEAST_FLOAT:
        raise ValueError(f"below {LEAST_FLOAT:.3g}, the smallest float of 32 bits")
    return number


PositiveFloat = Annotated[float, Field(gt=0, le=MOST_FLOAT), AfterValidator(not_tiny)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=MOST_FLOAT)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
# Bytes of a path, and of one name in it, on Linux.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


def _place(path: str) -> str:
    found = os.path.expanduser(path)
    encoded = found.encode("utf-8", "replace")
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in encoded.split(b"/")):
        raise ValueError(f"no path: longer than {_LONGEST_PATH} bytes, or a name in it longer than {_LONGEST_NAME}")
    if any(not character.isprintable() for character in found):
        raise ValueError("no path: it has a control character")
    return url_without_secret(found) if "://" in found else found


# A path, or a name in its place. `~` is the home folder where the recipe is first read, for every process of the run.
Place = Annotated[str, AfterValidator(_place)]

# Task types of the paper, in its order (golongrl.tasks names their metrics).
TaskType = Literal["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9"]

# The rules a reward is computed by (golongrl.tasks, which imports nothing, has its own name for them).
ScoringMode = Literal["compat", "strict"]

# verl's rollout rejection: a divergence estimator of token log-probs (k1, k2, k3), per token or over the response.
RejectionMode = Literal[
    "token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_sum_k2", "seq_sum_k3",
    "seq_mean_k1", "seq_mean_k2", "seq_mean_k3", "seq_max_k2", "seq_max_k3",
]  # fmt: skip


class Section(BaseModel):
    """A part of the recipe: strict, immutable, described field by field."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)
