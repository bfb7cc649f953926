"""`score`: one response of one row in, one Outcome out. No I/O, no clock, no state.

Order of judgement. compat: gate, data source, ground truth, metric, so that a response without </think> is worth 0
even for a row nobody can score. strict: data source, ground truth, gate, metric: a broken row is reported whatever was
answered.

Nothing here watches a clock. Strict bounds its work by the size of what it evaluates. Compat evaluates math as the
original does, without a bound, so a caller who needs one runs it in a process that it can kill.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from golongrl.errors import brief
from golongrl.tasks import exact, listing, math_answer, math_strict, rouge, table, text
from golongrl.tasks.outcome import BadAnswerError, Mode, Outcome, UnscorableError
from golongrl.tasks.registry import LONGBENCH_PRO, Task, UnknownTaskError, task_of

# What a metric or a library below it can raise on hostile input. A crash outside these, or of the interpreter itself,
# ends the worker process, and its owner reports the item.
CRASHES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # RecursionError and NotImplementedError are RuntimeErrors
    SyntaxError,
    TypeError,
    ValueError,
)

LANGUAGES = ("Chinese", "English")

Listing = Callable[[Sequence[str], Sequence[str]], float]
_LISTING: Mapping[str, tuple[Listing, Listing]] = MappingProxyType(
    {
        "Accuracy": (listing.accuracy, listing.accuracy),
        "F1": (listing.f1, listing.f1),
        "SubEM": (listing.sub_em, listing.sub_em_strict),
        "NDCG": (listing.ndcg, listing.ndcg_strict),
        "Pairwise": (listing.pairwise, listing.pairwise_strict),
    }
)


def score(
    data_source: object,
    response: object,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None,
    mode: Mode = "compat",
) -> Outcome:
    """Score `response`, the whole generated text, against a row's `ground_truth`.

    `ground_truth` is the row's mapping {doc_ids, golden_label, summary}; of a list of them the last counts. As in most
    public sets it may be the gold answer itself, a string or a number (compat: in math rows alone, as the original).
    `extra_info` gives LongBench-Pro rows their `reward_mode`. Raises UnknownTaskError for a data_source or reward_mode
    of no task type, and ValueError for an unknown mode. Whatever else prevents a score is an outcome with status
    "unscored" and the reason.
    """
    if mode not in ("compat", "strict"):
        raise ValueError(f'mode must be "compat" or "strict", got {mode!r}')
    strict = mode == "strict"
    reward_mode = extra_info.get("reward_mode") if isinstance(extra_info, Mapping) else None
    if not isinstance(response, str):
        task = task_of(data_source, reward_mode)
        return _unscored(task, f"response must be a string, got {type(response).__name__}")
    stopped = text.gate(response, strict=strict)
    if stopped and not strict:
        return _stopped(data_source, reward_mode, stopped)
    task = task_of(data_source, reward_mode)
    try:
        judge = _strict if strict else _compat
        value = judge(task, data_source == LONGBENCH_PRO, response, ground_truth)
    except BadAnswerError as error:
        return Outcome(0.0, "scored", task.metric, task.type, str(error)) if strict else _unscored(task, str(error))
    except UnscorableError as error:
        return _unscored(task, str(error))
    except CRASHES as error:
        return _unscored(task, f"metric crashed: {type(error).__name__}: {brief(error, 200)}")
    return Outcome(value, "scored", task.metric, task.type, stopped)


def _unscored(task: Task, reason: str) -> Outcome:
    return Outcome(None, "unscored", task.metric, task.type, reason)


def _stopped(data_source: object, reward_mode: object, reason: str) -> Outcome:
    """The gate's 0 in compat, which does not ask for the data source."""
    try:
        task = task_of(data_source, reward_mode)
    except UnknownTaskError:
        return Outcome(0.0, "scored", "", "", reason)
    return Outcome(0.0, "scored", task.metric, task.type, reason)


def _mapping(ground_truth: object, *, plain: bool) -> Mapping[str, Any]:
    """The ground truth to use: of a list, the last; with `plain`, of a string or number the mapping that it stands for.

    Raises:
        UnscorableError: it is none of these.
    """
    truth = ground_truth
    if isinstance(truth, list | tuple):
        if not truth:
            raise UnscorableError("invalid ground truth: an empty list")
        truth = truth[-1]
    if plain and isinstance(truth, str | int | float) and not isinstance(truth, bool):
        return plain_truth(truth)
    if not isinstance(truth, Mapping):
        raise UnscorableError(f"invalid ground truth: expected a mapping, got {type(truth).__name__}")
    return truth


def plain_truth(label: str | float) -> dict[str, Any]:
    """The mapping that a plain gold answer stands for: a label, and its lines as items."""
    words = label if isinstance(label, str) else repr(label)
    golds = [line for line in words.splitlines() if line.strip()]
    return {
        "doc_ids": golds,
        "golden_label": words,
        "summary": "Chinese" if text.has_chinese(words) else "English",
    }


