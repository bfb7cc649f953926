"""TrainingRuns as `golongrl status` shows them. Pure: the API server's JSON in, lines out."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]


# Nothing of such a run is expected to move.
_AT_REST = frozenset({"Suspended", "Succeeded", "Failed"})


def run_lines(runs: Iterable[Json]) -> Iterator[str]:
    """A line for each TrainingRun."""
    for item in runs:
        status = item.get("status") or {}
        phase = _deleted(item["metadata"]) or status.get("phase") or "no operator has seen it"
        figures = [f"step {status['step']}"] if status.get("step") else []
        message = [status["message"]] if status.get("message") else []
        yield f"trainingrun {item['metadata']['name']}: {'; '.join([phase, *figures, *message])}"


def _deleted(metadata: Json) -> str:
    """That it is only kept by its finalizers; empty if it is not being deleted."""
    if "deletionTimestamp" not in metadata:
        return ""
    waits = ", ".join(metadata.get("finalizers") or [])
    return "is being deleted" + (f", which waits for its finalizers: {waits}" if waits else "")


def suspended_runs(runs: Iterable[Json]) -> list[str]:
    """The suspended runs of a release, if none of its others trains or is about to."""
    phases = {item["metadata"]["name"]: (item.get("status") or {}).get("phase") for item in runs}
    if not _AT_REST.issuperset(phases.values()):
        return []
    return [f"trainingrun {name} is suspended: spec.suspend is set" for name in phases if phases[name] == "Suspended"]


def run_problems(runs: Iterable[Json], release: str, served: Collection[str] | None) -> Iterator[str]:
    """TrainingRuns that do not train and why.

    Args:
        served: releases of the namespace that have an operator; None if that is not known.
    """
    for item in runs:
        name, its = item["metadata"]["name"], item["spec"].get("release", "")
        if served is not None and its not in served:
            # Also of another release: a wrong spec.release is nobody's run, and nobody else would name it.
            yield f"trainingrun {name}: {_unserved(its, release, served)}"
        elif its == release:
            yield from _untrained(item)


def _unserved(its: str, release: str, served: Collection[str]) -> str:
    if its == release:
        return f"release {its} has no operator: helm upgrade with operator.enabled=true"
    known = f"operators here serve {', '.join(sorted(served))}" if served else "there is none in this namespace"
    return f"no operator serves its spec.release {its}: {known}"


def _untrained(item: Json) -> Iterator[str]:
    status, where = item.get("status") or {}, f"trainingrun {item['metadata']['name']}"
    reasons = {entry.get("reason") for entry in status.get("conditions") or []}
    if status.get("phase") in ("Invalid", "Failed") or "Refused" in reasons:
        yield f"{where}: {status.get('phase') or 'Refused'}: {status.get('message', '')}"
