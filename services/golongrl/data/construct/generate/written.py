"""Questions that a model writes: what it is asked, and which of its answers can be used. Pure.

What a model wrote is believed in nothing that can be checked here: the evidence has to stand in the documents, an
answer that should be copied has to be there too, options and items have to differ, a number has to be one, and the gold
has to earn full marks by the strict rules of its metric.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from golongrl.data.construct.asking import sheet
from golongrl.data.construct.generate_models import AskedModel
from golongrl.data.construct.generators import MadeSample, NoSampleError, checked
from golongrl.data.construct.generators.kinds import KINDS
from golongrl.data.construct.generators.outline import Outline
from golongrl.data.construct.generators.retrieval import LETTERS
from golongrl.llm import Asker, ChatRequest, LlmCall, LlmMessage, LlmReply, UnusableAnswerError, answer_as
from golongrl.recipe import TaskType

STAGE = "generate"
# Raised where the same input makes other rows: they are then made again.
VERSION = 1
# Passages of evidence; what needs more of them is no evidence but a part of the document.
_MOST_EVIDENCE = 8
_NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})*(?:\.\d+)?|-?\d+(?:\.\d+)?(?:/\d+)?")
# Items by task type.
_COUNTS: dict[TaskType, tuple[int, int]] = {"T3": (2, 12), "T6": (2, 8), "T7": (3, 8), "T8": (4, 8)}
_ROWS = (2, 12)
_LEAST_SUMMARY = 40  # characters
# What a decoder is held to, in characters: far above what the prompt asks for.
_LONGEST_QUESTION = 2000
_LONGEST_ITEM = 400
_LONGEST_NUMBER = 40
_LONGEST_SUMMARY = 4000
_LONGEST_EVIDENCE = 800
_MOST_COLUMNS = 12


class WrittenSample(BaseModel):
    """What the model answers; which keys it needs depends on the task type."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=8)
    answer: str = ""
    options: list[str] = Field(default_factory=list)
    items: list[str] = Field(default_factory=list)
    rows: list[list[str | int | float]] = Field(default_factory=list)
    evidence: list[str] = Field(min_length=1, max_length=_MOST_EVIDENCE)


@dataclass(frozen=True)
class Order:
    """A sample that a model shall write."""

    task: TaskType
    outline: Outline
    model: AskedModel
    seed: int
    tries: int

    def calls(self) -> Iterator[LlmCall]:
        """What is asked, one after the other until an answer can be used."""
        prompts = sheet("write")
        outline = self.outline
        text = prompts.texts["frame"].format(
            context=outline.context,
            lang=outline.lang,
            part=prompts.texts["parts"]["numbered" if outline.numbered else "named"],
            label=outline.sections[0].label,
            task=prompts.texts["tasks"][self.task],
            keys=prompts.texts["keys"][self.task],
        )
        for number in range(self.tries):
            request = ChatRequest(
                messages=(LlmMessage(role="user", content=text),),
                max_tokens=self.model.max_tokens,
                temperature=self.model.temperature,
                top_p=self.model.top_p,
                seed=(self.seed + number) % (1 << 31),
                response_schema=schema_of(self.task) if self.model.schema_mode else None,
            )
            yield LlmCall(STAGE, f"{VERSION}-{prompts.sha}", self.model.model, request)

    async def ask(self, asker: Asker) -> None:
        """Ask until an answer can be used."""
        for call in self.calls():
            try:
                self.read(await asker.ask(call))
            except NoSampleError:
                continue
            return

    def made(self, reply_to: Callable[[LlmCall], LlmReply | None]) -> tuple[MadeSample, str]:
        """The sample from the replies there are, and the key of the reply.

        Raises:
            NoSampleError: none can be used; the reason is that of the last one.
        """
        refusal = NoSampleError("not asked", "there is no reply in the store")
        for call in self.calls():
            reply = reply_to(call)
            if reply is None:
                break
            try:
                return self.read(reply), reply.key
            except NoSampleError as error:
                refusal = error
        raise refusal

    def read(self, reply: LlmReply) -> MadeSample:
        """The sample that a reply holds. Raises NoSampleError."""
        try:
            written = answer_as(WrittenSample, reply)
        except UnusableAnswerError as error:
            raise NoSampleError(error.reason, str(error).partition(": ")[2]) from error
        task, outline = self.task, self.outline
        evidence = tuple(_found(passage, outline.context, "evidence") for passage in written.evidence)
        question, gold = _gold(task, written, outline.context)
        kind = KINDS[task]
        generator = f"model {self.model.model}"
        label, golds = (gold, ()) if isinstance(gold, str) else ("", gold)
        sample = MadeSample(
            task, outline.lang, *kind, outline.context, question, generator, evidence, answer=label, golds=golds
        )
        return checked(sample)


