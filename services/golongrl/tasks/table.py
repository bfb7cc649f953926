"""IoU of two tables given as JSON: `{"data": [[cell, ...], ...]}`, compared as multisets of rows.

A row that is a list compares as the tuple of its cells' str(), any other row as its str(); so 1 equals "1" but not 1.0.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache

from golongrl.tasks.outcome import UnscorableError
from golongrl.tasks.text import collapse, one_form

OPEN, CLOSE = "<answer>", "</answer>"
# Python refuses to convert longer digit strings to int (sys.set_int_max_str_digits); such a cell stays text.
MAX_INT_DIGITS = 4300


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else digits


def _load(text: str) -> object:
    """The JSON value. Raises json.JSONDecodeError, or RecursionError for brackets nested about a thousand deep."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer too long for int(); the hook is slow, so only then
        return json.loads(text, parse_int=_integer)


def _rows(data: Iterable[object], cell: Callable[[object], str] = str) -> Counter[Hashable]:
    return Counter(tuple(map(cell, row)) if isinstance(row, list) else cell(row) for row in data)


_WORDS = {"True": "true", "False": "false", "None": "null"}
_WHOLE = re.compile(r"\A(-?\d+)\.0+\Z")


def _cell(value: object) -> str:
    """What strict compares: the text in one form, without white space around it; 1.0 is 1, true is "true", null is
    "null".
    """
    whole = isinstance(value, float) and value.is_integer()
    text = collapse(one_form(str(int(value) if whole else value)))  # type: ignore[call-overload]
    return _WORDS.get(text) or _WHOLE.sub(r"\1", text)


def iou_of(gold: Counter[Hashable], guess: Counter[Hashable]) -> float:
    """Multiset intersection over union; 0 if both are empty."""
    shared = (gold & guess).total()
    union = gold.total() + guess.total() - shared
    return shared / union if union else 0.0


def _tagged(text: str) -> str:
    """Between the first <answer> and the next </answer> or the end; the whole text if there is no <answer>."""
    _, found, rest = text.partition(OPEN)
    return rest.partition(CLOSE)[0].strip() if found else text.strip()


def _lenient(value: object) -> Counter[Hashable]:
    """The rows of a value as the original takes them: whatever has no iterable "data" has none."""
    data = value.get("data", []) if isinstance(value, dict) else []
    return _rows(data) if isinstance(data, list | dict | str) else Counter()


def _lenient_json(text: str) -> Counter[Hashable]:
    try:
        return _lenient(_load(text))
    except json.JSONDecodeError:
        return Counter()
    except RecursionError:
        raise UnscorableError("metric crashed: RecursionError: JSON nested too deeply") from None


@lru_cache(maxsize=256)  # a group's responses share their gold; nobody changes it
def _lenient_label(label: str) -> Counter[Hashable]:
    return _lenient_json(label)


def iou(truth: object, response: str) -> float:
    """IoU by the original's rules: the first <answer> of the whole response, and 0 where either side is no table.

    `truth` is the row's ground truth: a mapping whose "golden_label" is JSON, or that is itself the table.
    """
    if not isinstance(truth, dict):
        return 0.0
    label = truth.get("golden_label")
    gold = _lenient_label(label) if isinstance(label, str) else _lenient(label if isinstance(label, dict) else truth)
    return iou_of(gold, _lenient_json(_tagged(response)))


def _gold_rows(label: object) -> Counter[Hashable]:
    try:
        value = _load(label) if isinstance(label, str) else label
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnscorableError(f"invalid ground truth: golden_label is no JSON table: {error}") from None
    data = value.get("data") if isinstance(value, Mapping) else None
    if not isinstance(data, list) or not data:
        raise UnscorableError('invalid ground truth: golden_label needs "data", a list with at least one row')
    return _rows(data, _cell)


_TAGS = re.compile(r"<answer>(.*?)(?=</answer>|<answer>|\Z)", re.DOTALL | re.IGNORECASE)
# Places where a table may begin that are tried in one answer; every one costs a parse.
_MOST_TABLES = 50


def iou_strict(truth: Mapping[str, object], answer: str) -> float:
    """IoU of the last table in the answer behind </think>; "data" must be a list. Raises UnscorableError if the gold is
    no table.

    The table is looked for between <answer> tags, in the last pair that holds one, without a tag in the whole answer;
    a code fence or words around it do no harm, nor single quotes or trailing commas. JSON nested too deeply to read is
    no table, so it earns 0: leaving it unscored would let a policy opt out of a score.
    """
    gold = _gold_rows(truth if "golden_label" not in truth and "data" in truth else truth.get("golden_label"))
    tagged = [found[1] for found in _TAGS.finditer(answer) if re.search(r"\w", found[1])]
    for place in [*reversed(tagged[-_MOST_TABLES:]), *([] if tagged else [answer])]:
        data = _last_table(place)
        if data is not None:
            return iou_of(gold, _rows(data, _cell))
    return 0.0


def _last_table(text: str) -> list[object] | None:
    """The rows of the last JSON object with "data" in the text, or of the one literal in it; None without either."""
    found: list[object] | None = None
    start = text.find("{")
    literal = text[start : text.rfind("}") + 1]
    for _ in range(_MOST_TABLES):
        if start < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            end = start + 1
        else:
            data = _data(value)
            found = data if data is not None else found
        start = text.find("{", end)
    return _data(_literal(literal)) if found is None else found


def _data(value: object) -> list[object] | None:
    data = value.get("data") if isinstance(value, dict) else None
    return data if isinstance(data, list) else None


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)  # a line break in a string does no harm
_QUOTES = str.maketrans("“”", '""')
_NO_ESCAPE = re.compile(r"\\(?![\\'\"bfnrtu])")
# A string, which stays, or a comment of JavaScript, which goes.
_COMMENT = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL)
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
_NAMES = {"true": True, "false": False, "null": None}
# Of a literal: Python's parser takes about a second for a million characters.
_MOST_CHARACTERS = 200_000


def _literal(text: str) -> object:
    """The table as Python or JavaScript would write it, with single quotes, trailing commas, comments,
    tuples, bare keys or an apostrophe in a name."""
    if len(text) > _MOST_CHARACTERS:
        return None
    text = _NO_ESCAPE.sub(r"\\\\", text.translate(_QUOTES))
    for form in (text, _COMMENT.sub(r"\1", text), _APOSTROPHE.sub(r"\'", text)):
        try:
            return _value(ast.parse(form, mode="eval").body)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
    return None


def _value(node: ast.expr | None) -> object:
    match node:
        case ast.Dict(keys, values):
            return {str(_value(key)): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.List(parts) | ast.Tuple(parts):
            return [_value(part) for part in parts]
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
            return -number
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return _NAMES.get(name, name)
    raise ValueError("no literal")
