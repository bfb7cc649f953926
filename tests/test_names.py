"""One meaning a name, and one tree of errors, over the sources of both packages (nothing is imported)."""

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "services" / "golongrl", ROOT / "operators" / "golongrl_operator")

# Exceptions that never reach a person, each with what becomes of it.
INTERNAL = {
    "_NotPlainError": "ends the reading of one expression in golongrl.tasks",
    "UnscorableError": "becomes an outcome's `reason`",
    "BadAnswerError": "becomes an outcome's `reason`",
    "TooLargeError": "becomes an outcome's `reason`",
    "_PassingError": "becomes a retry, or a QueueUnavailableError",
    "_NotFlushedError": "becomes a retry, or a NotDurableError",
    "_RowFailedError": "ends the work on one row of golongrl.rollout, which is given back",
    "_RetryableError": "becomes a retry, or a RewardUnavailableError",
    "_AttemptFailedError": "becomes a retry, or an LlmUnavailableError",
    "UnusableAnswerError": "becomes the counted reason of a row that golongrl.data.construct drops",
    "NoSampleError": "becomes the counted reason of a row that golongrl.data.construct drops",
    "CacheNotFlushedError": "becomes an HTTP answer of the engine",
    "EngineWeightsError": "becomes an HTTP answer of the engine",
    "QueueFullError": "becomes an HTTP answer of the engine",
    "DuplicateRequestError": "becomes an HTTP answer of the engine",
    "BadRequestError": "becomes an HTTP answer of the engine",
    "EngineDeadError": "becomes an HTTP answer of the engine, whose process then ends",
    "PoolFullError": "becomes an HTTP answer of the reward service",
    "PoolNotReadyError": "becomes an HTTP answer of the reward service",
    "_OddRowError": "becomes a refused row of `golongrl data construct`",
    "UnreadError": "becomes a refused row of `golongrl data construct`",
    "RefusedError": "becomes an HTTP answer of the reward service",
}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))


def classes() -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
    """Every top-level class: name -> (file, names of its bases), once for each definition."""
    found = defaultdict(list)
    for path, module in modules():
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append((path, tuple(filter(None, map(_name, node.bases)))))
    return found


def _name(base: ast.expr) -> str:
    match base:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _name(value)
    return ""


CLASSES = classes()


def ancestors(name: str) -> set[str]:
    """The names of everything that a class inherits from, as far as the sources say."""
    found: set[str] = set()
    left = [base for _, bases in CLASSES.get(name, ()) for base in bases]
    while left:
        base = left.pop()
        if base not in found:
            found.add(base)
            left += [above for _, bases in CLASSES.get(base, ()) for above in bases]
    return found


def is_exception(name: str) -> bool:
    def built_in(base: str) -> bool:
        kind = getattr(builtins, base, None)
        return isinstance(kind, type) and issubclass(kind, BaseException)

    return any(built_in(base) for base in ancestors(name))


ERRORS = sorted(name for name in CLASSES if is_exception(name))


def test_the_sources_are_seen() -> None:
    assert len(CLASSES) > 200
    assert {"GolongrlError", "QueueError", "SpecError", "DataError"} <= set(ERRORS)


def test_a_class_name_means_one_thing_in_the_whole_repository() -> None:
    twice = {name: [str(path) for path, _ in where] for name, where in CLASSES.items() if len(where) > 1}
    assert twice == {}


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_is_a_golongrl_error_or_never_reaches_a_person(name: str) -> None:
    assert name.endswith("Error")
    ours = name == "GolongrlError" or "GolongrlError" in ancestors(name)
    assert ours is (name not in INTERNAL), f"{name} in {CLASSES[name][0][0]}"


def test_the_list_of_internal_exceptions_names_only_what_there_is() -> None:
    assert set(INTERNAL) <= set(ERRORS)
