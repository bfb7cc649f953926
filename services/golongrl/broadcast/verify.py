"""Whether an engine holds what was sent, from the checksums it reads back. Pure.

Engines differ in how they hash (SGLang: sha256 on the CPU, a hash of its own on a GPU) and in what they hold (shards,
where tensor parallel; other types). Where an engine's checksums are the sender's digests, each of them must be.
Otherwise what changed between two versions must have changed in the engine, in any rank, and nothing else; its first
version has none before it, so a tensor that was not taken then is found at the next version that changes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One version in one engine: the sender's digests and the engine's checksums, both by the engine's names."""

    digests: Mapping[str, str]
    checksums: Mapping[str, str]


def problem(now: Reading, before: Reading | None, *, ranks: int) -> str | None:
    """What is wrong with the weights of `now`, in one line; None when nothing is.

    Args:
        before: the same engine at the version it held, where that was read too.
        ranks: tensor parallelism of the engine; above 1 its tensors are shards, which no digest describes.
    """
    shared = now.digests.keys() & now.checksums.keys()
    if not shared:
        return f"the engine names none of the {len(now.digests)} tensors that were sent"
    equal = {name for name in shared if now.digests[name] == now.checksums[name]}
    if equal and ranks == 1:
        return _listed("differ from what was sent", shared - equal)
    if before is None:
        return None
    known = [name for name in shared if name in before.digests and name in before.checksums]
    sent = {name for name in known if now.digests[name] != before.digests[name]}
    changed = {name for name in known if now.checksums[name] != before.checksums[name]}
    return _listed("did not change as sent", sent - changed) or _listed(
        "changed though the same was sent", changed - sent
    )


def _listed(what: str, names: set[str]) -> str | None:
    if not names:
        return None
    first, more = min(names), len(names) - 1
    return f"{first}{f' and {more} more' if more else ''} {what}"
