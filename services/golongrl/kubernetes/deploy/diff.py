"""What an upgrade would change, for people. Pure: objects in, lines out; the content of Secrets is never shown."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

Manifest = Mapping[str, Any]


def changes(old: Iterable[Manifest], new: Iterable[Manifest]) -> Iterator[str]:
    """A line for each object added or removed, a unified diff for each changed one, then a count."""
    before, after = _texts(old), _texts(new)
    counts = {"added": 0, "changed": 0, "removed": 0}
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            counts["added"] += 1
            yield f"+ {key}"
        elif key not in after:
            counts["removed"] += 1
            yield f"- {key}"
        elif before[key] != after[key]:
            counts["changed"] += 1
            yield f"~ {key}"
            body = difflib.unified_diff(before[key].splitlines(), after[key].splitlines(), lineterm="", n=2)
            # The file names and line numbers of a diff mean nothing here.
            yield from (f"    {line}" for line in body if not line.startswith(("---", "+++", "@@")))
    yield ", ".join(f"{count} {word}" for word, count in counts.items()) + f", {len(after)} objects in all"


def _texts(objects: Iterable[Manifest]) -> dict[str, str]:
    texts = {}
    for item in objects:
        shown = dict(item)
        if item["kind"] == "Secret":
            shown |= {name: dict.fromkeys(item[name], "(hidden)") for name in ("data", "stringData") if name in item}
        texts[f"{item['kind']}/{item['metadata']['name']}"] = yaml.safe_dump(shown, sort_keys=True)
    return texts