def _field(truth: Mapping[str, Any], name: str) -> Any:
    if name not in truth:
        raise UnscorableError(f"invalid ground truth: no {name}")
    return truth[name]


def _label(truth: Mapping[str, Any]) -> str:
    label = _field(truth, "golden_label")
    if not isinstance(label, str):
        raise UnscorableError(f"invalid ground truth: golden_label must be a string, got {type(label).__name__}")
    return label


def _labels(truth: Mapping[str, Any]) -> list[str]:
    """The golden labels of a math row: one or, as a list, any of several."""
    labels = _field(truth, "golden_label")
    found = list(labels) if isinstance(labels, list | tuple) else [labels]
    if not found or not all(isinstance(label, str) for label in found):
        kinds = ", ".join(sorted({type(label).__name__ for label in found})) or "an empty list"
        raise UnscorableError(f"invalid ground truth: golden_label must be a string or strings, got {kinds}")
    return found


def _compat(task: Task, longbench_pro: bool, response: str, ground_truth: object) -> float:
    """The score of a response that passed the gate, by the original's rules."""
    if task.metric == "IoU":
        return table.iou(ground_truth, response)
    truth = _mapping(ground_truth, plain=task.metric == "math_verify")
    if longbench_pro:
        return _compat_longbench_pro(task.metric, response, truth)
    if task.metric == "math_verify":
        return math_answer.equal(_labels(truth), response)
    judge = exact.exact_match if task.metric == "EM" else exact.selection
    return judge(_label(truth), text.after_think(response))


def _compat_longbench_pro(metric: str, response: str, truth: Mapping[str, Any]) -> float:
    """The original swallows whatever goes wrong here as 0, so doc_ids that are no strings are worth 0, not an error."""
    documents, language = _field(truth, "doc_ids"), _field(truth, "summary")
    if not isinstance(documents, Iterable):
        return 0.0
    golds = list(documents)  # of a plain string, its characters
    if not golds or not all(isinstance(gold, str) for gold in golds):
        return 0.0
    if metric == "ROUGE-L":
        return rouge.rouge_l(golds, response, chinese=language == "Chinese")
    measure, _ = _LISTING[metric]
    return measure([text.collapse(gold.lower()) for gold in golds], text.lines_of(text.answer_area(response)))


def _strict(task: Task, longbench_pro: bool, response: str, ground_truth: object) -> float:
    """The score with the openings closed: only what follows </think> counts, and an invalid row is unscored."""
    truth = _mapping(ground_truth, plain=True)
    passed = not text.gate(response, strict=True)
    answer = text.one_form(text.after_think(response)) if passed else ""
    if longbench_pro:
        value = _strict_longbench_pro(task.metric, answer, truth)
    elif task.metric == "IoU":
        value = table.iou_strict(truth, answer)
    elif task.metric == "math_verify":
        labels = [text.one_form(label) for label in _labels(truth)]
        if any(math_strict.says_nothing(label) for label in labels):
            raise UnscorableError("invalid ground truth: golden_label is blank")
        value = _strict_math(labels, text.seen(answer))
    else:
        label = text.one_form(_label(truth))
        if not label.strip():
            raise UnscorableError("invalid ground truth: golden_label is blank")
        em = task.metric == "EM"
        value = exact.exact_match(label, answer) if em else exact.selection_strict(label, text.seen(answer))
    return value if passed else 0.0


def _strict_math(labels: list[str], answer: str) -> float:
    """A library that crashes on a sound gold crashes because of the answer, which is then wrong."""
    try:
        return math_strict.equal(labels, answer)
    except BadAnswerError:
        raise
    except (UnscorableError, *CRASHES) as error:
        if not math_answer.comparable(labels):
            raise
        raise BadAnswerError(f"the answer cannot be compared: {type(error).__name__}: {brief(error, 200)}") from error


def _strict_longbench_pro(metric: str, answer: str, truth: Mapping[str, Any]) -> float:
    golds = _strict_golds(_field(truth, "doc_ids"))
    area = text.answer_area_strict(answer)
    if metric == "ROUGE-L":
        language = _field(truth, "summary")
        if language not in LANGUAGES:
            raise UnscorableError(f"invalid ground truth: summary must be one of {LANGUAGES}, got {language!r}")
        return rouge.rouge_l_strict(golds, area, chinese=language == "Chinese")
    golds = [text.collapse(gold.lower()) for gold in golds]
    if metric == "Pairwise" and len(set(golds)) < 2:
        raise UnscorableError("invalid ground truth: an order needs at least two different doc_ids")
    _, measure = _LISTING[metric]
    return measure(golds, text.items_of(area, set(golds)))


def _strict_golds(documents: object) -> list[str]:
    if not isinstance(documents, list | tuple) or not documents:
        raise UnscorableError("invalid ground truth: doc_ids must be a list of at least one string")
    for i, gold in enumerate(documents):
        if not isinstance(gold, str) or not text.one_form(gold).strip():
            raise UnscorableError(
                f"invalid ground truth: doc_ids[{i}] must be a string that is not blank, got {gold!r}"
            )
    return [text.one_form(gold) for gold in documents]
