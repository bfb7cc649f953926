"""The sampled groups of a report: prompts and answers as text, all of it escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def section(groups: Sequence[Json]) -> str:
    """The groups of the newest step that has any."""
    if not groups:
        return ""
    note = (
        f"From step {_word(groups[0], 'step')}: the group with the lowest mean reward, the one with the highest, and "
        "random ones. Long texts are shortened in their middle; of many answers, the worst, the best and some between "
        "are shown."
    )
    made = "".join(_group(group, opened=index == 0) for index, group in enumerate(groups))
    return f'<h2>Sample groups</h2><p class="note">{note}</p>{made}'


def _group(group: Json, *, opened: bool) -> str:
    where = f"group {_word(group, 'uid')} by {_word(group, 'worker')}, {_word(group, 'prompt_tokens')} prompt tokens"
    first = (
        f"<summary><b>{_word(group, 'why')}</b> · {_word(group, 'task')} ({_word(group, 'metric')}) · mean reward "
        f"{_number(group.get('reward'))} of {_word(group, 'of')} answers · {where}</summary>"
    )
    answers = "".join(_answer(answer) for answer in _list(group, "responses") if isinstance(answer, Mapping))
    prompt = f"<p>Prompt</p><pre>{_word(group, 'prompt')}</pre>"
    return f'<details class="group"{" open" if opened else ""}>{first}{prompt}{answers}</details>'


def _answer(answer: Json) -> str:
    spans = ", ".join(_span(span) for span in _list(answer, "versions"))
    reward = _number(answer.get("reward")) if answer.get("reward") is not None else f"none ({_word(answer, 'reason')})"
    told = f"reward {reward} · {_word(answer, 'tokens')} tokens · {_word(answer, 'finish')} · version {spans or '?'}"
    return f"<p>Answer: {told}</p><pre>{_word(answer, 'text')}</pre>"


def _span(span: Any) -> str:
    try:
        version, begin, end = span
    except (TypeError, ValueError):
        return "?"
    return html.escape(f"{version} (tokens {begin} to {end})")


def _word(found: Json, name: str) -> str:
    return html.escape(str(found.get(name, "?")))


def _list(found: Json, name: str) -> Sequence[Any]:
    """Empty where a damaged record has something else."""
    value = found.get(name)
    return value if isinstance(value, list) else ()


def _number(value: Any) -> str:
    # A damaged record may have an integer that no float holds.
    return f"{value:.2f}" if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53) else "none"
