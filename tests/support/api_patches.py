"""What an API server makes of a change: patches, server-side apply with its conflicts, fields that may not change."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Object = dict[str, Any]

# Parts of a StatefulSet's spec that may change; every other is refused.
_STATEFUL_SET = {
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds",
    "persistentVolumeClaimRetentionPolicy",
}  # fmt: skip


def immutable(old: Object, new: Object) -> list[str]:
    """What the API server would refuse of a change from `old` to `new`, by path."""
    before, after = old.get("spec", {}), new.get("spec", {})

    def changed(*paths: str) -> list[str]:
        return [f"spec.{path}" for path in paths if before.get(path) != after.get(path)]

    match new["kind"]:
        case "StatefulSet":
            return changed(*sorted((before.keys() | after.keys()) - _STATEFUL_SET))
        case "Deployment":
            return changed("selector")
        case "Job":
            return changed("template", "selector", "completionMode", "podFailurePolicy")
        case "Service":
            return changed("clusterIP")
        case "PersistentVolumeClaim":
            return changed(*sorted((before.keys() | after.keys()) - {"resources"}))
        case "RoleBinding":
            return ["roleRef"] if old["roleRef"] != new["roleRef"] else []
    return []


def merge(current: Any, patch: Any) -> Any:
    """A strategic merge patch, or a JSON merge patch, which has no directives. Lists of named items merge by name."""
    if isinstance(patch, dict):
        base = current if isinstance(current, dict) else {}
        result = dict(base)
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                result.pop(key, None)
            elif f"$setElementOrder/{key}" in patch and isinstance(value, list):
                result[key] = _by_name(base.get(key, []), value)
            else:
                result[key] = merge(base.get(key), value)
        return result
    return copy.deepcopy(patch)


def _by_name(current: list[Object], patch: list[Object]) -> list[Object]:
    items = {item["name"]: item for item in current}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item["name"], None)
        else:
            items[item["name"]] = merge(items.get(item["name"]), item)
    return list(items.values())


def apply(current: Object | None, before: Object, after: Object) -> Object:
    """Server-side apply by one manager: what it no longer says goes, what it says is set, everything else stays."""
    result = copy.deepcopy(current or {})
    _forget(result, before, after)
    return dict(merge(result, after))


def _forget(node: Object, before: Object, after: Mapping[str, Any]) -> None:
    for key, value in before.items():
        if key not in after:
            node.pop(key, None)
        elif isinstance(value, dict) and isinstance(after[key], dict) and isinstance(node.get(key), dict):
            _forget(node[key], value, after[key])


def conflicts(current: Object, before: Object, after: Object, path: str = "") -> list[str]:
    """Fields that helm applied, somebody else has changed since, and helm now wants otherwise. A list is one field, as
    in a custom resource whose schema does not say more."""
    found: list[str] = []
    for key in before.keys() & after.keys() & current.keys():
        old, new, live = before[key], after[key], current[key]
        if isinstance(old, dict) and isinstance(new, dict) and isinstance(live, dict):
            found += conflicts(live, old, new, f"{path}.{key}")
        elif live not in (old, new):
            found.append(f"{path}.{key}")
    return sorted(found)


def owned_by_others(managers: Mapping[str, Object], after: Object) -> list[str]:
    """Fields that another manager has applied and that `after` wants otherwise."""
    return [
        f'conflict with "{name}": .{".".join(path)}'
        for name, theirs in managers.items()
        for path in sorted(_differing(theirs, after))
    ]


def take_over(managers: Mapping[str, Object], after: Object) -> None:
    """What one manager has applied by force is no longer the others'."""
    for theirs in managers.values():
        for *parents, last in list(_differing(theirs, after)):
            node = theirs
            for key in parents:
                node = node[key]
            del node[last]


def _differing(theirs: Object, after: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key in theirs.keys() & after.keys():
        if isinstance(theirs[key], dict) and isinstance(after[key], dict):
            yield from _differing(theirs[key], after[key], (*path, key))
        elif theirs[key] != after[key]:
            yield (*path, key)
