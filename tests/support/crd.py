"""What an API server makes of a custom resource: its schema, unknown keys refused, and the schema's CEL rules."""

import json
from collections.abc import Iterator
from typing import Any

import cel
import jsonschema

from support.helm import CRDS, Manifest

_MISSING = object()


def close(schema: Any) -> Any:
    """A copy of a CRD's schema that refuses unknown keys, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return closed


def broken_rules(schema: Manifest, new: Any, old: Any = _MISSING, path: str = "") -> Iterator[str]:
    """The messages of the CEL rules that an object breaks, each with its path.

    Args:
        old: what it was before an update; without it, rules with `oldSelf` are not asked, as at a creation.
    """
    for rule in schema.get("x-kubernetes-validations", []):
        transition = "oldSelf" in rule["rule"]
        if transition and old is _MISSING:
            continue
        if not cel.evaluate(rule["rule"], {"self": new, **({"oldSelf": old} if transition else {})}):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for key, value in new.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(below, dict):
                yield from broken_rules(below, value, before.get(key, _MISSING), f"{path}.{key}")
    elif isinstance(new, list):
        # An item of an atomic list has no old self.
        for index, item in enumerate(new):
            yield from broken_rules(schema.get("items", {}), item, _MISSING, f"{path}[{index}]")


class Crd:
    """One version of a CRD of KubeRay."""

    def __init__(self, plural: str, version: str) -> None:
        crd = json.loads((CRDS / f"{plural}.json").read_text("utf-8"))
        (found,) = [item for item in crd["spec"]["versions"] if item["name"] == version]
        self.schema: Manifest = found["schema"]["openAPIV3Schema"]
        closed = close(self.schema)
        closed["properties"]["metadata"] = {"type": "object"}
        self._strict = jsonschema.Draft7Validator(closed)

    def check(self, item: Manifest, old: Manifest | None = None) -> None:
        """Schema, then rules; `old` is what an update replaces.

        Raises:
            jsonschema.ValidationError: the object is not of the schema.
            AssertionError: it breaks CEL rules.
        """
        self._strict.validate(item)
        broken = list(broken_rules(self.schema, item, _MISSING if old is None else old))
        assert broken == [], broken
