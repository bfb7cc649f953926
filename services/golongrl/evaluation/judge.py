"""The judge: what a second model is asked about an answer, and how its reply is read.

Two forms of question, in our words: `same_answer` asks whether an answer says the same as the gold (the released
evaluation's question); a benchmark's own official form, where it has one, lives in the benchmark's module. The judge
sees the question, the gold and the extracted answer, never the context.

Reading: in `strict` the LAST verdict counts, because a judge may weigh both before it decides; without a verdict the
reply is None, which the runner asks again and then counts as unjudged. The released evaluation reads in three ways
(`compat`): the first verdict; `[[YES]]` and no `[[NO]]`; the letters YES anywhere, so that "not YES" is right.
"""

import hashlib
import re
from typing import Final

from golongrl.evaluation.kinds import Mode

_VERDICT: Final = re.compile(r"\[\[\s*(yes|no)\s*\]\]", re.IGNORECASE)
# What the original gives a reply without a verdict before it asks again.
UNDECIDED: Final = 0.5

SAME_ANSWER: Final = """\
Two answers to one question follow: a reference answer, which is right, and a candidate's answer. Decide whether the \
candidate's answer means the same as the reference answer for this question. Wording, order of a list, notation and \
extra correct detail do not matter; a missing, additional or contradicting item does.

Question: {question}

Reference answer: {gold}

Candidate's answer: {answer}

First explain in one or two sentences. Then end with [[YES]] if both answers are the same, or with [[NO]] if not."""

# An answer may be a whole reply without its marker; a judge needs no more than this of it.
LONGEST_ANSWER: Final = 20_000


def same_answer(question: str, gold: str, answer: str) -> str:
    """The question to the judge."""
    return SAME_ANSWER.format(question=question, gold=gold, answer=answer[-LONGEST_ANSWER:])


def parse_verdict(text: str, mode: Mode = "strict") -> float | None:
    """1 or 0 by the last verdict, None without one; `compat`: by the first, 0.5 without one."""
    verdicts = _VERDICT.findall(text)
    if mode == "compat":
        return float(verdicts[0].lower() == "yes") if verdicts else UNDECIDED
    return float(verdicts[-1].lower() == "yes") if verdicts else None


def yes_and_not_no(text: str) -> float:
    """CorpusQA's reading in the released evaluation: an exact [[YES]] and no [[NO]]."""
    return float("[[YES]]" in text and "[[NO]]" not in text)


def has_yes(text: str) -> float:
    """Frames' and DocMath's reading in the released evaluation: the letters YES anywhere."""
    return float("YES" in text)


def prompt_hash(prompt: str) -> str:
    """A short name for the exact words of a prompt, for the report."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
