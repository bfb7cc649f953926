"""How a prompt says in which form to answer: thoughts first, then the form that the row's metric reads."""

from collections.abc import Mapping
from typing import Final

from golongrl.tasks import task_of

# The form of a response that every metric reads: thoughts, then the task's own form of answer.
FULL_FORM: Final = "Answer in exactly this form:\n<think>your thoughts</think>\n"
ITEMS: Final = "[Answer]\nthe first item\nthe second item\nand so on, one a line"
OPTION: Final = "The correct answer is (X)"
BOXED: Final = "\\boxed{the number}"
SUMMARY: Final = "[Answer]\nthe summary"

_FULL_CHINESE: Final = "请严格按以下格式作答：\n<think>思考过程</think>\n"
_ITEMS_CHINESE: Final = "[答案]\n第一项\n第二项\n依此类推，每行一项"

# By metric, then by whether the row is one of LongBench-Pro's: English, Chinese.
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "EM": ("the answer and nothing else", "答案本身，不写其他内容"),
    "Accuracy": (OPTION, OPTION),
    "Accuracy/longbench_pro": ("[Answer]\nthe answer", "[答案]\n答案"),
    "math_verify": (BOXED, "\\boxed{数值}"),
    "IoU": (
        '<answer>{"data": [["cell", "cell", 1], ["cell", "cell", 2]]}</answer>',
        '<answer>{"data": [["单元格", "单元格", 1], ["单元格", "单元格", 2]]}</answer>',
    ),
    "ROUGE-L": (SUMMARY, "[答案]\n摘要"),
    "F1": (ITEMS, _ITEMS_CHINESE),
    "SubEM": (ITEMS, _ITEMS_CHINESE),
    "NDCG": (ITEMS, _ITEMS_CHINESE),
    "Pairwise": (ITEMS, _ITEMS_CHINESE),
}


def answer_form(data_source: str, reward_mode: str, language: str) -> str:
    """The instruction, in the language of the row.

    Raises:
        UnknownTaskError: no task type has this row.
    """
    metric = task_of(data_source, reward_mode).metric
    english, chinese = _FORMS.get(f"{metric}/{data_source}", _FORMS[metric])
    return _FULL_CHINESE + chinese if language == "Chinese" else FULL_FORM + english


def prompt_of(context: str, question: str, data_source: str, reward_mode: str, language: str) -> str:
    """The user's message about a document; with an empty context the question and the form alone.

    Raises:
        UnknownTaskError: no task type has this row.
    """
    text = f"{context}\n\n----\n" if context else ""
    return f"{text}{question}\n\n{answer_form(data_source, reward_mode, language)}"
