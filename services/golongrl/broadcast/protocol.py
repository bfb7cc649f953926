"""What a worker and the sender say to each other, as JSON over HTTP."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Longest wait of a worker for its turn; then it must ask again.
TURN_S = 300.0
# Versions are whole numbers that JSON of any language can hold; paths and names are bounded as the system bounds them.
_MOST = 2**53
_LONGEST_PATH, _LONGEST_NAME = 4095, 1024


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hold(_Message):
    """The learner tells its sender which weights to send from now on: a folder of safetensors shards."""

    folder: str = Field(max_length=_LONGEST_PATH)
    version: int = Field(ge=0, lt=_MOST)
    lineage: str = Field(max_length=_LONGEST_NAME)


class Held(_Message):
    """The sender has read them: how many bytes a transfer is."""

    bytes: int


class Ask(_Message):
    """A worker asks for a transfer to its engine."""

    worker: str = Field(max_length=_LONGEST_NAME)
    version: int = Field(ge=0, lt=_MOST)
    lineage: str = Field(max_length=_LONGEST_NAME)
    ranks: int = Field(
        ge=1, lt=1 << 16, description="Processes of the engine that join the group (its tensor parallelism)."
    )
    device: str = Field(
        max_length=_LONGEST_NAME, description="What the engine runs on, as it says itself: cpu or cuda."
    )


class Bucket(_Message):
    """Tensors sent one after another, and put into the engine by one call."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]


class Transfer(_Message):
    """How to receive: the group to join (the engine's first rank is 1), then the buckets in order.

    The sender waits in the group already. `digests`: sha256 (first 16 hex digits) of the bytes of every tensor by each
    name under which an engine may hold it.
    """

    group: str
    address: str
    port: int
    world_size: int
    backend: Literal["gloo", "nccl"]
    buckets: list[Bucket]
    digests: dict[str, str]


def in_url(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets. Everywhere else it goes bare."""
    return f"[{host}]" if ":" in host else host
