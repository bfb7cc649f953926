"""The queue as text: what `golongrl queue` prints. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from golongrl.queue.types import LeaseStats, Peek, QueueStats, SetAside

# Most leases listed by name; of the others only their number.
MOST_LEASES = 40
# Tokens shown of a response.
FIRST_TOKENS = 12
# The fields of a group's record that people read, in this order; the rest is bookkeeping.
_META = {
    "task": "task",
    "worker": "worker",
    "engine_version": "engine version",
    "lowest_version": "oldest token of version",
    "seq": "lease number",
    "step": "batch",
    "tries": "failed tries",
    "reason": "reason",
    "detail": "detail",
    "phase": "phase",
    "progress": "tokens so far",
    "bytes": "bytes",
    "given_up": "times given up",
}


def stats_lines(stats: QueueStats) -> Iterator[str]:
    """Where rows are, bytes, staleness, what was rejected or redone, leases, and what the next batch waits for."""
    yield (
        f"version {stats.version} (checkpoint {stats.committed}, last batch {stats.taken}), "
        f"groups_per_step {stats.groups_per_step}, max_staleness {stats.max_staleness}, order {stats.order}"
    )
    if stats.stopped:
        yield f"STOPPED ({stats.stopped.reason}): {stats.stopped.detail}"
    yield (
        f"rows {stats.rows}: unread {stats.unread}, returned {stats.returned}, leased {stats.leased}, "
        f"ready {stats.ready}, in batches {stats.in_batches}, trained {stats.trained}, rejected {stats.rejected}, "
        f"set aside {stats.set_aside}"
    )
    if stats.set_aside:
        yield f"{stats.set_aside} groups cannot be trained and wait for a decision: `golongrl queue set-aside list`"
    yield f"bytes {_size(stats.bytes)} + {_size(stats.reserved_bytes)} reserved of {_size(stats.max_bytes)}"
    if stats.max_routes_bytes:
        stored, reserved = _size(stats.routes_bytes), _size(stats.reserved_routes_bytes)
        yield f"routes in the weight store {stored} + {reserved} reserved of {_size(stats.max_routes_bytes)}"
    yield f"behind now: {_counts(stats.staleness)}; trained with staleness: {_counts(stats.trained_staleness)}"
    yield f"rejected: {_counts(stats.rejected_by)}; redone: {_counts(stats.redone_by)}"
    yield f"batches below task minimum: {stats.tasks_given_up}; oldest ready group waits {stats.oldest_wait_s:.1f} s"
    if stats.clock_set_back:
        yield f"the server's clock was set back {stats.clock_set_back} times; leases are measured without it"
    if stats.weights:
        yield f"weights: version {stats.weights.version}, lineage {stats.weights.lineage}, {stats.weights.path}"
    yield from _lease_lines(stats.leases)
    if stats.blocking:
        yield f"next batch waits for {_lease(stats.blocking)}"


def _lease_lines(all_leases: tuple[LeaseStats, ...]) -> Iterator[str]:
    by_worker: defaultdict[str, list[LeaseStats]] = defaultdict(list)
    for lease in all_leases:
        by_worker[lease.worker].append(lease)
    shown = 0
    for worker, held in sorted(by_worker.items()):
        leases = "lease" if len(held) == 1 else "leases"
        yield f"{worker}: {len(held)} {leases}, oldest {max(lease.age_s for lease in held):.1f} s"
        for lease in sorted(held, key=lambda lease: -lease.age_s)[: MOST_LEASES - shown]:
            shown += 1
            yield f"  {_lease(lease)}"


def set_aside_lines(groups: Sequence[SetAside]) -> Iterator[str]:
    """One line a group: which, from whom, why."""
    for group in groups:
        when = datetime.fromtimestamp(group.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        body = _size(group.bytes) if group.bytes else "body dropped"
        yield f"{group.uid}: step {group.step}, worker {group.worker}, {when}, {body}: {group.reason}"
    if not groups:
        yield "no group is set aside"


def _lease(lease: LeaseStats) -> str:
    tries = f", {lease.tries} earlier tries failed" if lease.tries else ""
    return (
        f"{lease.uid} on {lease.worker}: {lease.phase}, {lease.progress} tokens, version {lease.engine_version}, "
        f"age {lease.age_s:.1f} s, "
        f"last progress {lease.progress_age_s:.1f} s ago, expires in {lease.expires_in_s:.1f} s{tries}"
    )


def peek_lines(peek: Peek) -> Iterator[str]:
    """A row's place, and its group in short."""
    yield f"{peek.uid}: {peek.state}"
    if peek.meta:
        yield "  " + ", ".join(f"{text} {peek.meta[name]}" for name, text in _META.items() if name in peek.meta)
    group = peek.group
    if group is None:
        return
    yield f"  {group.task} {group.metric} ({group.task_key}), prompt {len(group.prompt_ids)} tokens, {group.timings}"
    for index, response in enumerate(group.responses):
        reward = "unscored: " + response.reason if response.reward is None else f"reward {response.reward:g}"
        spans = " ".join(f"v{span.version}[{span.start}:{span.end}]" for span in response.version_spans)
        first = " ".join(map(str, response.ids[:FIRST_TOKENS]))
        yield f"  {index}: {len(response.ids)} tokens, {response.finish_reason}, {reward}, {spans}; ids {first} ..."


def _counts(counts: Mapping[int, int] | Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in counts.items()) or "none"


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
