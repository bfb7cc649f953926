"""Separating a reply's thought from its answer.

A thinking model's reply comes in three forms: `<think>thought</think>answer`; `thought</think>answer`, where the chat
template opened the thought in the prompt; and the answer alone, with the thought in the field `reasoning_content`.

A thought that was cut by the length limit has no closing tag, and the text before the cut is no answer. `strict` then
scores an empty answer and flags it. `compat` and `official` score the whole text, as the released evaluation does;
without a closing tag `official` leaves it as it came, white space included.

Rules of `strict`, in this order:
- text behind the last `</think>` is the answer;
- an opening tag without a closing one: no answer (also of an engine that separates thoughts: it sends no text then);
- no tag at all and the reply was cut (`finish_reason` "length"), of a thinking model whose engine did not separate the
  thought: no answer, because what was cut is the thought that the template opened;
- else the whole text.

A cut behind the thought (or behind separate reasoning) is scored as it stands and flagged.
"""

from dataclasses import dataclass

from golongrl.evaluation.kinds import Flag, Mode
from golongrl.tasks.text import CLOSE, OPEN

_CUT = frozenset({"length", "max_tokens", "model_length"})  # as OpenAI, Anthropic and inspect-ai name it


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The text behind the thought, the text as it came, and what is to be counted about it."""

    answer: str
    whole: str
    flags: frozenset[Flag]


def strip_thought(
    text: str,
    finish_reason: str = "stop",
    thinking: bool = True,
    reasoning: str | None = None,
    mode: Mode = "strict",
) -> FinalAnswer:
    """The answer of a reply; see the module for the rules."""
    cut = finish_reason in _CUT
    flags: set[Flag] = {"truncated"} if cut else set()
    if cut and not text.strip() and reasoning and mode == "strict":
        flags.add("no_thought_end")
    if CLOSE in text:
        return FinalAnswer(text.rpartition(CLOSE)[2].strip(), text, frozenset(flags))
    opened = OPEN in text
    unseparated = thinking and not reasoning
    if mode == "strict" and (opened or (cut and unseparated)):
        flags |= {"truncated", "no_thought_end"}
        return FinalAnswer("", text, frozenset(flags))
    return FinalAnswer(text if mode == "official" else text.strip(), text, frozenset(flags))