def schema_of(task: TaskType) -> dict[str, Any]:
    """The JSON schema of an answer for a task type: its own keys alone, and all of them.

    With optional keys a decoder that keeps to the schema may end an object before the gold. Lengths are bounded because
    a small model repeats itself up to max_tokens otherwise.
    """
    properties: dict[str, Any] = {"question": _text(_LONGEST_QUESTION)}
    match task:
        case "T1":
            properties["answer"] = _text(_LONGEST_ITEM)
        case "T2":
            properties["options"] = _list(_text(_LONGEST_ITEM), len(LETTERS), len(LETTERS))
            properties["answer"] = {"enum": list(LETTERS)}
        case "T4":
            properties["answer"] = _text(_LONGEST_NUMBER)
        case "T5":
            cells = {"anyOf": [_text(_LONGEST_ITEM), {"type": "number"}]}
            properties["rows"] = _list(_list(cells, 1, _MOST_COLUMNS), *_ROWS)
        case "T9":
            properties["answer"] = _text(_LONGEST_SUMMARY)
        case _:
            properties["items"] = _list(_text(_LONGEST_ITEM), *_COUNTS[task])
    properties["evidence"] = _list(_text(_LONGEST_EVIDENCE), 1, _MOST_EVIDENCE)
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _text(longest: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest}


def _list(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _gold(task: TaskType, written: WrittenSample, context: str) -> tuple[str, str | tuple[str, ...]]:
    """The question and its gold: a label, or the items of a list. Raises NoSampleError."""
    question, answer = written.question.strip(), written.answer.strip()
    match task:
        case "T1":
            return question, _found(answer, context, "answer")
        case "T2":
            return _choice(question, answer, written.options)
        case "T4":
            if not _NUMBER.fullmatch(answer):
                raise NoSampleError("answer is not a number", answer[:80])
            return question, answer.replace(",", "")
        case "T5":
            return question, _table(written.rows)
        case "T9":
            if len(answer) < _LEAST_SUMMARY:
                raise NoSampleError("summary too short", f"{len(answer)} characters")
            return question, (" ".join(answer.split()),)
    items = tuple(" ".join(item.split()) for item in written.items)
    least, most = _COUNTS[task]
    if not least <= len(items) <= most:
        raise NoSampleError("wrong number of items", f"{len(items)}, from {least} to {most} are allowed")
    if task == "T6":
        items = tuple(_found(item, context, "answer") for item in items)
    if task == "T8" and (missing := [item for item in items if item.lower() not in question.lower()]):
        raise NoSampleError("item not in the question", missing[0][:80])
    return question, items


def _choice(question: str, answer: str, options: list[str]) -> tuple[str, str]:
    texts = [" ".join(option.split()) for option in options]
    if len(texts) != len(LETTERS) or len({text.lower() for text in texts}) < len(LETTERS) or not all(texts):
        raise NoSampleError("options", f"{len(LETTERS)} different ones are needed")
    letter = answer.strip(" ().").upper()
    if letter not in LETTERS or len(letter) != 1:
        raise NoSampleError("options", f"the answer {answer[:20]!r} is none of them")
    listed = "\n".join(f"({mark}) {text}" for mark, text in zip(LETTERS, texts, strict=True))
    return f"{question}\n{listed}", f"The correct answer is ({letter})"


def _table(rows: list[list[str | int | float]]) -> str:
    least, most = _ROWS
    if not least <= len(rows) <= most or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise NoSampleError("rows", f"{least} to {most} of the same width are needed")
    if len({json.dumps(row) for row in rows}) < len(rows):
        raise NoSampleError("gold not unique", "two rows are the same")
    return json.dumps({"data": rows}, ensure_ascii=False)


def _found(passage: str, context: str, what: str) -> str:
    """The passage as it stands in the context, whatever white space the model wrote between its words.

    Raises:
        NoSampleError: it does not stand there.
    """
    words = passage.split()
    if passage.strip() and passage.strip() in context:
        return passage.strip()
    found = re.search(r"\s+".join(map(re.escape, words)), context) if words else None
    if found is None:
        raise NoSampleError(f"{what} not in the context", passage[:80])
    return found[0]
