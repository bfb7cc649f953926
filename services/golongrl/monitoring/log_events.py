"""The log lines that the program can write, read from its source: what `docs/logs.md` lists.

Invariants: an event's name is written out where it is logged, or is a constant, so that it is the same in every line;
its fields have names of their own, and none of them is made for what a prompt or an answer says.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import golongrl

LEVELS: Final = ("debug", "info", "warning", "error", "exception", "critical")
_LOGGERS: Final = ("log", "logger")
# Fields that would hold text of a prompt or an answer, or token ids.
FORBIDDEN: Final = frozenset(
    {
        *("prompt", "prompt_ids", "ids", "input_ids", "output_ids", "text", "response", "answer", "ground_truth"),
        *("messages", "content", "completion", "body", "extra_info", "password", "token", "api_key", "secret"),
    }
)  # fmt: skip


@dataclass(frozen=True, order=True)
class LogEvent:
    """One place that logs."""

    room: str
    name: str
    level: str
    fields: tuple[str, ...]
    where: str
    """File and line."""


def sources() -> list[Path]:
    """The program's own modules."""
    package = Path(golongrl.__file__).parent
    operator = package.parent.parent / "operators" / "golongrl_operator"
    operator = operator if operator.is_dir() else package.parent / "golongrl_operator"
    return sorted([*package.rglob("*.py"), *operator.rglob("*.py")])


def events(paths: list[Path] | None = None) -> Iterator[LogEvent]:
    """Every place that logs.

    Raises:
        ValueError: an event has no name of its own (a variable, an f-string); the message says where.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for path in (sources() if paths is None else paths)}
    constants = {key: value for path, tree in trees.items() for key, value in _constants(path.stem, tree)}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if _logs(node):
                assert isinstance(node, ast.Call)
                yield _event(path, node, constants)


def _constants(module: str, tree: ast.Module) -> Iterator[tuple[tuple[str, str], str]]:
    """The module's constants that are texts, by module and name."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        value = node.value
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield (module, target.id), value.value


def _logs(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id in _LOGGERS


def _event(path: Path, node: ast.Call, constants: Mapping[tuple[str, str], str]) -> LogEvent:
    where = f"{path.name}:{node.lineno}"
    name: str | None = None
    match node.args:
        case [ast.Constant(value=value)] if isinstance(value, str):
            name = value
        case [ast.Name(id=constant)]:
            name = constants.get((path.stem, constant))
        case [ast.Attribute(value=ast.Name(id=module), attr=constant)]:
            name = constants.get((module, constant))
    if name is None:
        raise ValueError(f"{path}:{node.lineno}: an event is one text, written out, and the rest is fields")
    fields = tuple(sorted(keyword.arg or "..." for keyword in node.keywords))
    assert isinstance(node.func, ast.Attribute)
    parts = path.parts
    package = "golongrl" if "golongrl" in parts[:-1] else "golongrl_operator"
    inside = parts[len(parts) - parts[::-1].index(package) :]
    room = "operator" if package != "golongrl" else inside[0] if len(inside) > 1 else "every process"
    return LogEvent(room, name, node.func.attr, fields, where)


def page() -> str:
    """`docs/logs.md`."""
    rows = sorted(
        {(event.room, event.name, event.level, ", ".join(f"`{f}`" for f in event.fields)) for event in events()}
    )
    table = "\n".join(f"| {room} | `{name}` | {level} | {fields} |" for room, name, level, fields in rows)
    return f"""{_HEAD}
| Room | Event | Level | Fields |
|---|---|---|---|
{table}
"""


_HEAD: Final = """# Log lines

Written by `make generate`, from the calls themselves.

Every process logs to stderr: one JSON object a line in pods and files, coloured text on a terminal. `golongrl train`
puts the lines of each service into `logs/NAME.log` of the run's folder. An event has the same name in every line that
reports the same fact, so a name is what to search for:

```
jq -R -c 'fromjson? | select(.event == "stalled")' runs/mine/logs/learner.log
```

Besides the fields below a line has `event`, `level` (`exception` is logged as `error`, with a traceback in
`exception`), `timestamp` (UTC), `service`, and where they are known `run`, `worker`, `uid` (the group), `version` (the
policy version) and `step`.

No line has the text of a prompt or an answer, token ids, a password or a key: values are shortened, lists and arrays
are counted, passwords in addresses and the values of secret environment variables are replaced. Text is kept in
`samples.jsonl` only, which its owner alone may read, and which `telemetry.samples: 0` switches off.
"""
