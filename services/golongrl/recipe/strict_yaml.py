"""YAML as a person meant it: read strictly, with one line for each fault. `golongrl.yaml_text` writes it."""

import re
from typing import Any, NoReturn

import yaml

from golongrl.errors import brief

# A recipe or a file of values has a few hundred lines, three levels deep; more is a mistake or an attack.
MAX_BYTES = 1 << 20
MAX_DEPTH = 40
# What a message shows of a value.
_SHOWN = 60

# Numbers that readers of YAML 1.1 and 1.2 (this one, Helm's, kubectl's) understand in different ways, or not at all:
# octal and binary ones, those of base 60, and underscores that do not stand between two digits.
_DOUBTFUL = re.compile(
    r"""[-+]?(
        0[0-9_]+ | 0[oO][0-7_]+ | 0[bB][01_]+
        | 0X[0-9a-fA-F_]+ | 0x_?[0-9a-fA-F]*_[0-9a-fA-F_]*
        | [0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?
        | [0-9][0-9_]*_(\.[0-9_]*)?([eE][-+]?[0-9]+)?
        | [0-9][0-9_]*__[0-9_.]*
        | [0-9_]*\.[0-9]*_[0-9_]*([eE][-+]?[0-9]+)?
    )""",
    re.VERBOSE,
)
# Words that readers of YAML 1.1 (Helm's, kubectl's) take for booleans and this one for texts: these as a value, and as
# a key all that are no plain `true` or `false`. The key `n` is the recipe's own, which chart and operator put right.
_DOUBTFUL_WORD = re.compile(r"[yYnN]")
_DOUBTFUL_KEY = re.compile(r"[yYN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF|True|TRUE|False|FALSE")
_CORE = "tag:yaml.org,2002:"
# A key is text, whatever it looks like.
_TEXT_AS_KEY = frozenset(_CORE + kind for kind in ("bool", "int", "float", "null", "merge", "value", "timestamp"))
# Of these, Helm and kubectl write all but plain numbers in their own way (1e3 as 1000), or refuse them.
_OTHER_AS_KEY = frozenset(_CORE + kind for kind in ("int", "float", "null", "merge"))
_PLAIN_KEY = re.compile(r"0|-?[1-9][0-9]{0,17}")


class _Loader(yaml.SafeLoader):
    """YAML with the floats of 1.2 (PyYAML's 1.1 reads `1e-6` as text), and without what hides a mistake or takes the
    machine: numbers and words that another reader understands otherwise, tags, a key twice, aliases, endless nesting.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._refuse(f"alias *{event.anchor}: write the value out, aliases are not read", event.start_mark)
        # PyYAML itself refuses a tag that it does not know.
        if (tag := str(event.tag)).startswith(_CORE) and tag != f"{_CORE}str" and tag in self.yaml_constructors:
            shown = tag.replace(_CORE, "!!")
            self._refuse(f"a value cannot be read: write it without the tag {shown}", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            is_key = isinstance(parent, yaml.MappingNode) and index is None
            self._refuse_doubtful(event.value, event.start_mark, _DOUBTFUL_KEY if is_key else _DOUBTFUL_WORD)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"nests more than {MAX_DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse_doubtful(self, word: str, mark: Any, words: re.Pattern[str]) -> None:
        if _DOUBTFUL.fullmatch(word):
            self._refuse(
                f"{word[:_SHOWN]}: YAML readers take this for different numbers, or for text; write the number "
                "with plain digits, or put quotes around a text",
                mark,
            )
        if words.fullmatch(word):
            self._refuse(
                f"{word}: YAML readers take this for true or false, or for text; write true or false, or put quotes "
                "around a text",
                mark,
            )

    def _refuse(self, problem: str, mark: Any) -> NoReturn:
        raise yaml.MarkedYAMLError(None, None, problem, mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if (first := seen.get(key.value)) is not None:
                self._refuse(f"the key {key.value} stands twice, first in line {first}", key.start_mark)
            seen[key.value] = key.start_mark.line + 1
            if key.tag in _OTHER_AS_KEY and not _PLAIN_KEY.fullmatch(key.value):
                self._refuse(
                    f"the key {key.value[:_SHOWN] or 'of nothing'}: YAML readers take this for another text, or refuse "
                    "it; put quotes around it",
                    key.start_mark,
                )
            if key.tag in _TEXT_AS_KEY:
                key.tag = f"{_CORE}str"
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    f"{_CORE}float",
    re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+|\.[0-9]+([eE][-+]?[0-9]+)?)$"),
    list("-+.0123456789"),
)


def _text(loader: _Loader, node: Any) -> str:
    return str(loader.construct_scalar(node))


# As values, `=` and `<<` are text, and so is a date, as to Helm and kubectl.
for _tag in ("value", "merge", "timestamp"):
    _Loader.add_constructor(_CORE + _tag, _text)


def read_yaml(text: str) -> Any:
    """The value of a YAML (or JSON) text.

    Raises:
        yaml.YAMLError: it is neither, or has a key twice, an alias, a tag, a number that readers take for different
            ones, or more size or depth than any file of ours.
    """
    return _read(text)[0]


def _read(text: str) -> tuple[Any, int]:
    """The value, and where it ends in the text; 0 without any."""
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"longer than {MAX_BYTES} characters")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return (None, 0) if node is None else (loader.construct_document(node), node.end_mark.index)
        finally:
            loader.dispose()
    # PyYAML's constructors let these through, as of a number of 5,000 digits.
    except (ValueError, OverflowError, AttributeError, TypeError, LookupError, RecursionError) as error:
        told = str(error).partition(": value has")[0]  # behind it stands how to change Python
        raise yaml.YAMLError(f"a value cannot be read: {type(error).__name__}: {brief(told, 200)}") from error


def read_whole(text: str) -> Any:
    """Of a text that is one value: what YAML would leave unread is a fault."""
    value, end = _read(text)
    if text[end:].strip():
        raise yaml.YAMLError(f"{text[end:].strip()[:_SHOWN]} would be read as a comment; put quotes around the value")
    return value


def yaml_problem(error: yaml.YAMLError) -> str:
    """The error in one line: what is wrong, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(error.problem.split())}"
    return " ".join(str(error).split())
