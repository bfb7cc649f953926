"""MRCR (openai/mrcr): find the i-th of several similar texts in a long conversation and repeat it behind a hash.

One rule in all modes: after the thought, 0 unless the reply starts with the hash; then the ratio of
`difflib.SequenceMatcher` between reply and gold without their hashes, its heuristic for frequent characters left on.
`official` keeps white space in front of a reply without a thought. A cut thought scores 0 in all modes: it does not
start with the hash.

Three benchmarks by the prompt's length in tokens of the evaluated model. A prompt that does not fit is skipped and
counted: cutting it would remove needles, as the released evaluation does, which also joins the turns to one message.
"""

from difflib import SequenceMatcher
from functools import partial

from golongrl import whole_text
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field
from golongrl.evaluation.replies import ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

_COLUMNS = ("answer", "random_string_to_prepend", "n_needles", "desired_msg_index", "total_messages", "n_chars")
_NEEDLES = (2, 4, 8)
_SOURCES = tuple(
    EvalSource(
        f"mrcr-{needles}needle",
        "openai/mrcr",
        (f"{needles}needle*.parquet",),
        800,
        "train",
        note="pin a revision of 2025-12-05 or later: a fault of the data was mended then",
    )
    for needles in _NEEDLES
)


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    gold = text_field(record, "answer", where)
    prefix = text_field(record, "random_string_to_prepend", where)
    needles = record.get("n_needles")
    if isinstance(needles, bool) or not isinstance(needles, int):
        raise EvaluationError(f"{where}: n_needles must be an integer, got {needles!r}")
    if not gold.startswith(prefix):
        raise EvaluationError(f"{where}: answer does not start with random_string_to_prepend {prefix!r}")
    extra = {"hash": prefix, "n_chars": str(record.get("n_chars", ""))}
    return ProblemDraft(f"{prefix}-{where.rpartition(' ')[2]}", (gold,), labels={"needles": str(needles)}, extra=extra)


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    return chat(text_field(record, "prompt", problem.where), problem.where)


def chat(prompt: str, where: str) -> list[Message]:
    """The messages in a JSON text.

    Raises:
        EvaluationError: it is not a list of messages.
    """
    try:
        messages = whole_text.loads(prompt)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{where}: prompt is not JSON: {error}") from error
    return checked_chat(messages, where)


def checked_chat(messages: object, where: str) -> list[Message]:
    """A list of messages with role and content.

    Raises:
        EvaluationError: it is something else.
    """
    if not isinstance(messages, list) or not messages:
        raise EvaluationError(f"{where}: prompt must be a list of messages")
    chat: list[Message] = []
    for i, message in enumerate(messages):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise EvaluationError(f"{where}: prompt[{i}] must have a role and a content")
        chat.append({"role": role, "content": content})
    return chat


def score(response: str, answer: str, random_string_to_prepend: str) -> float:
    """The rule of all modes, for a reply without its thought."""
    if not response.startswith(random_string_to_prepend):
        return 0.0
    return float(
        SequenceMatcher(
            None, response.removeprefix(random_string_to_prepend), answer.removeprefix(random_string_to_prepend)
        ).ratio()
    )


def _score(problem: EvalProblem, reply: FinalAnswer, _mode: Mode) -> ScoredReply:
    answer, prefix = reply.answer, problem.extra["hash"]
    return scored(answer, score(answer, problem.golds[0], prefix), unparsed=not answer.startswith(prefix))


_mrcr = partial(
    Benchmark,
    sources=_SOURCES,
    labels=("needles",),
    _columns=_COLUMNS,
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    input_tokens=None,
    rule="skip",
)

MRCR = (
    _mrcr(name="mrcr-128k", title="MRCR <=128K", bin_tokens=(0, 131_072), input_tokens=131_072),
    _mrcr(name="mrcr-512k", title="MRCR 128K-512K", bin_tokens=(131_073, 524_288), context=524_288, yarn_factor=2.0),
    _mrcr(name="mrcr-1m", title="MRCR 512K-1M", bin_tokens=(524_289, 1_048_576), context=1_048_576, yarn_factor=4.0),
)
