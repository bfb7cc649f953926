"""The scores of an evaluation as lines for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

_Z = 1.96


def score_lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """(model, benchmark, score, samples, what is to be known about it) of every benchmark."""
    for point in found["points"]:
        for name, one in point["benchmarks"].items():
            yield point["name"], name, score(one), f"{one['asked']:,}/{one['expected']:,}", "; ".join(notes(one))
        if point["paper_average"] is not None:
            yield point["name"], "average of the paper's six", f"{point['paper_average']:.1f}", "", ""


def departures(found: Mapping[str, Any]) -> Iterator[str]:
    """Where the settings depart from the benchmarks' own, a line for the benchmarks that do so in the same way."""
    alike: dict[str, dict[str, None]] = {}
    for point in found["points"]:
        for name, one in point["benchmarks"].items():
            if one["departures"] and one["expected"]:
                alike.setdefault("; ".join(one["departures"]), {})[name] = None
    for words, names in alike.items():
        yield f"departs from the paper: {', '.join(names)}: {words}"


def failures(found: Mapping[str, Any]) -> Iterator[str]:
    """Why samples have no score: of each benchmark the most frequent reason."""
    for point in found["points"]:
        for name, one in point["benchmarks"].items():
            for reason in one["failures"][:1]:
                yield f"{point['name']}, {name}: {reason['samples']:,} {reason['status']}: {reason['reason']}"


def score(one: Mapping[str, Any]) -> str:
    """A benchmark's number in percent with its 95 % interval, or a dash."""
    if one["value"] is None:
        return "–"
    error = "" if one["stderr"] is None else f" ± {100 * _Z * one['stderr']:.1f}"
    return f"{100 * one['value']:.1f}{error}"


def notes(one: Mapping[str, Any]) -> Iterator[str]:
    """Why there is no number, and what has no score."""
    if one["why_no_value"]:
        yield one["why_no_value"]
    rule = one["figures"].get("rule")
    if one["value"] is None and rule is not None:
        yield f"rules alone {100 * rule:.1f}"
    total = one["rows"][0]
    for kind in ("failed", "skipped", "unjudged", "truncated"):
        if total[kind]:
            yield f"{total[kind]:,} {kind}"
    if one["value"] is not None and total["scored"] < total["samples"] and total["mean_scored"] is not None:
        yield f"scored alone {100 * total['mean_scored']:.1f}"
