"""What the benchmarks that ask about one text share: the question's form and reading its answer.

The reply is asked to end with "Therefore, the answer is (...)". Its answer is what follows that on the last line that
has it, else the last line that is not blank; brackets, quotes and a full stop around it are no part of it. `strict`
also removes asterisks.
"""

import re

from golongrl.evaluation.kinds import Mode

_THEREFORE = re.compile(r"therefore,?\s*the answer is:?\s*(.+)", re.IGNORECASE)
_ASK = """\
Read the text and answer the question about it.

<text>
{context}
</text>

{question}

End your reply with one line of the form: "Therefore, the answer is (your answer)"."""


def question_about(context: str, question: str) -> str:
    """The prompt."""
    return _ASK.format(context=context, question=question)


def extract_answer(text: str, mode: Mode = "strict") -> str:
    """The answer of a reply without its thought; see the module."""
    lines = [line for line in (text.replace("*", "") if mode == "strict" else text).splitlines() if line.strip()]
    stated = [found for line in lines if (found := _THEREFORE.search(line)) is not None]
    if not lines:
        return ""
    return bare(stated[-1][1] if stated else lines[-1], one_pair=mode == "strict")


def bare(answer: str, *, one_pair: bool = True) -> str:
    """An answer without what stands around it: quotes, a full stop, brackets.

    `one_pair`: only brackets that belong together, which those of "(a) and (b)" do not.
    """
    inner = answer.strip().strip('"').strip("'").rstrip(".")
    if not (inner.startswith("(") and inner.endswith(")")) or (one_pair and not _enclosed(inner)):
        return inner
    return inner[1:-1].strip()


def _enclosed(text: str) -> bool:
    """Whether the first bracket is closed by the last one, or by none."""
    depth = 0
    for at, mark in enumerate(text):
        depth += (mark == "(") - (mark == ")")
        if not depth:
            return at == len(text) - 1
    return True
