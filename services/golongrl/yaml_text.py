"""Writing YAML that every reader understands in the same way.

kubectl and Helm read YAML 1.1: to them the bare words `n`, `yes` and `off` are booleans, also as keys, and `010` and
`1:30` are numbers. PyYAML's own writer leaves some of those bare. Here a string is quoted if any reader, of YAML 1.1 or
1.2, would take it for something else.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

_BOOLEANS: Final = re.compile(r"^([yYnN]|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|true|True|TRUE|false|False|FALSE)$")
_OCTAL: Final = re.compile(r"^[-+]?0o[0-7_]+$")
_FLOAT: Final = re.compile(r"^[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$")
# Wider than a line can be, so that no text is folded.
_WIDE: Final = 10_000


class _Dumper(yaml.SafeDumper):
    """No anchors: the same security context in five places is five texts. Text of several lines is a block."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEANS, list("yYnNtTfFoO"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _OCTAL, list("-+0"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def dump(value: Any, width: int = _WIDE, flow: bool = False) -> str:
    """One document; keys stay in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow)


def dump_all(values: Iterable[Any]) -> str:
    """Several documents."""
    return yaml.dump_all(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDE)
