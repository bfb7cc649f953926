"""Pydantic's JSON schema as the structural schema that a CustomResourceDefinition demands.

Invariants:
- every node is typed, and there is no `$ref` and no `additionalProperties: false` (kubectl and Helm refuse unknown keys
  by themselves, the server drops them);
- what has no type, or types that a structural schema cannot name together, is open: the server keeps whatever is there.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]

_KEPT: Final = {
    "description", "type", "enum", "format", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum",
    "maximum", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip
_OPEN: Final[Schema] = {"x-kubernetes-preserve-unknown-fields": True}


def structural(schema: Schema, *, required: bool = True, nullable: bool = False) -> Schema:
    """Pydantic's schema in the words of a CRD.

    Args:
        required: keep what is required; a part that is merged over something has nothing required.
        nullable: every property may be null.
    """
    return _Conversion(schema.get("$defs", {}), required, nullable).convert(schema)


@dataclass(frozen=True)
class _Conversion:
    """Of all the nodes of one schema."""

    definitions: Schema
    required: bool
    nullable: bool

    def convert(self, node: Schema) -> Schema:
        # What a key says of itself goes before what its type says.
        own = {key: node[key] for key in ("description",) if key in node}
        if "$ref" in node:
            return self.convert(self.definitions[node["$ref"].rpartition("/")[2]]) | own
        if "anyOf" in node:
            return self._choice(node["anyOf"]) | own
        plain = {key: value for key, value in node.items() if key in _KEPT}
        if "const" in node:
            plain |= {"type": "string", "enum": [node["const"]]}
        for bound in ("Minimum", "Maximum"):
            if (limit := node.get(f"exclusive{bound}")) is not None:
                plain |= {bound.lower(): limit, f"exclusive{bound}": True}
        if not self.required:
            plain.pop("required", None)
        match node.get("type"):
            case "object":
                plain |= self._mapping(node)
            case "array":
                items = node.get("prefixItems", [node.get("items", {})])
                plain["items"] = self.convert(items[0])
            case None if "enum" not in plain:
                return plain | _OPEN
        return plain

    def _choice(self, options: list[Schema]) -> Schema:
        some = [option for option in options if option.get("type") != "null"]
        empty = {"nullable": True} if len(some) < len(options) else {}
        if len(some) == 1:
            # The API server refuses null for an enum even where it is nullable.
            return self.convert(some[0]) | ({} if "enum" in some[0] and not self.nullable else empty)
        if {option.get("type") for option in some} == {"integer", "string"}:
            return {"x-kubernetes-int-or-string": True} | empty
        return _OPEN | empty

    def _mapping(self, node: Schema) -> Schema:
        if "properties" in node:
            return {"properties": {name: self._property(item) for name, item in node["properties"].items()}}
        # A structural schema knows no patterns of keys.
        values = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
        return {"additionalProperties": self.convert(values)} if isinstance(values, dict) else dict(_OPEN)

    def _property(self, node: Schema) -> Schema:
        converted = self.convert(node)
        if not self.nullable:
            return converted
        if "enum" in converted:
            # A pattern in its place: the API server takes null for that one.
            words = "|".join(re.escape(word) for word in converted.pop("enum"))
            converted["pattern"] = f"^({words})$"
        return converted | {"nullable": True}
