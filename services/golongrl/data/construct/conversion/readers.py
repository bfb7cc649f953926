"""How the rows of each public set become samples. Pure; a row that fits no task type's reward is refused with a reason.

`golongrl`       this dataset's own format: the question is cut off the prompt, so that all rows get one form of answer.
`longbench`      `input, context, answers[], language`: exact match (T1), where there is one short answer.
`longbench_v2`   `question, choice_A..choice_D, answer, context`: a choice (T2).
`longbench_pro`  `context, question_nonthinking, answer[], secondary_task, language`: by the sub-task's own metric.
`hotpotqa`       `question, answer, context{title, sentences}, supporting_facts{title, sent_id}`: exact match (T1).
`docmath`        `question, paragraphs[], ground_truth`: a number (T4).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from golongrl.data.construct.models import Reader
from golongrl.data.construct.sources import quality
from golongrl.data.construct.stage import refused
from golongrl.data.corpus import estimate_tokens
from golongrl.data.errors import DataError
from golongrl.data.rows import parse_row
from golongrl.tasks import UnknownTaskError, task_of
from golongrl.tasks.registry import LONGBENCH_PRO, MATH_MARKER

# An exact match of a longer answer is luck of wording.
_MOST_EXACT: Final = 20
# Answers that are right half of the time without a look at the context.
_GUESSABLE: Final = frozenset({"yes", "no", "true", "false", "是", "否", "对", "错"})
_LANGUAGES: Final = {"en": "English", "english": "English", "zh": "Chinese", "chinese": "Chinese"}
_OPTIONS: Final = "ABCD"

Sample = dict[str, Any]


class _OddRowError(Exception):
    """The row is not of the set's columns; the message says which one."""


def convert(reader: Reader, record: object) -> Sample:
    """The sample of a row: columns of `schemas.GENERATE`, or a refused row."""
    if not isinstance(record, Mapping):
        return refused("not of the format", f"expected an object, got {type(record).__name__}")
    try:
        return _READERS[reader](record)
    except _OddRowError as error:
        return refused("not of the format", str(error))


def _golongrl(record: Mapping[str, Any]) -> Sample:
    try:
        row = parse_row(dict(record), "row")
        task = task_of(row.data_source, row.extra_info.reward_mode)
    except DataError as error:
        raise _OddRowError(str(error).removeprefix("row: ")) from error
    except UnknownTaskError as error:
        return refused("unknown task", str(error))
    question = row.extra_info.question.strip()
    text = "\n\n".join(message.content for message in row.prompt)
    if not question:
        return refused("no question", "extra_info.question is empty")
    at = text.rfind(question)
    truth = row.reward_model.ground_truth
    label = truth.golden_label
    if isinstance(label, list):
        label = label[-1] if label else ""
    return {
        **_sample(text[:at].strip() if at >= 0 else text, question, truth.summary),
        "task": task.type,
        "data_source": row.data_source,
        "reward_mode": row.extra_info.reward_mode,
        "answer": label,
        "golds": truth.doc_ids,
    }


def _longbench(record: Mapping[str, Any]) -> Sample:
    answers = list(dict.fromkeys(answer.strip() for answer in _texts(record, "answers")))
    if len(answers) != 1:
        return refused("several answers", f"{len(answers)} answers; an exact match needs one")
    language = _LANGUAGES.get(str(record.get("language", "")).lower())
    return _exact(_text(record, "context"), _text(record, "input"), answers[0], language)


def _longbench_v2(record: Mapping[str, Any]) -> Sample:
    letter = _text(record, "answer").strip().upper()
    if letter not in _OPTIONS or len(letter) != 1:
        raise _OddRowError(f"answer: expected A, B, C or D, got {letter[:20]!r}")
    listed = "\n".join(f"({option}) {_text(record, f'choice_{option}').strip()}" for option in _OPTIONS)
    return {
        **_sample(_text(record, "context"), f"{_text(record, 'question').strip()}\n{listed}", None),
        "task": "T2",
        "data_source": "selection",
        "reward_mode": "selection",
        "answer": f"The correct answer is ({letter})",
    }


def _longbench_pro(record: Mapping[str, Any]) -> Sample:
    mode = _text(record, "secondary_task").strip()
    try:
        task = task_of(LONGBENCH_PRO, mode)
    except UnknownTaskError as error:
        return refused("unknown task", str(error))
    language = _LANGUAGES.get(str(record.get("language", "")).lower())
    return {
        **_sample(_text(record, "context"), _text(record, "question_nonthinking").strip(), language),
        "task": task.type,
        "data_source": LONGBENCH_PRO,
        "reward_mode": mode,
        "golds": [answer.strip() for answer in _texts(record, "answer")],
    }


def _hotpotqa(record: Mapping[str, Any]) -> Sample:
    context = record.get("context")
    titles, sentences = _paired(context, "title", "sentences", "context")
    articles = {str(title): [str(one) for one in some] for title, some in zip(titles, sentences, strict=False)}
    text = "\n\n".join(f"{title}\n{''.join(some).strip()}" for title, some in articles.items())
    facts = zip(*_paired(record.get("supporting_facts"), "title", "sent_id", "supporting_facts"), strict=False)
    evidence = [
        articles[title][number].strip()
        for title, number in facts
        if title in articles and isinstance(number, int) and 0 <= number < len(articles[title])
    ]
    return {**_exact(text, _text(record, "question"), _text(record, "answer"), "English"), "evidence": evidence}


def _docmath(record: Mapping[str, Any]) -> Sample:
    truth = record.get("ground_truth")
    if isinstance(truth, bool) or not isinstance(truth, int | float) or not math.isfinite(truth):
        return refused("not a number", f"ground_truth is {str(truth)[:40]}, and the reward compares numbers")
    return {
        **_sample("\n".join(_texts(record, "paragraphs")), _text(record, "question").strip(), None),
        "task": "T4",
        "data_source": MATH_MARKER,
        "reward_mode": MATH_MARKER,
        "answer": repr(truth),
    }


def _exact(context: str, question: str, answer: str, language: str | None) -> Sample:
    answer = answer.strip()
    if answer.lower().rstrip(".。") in _GUESSABLE:
        return refused("guessable", f"the answer {answer} is right half of the time without the context")
    if estimate_tokens(answer) > _MOST_EXACT:
        return refused("long answer", f"nobody would word {estimate_tokens(answer)} tokens in the same way")
    if answer.lower() not in context.lower():
        return refused("answer not in the context", "so an exact match cannot be expected")
    shown = {"data_source": "EM", "reward_mode": "EM", "answer": answer, "task": "T1"}
    return {**_sample(context, question.strip(), language), **shown}


def _sample(context: str, question: str, language: str | None) -> Sample:
    text = quality.normalise(context)
    return {
        "context": text,
        "question": question,
        "lang": language or quality.language(text) or "English",
        "golds": [],
        "evidence": [],
        "answer": "",
    }


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _OddRowError(f"{key}: expected a text, got {'nothing' if not value else type(value).__name__}")
    return value


def _texts(record: Mapping[str, Any], key: str) -> list[str]:
    value = record.get(key)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence) or not value or not all(isinstance(one, str) for one in value):
        raise _OddRowError(f"{key}: expected a list of texts")
    return list(value)


def _paired(value: object, first: str, second: str, key: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """Two columns of equal rows, written as lists in an object or as a list of objects or pairs."""
    if (
        isinstance(value, Mapping)
        and isinstance(value.get(first), Sequence)
        and isinstance(value.get(second), Sequence)
    ):
        return value[first], value[second]
    if isinstance(value, Sequence) and not isinstance(value, str):
        pairs = [(one.get(first), one.get(second)) if isinstance(one, Mapping) else tuple(one) for one in value]
        if all(len(pair) == 2 for pair in pairs):
            return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    raise _OddRowError(f"{key}: expected {first} and {second}")


_READERS: Final[Mapping[Reader, Callable[[Mapping[str, Any]], Sample]]] = {
    "golongrl": _golongrl, "longbench": _longbench, "longbench_v2": _longbench_v2, "longbench_pro": _longbench_pro,
    "hotpotqa": _hotpotqa, "docmath": _docmath,
}  # fmt: skip
