"""How many responses a core scores in a second, per task type, at answers of 1K and 16K tokens.

    python benchmarks/rewards.py [--mode compat|strict] [--seconds 1.0]

Beside each figure stand the original's, measured on one core (+-30 %), their ratio and the goal. Texts: English
prose of
one sentence after another (a word is a token) fills the think block, and a short answer follows, a list of 20 items
or a
table of 60 rows; without a tag, the answer is the prose itself. A summary is the whole text, against a reference of
about
800 words; Chinese text is prose of common words. Every response differs, as a group's do; the row is the same. Time is
this process's CPU time, so that a busy machine does not blur it.

For decimals, algebra and pairs no figure of the original exists: a star marks what math-verify's own `parse` and
`verify` reach on the same texts in this process, beside ours in short turns. Algebra is a quadratic, one answer in four
its factors and the others wrong; surds are wrong by a root; pairs, which only math-verify can read, have no goal.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

from rich.console import Console
from rich.table import Table

from golongrl.tasks import score
from golongrl.tasks.outcome import Mode

SIZES = {"1K": 1_000, "16K": 16_000}
REFERENCE_WORDS = 800

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "was",
    "for",
    "that",
    "on",
    "with",
    "as",
    "at",
    "by",
    "from",
    "council",
    "report",
    "budget",
    "bridge",
    "river",
    "audit",
    "cost",
    "member",
    "city",
    "year",
    "project",
    "delay",
    "work",
    "flood",
    "contractor",
    "price",
    "material",
    "increase",
    "tax",
    "mayor",
    "petition",
    "resident",
    "district",
    "signature",
    "vote",
    "oversight",
    "independent",
    "quarter",
    "percent",
    "decision",
    "north",
    "review",
    "approve",
    "concern",
    "request",
    "gap",
    "promise",
    "continue",
    "strict",
    "final",
]
RARE = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou") for c in ("n", "rt", "sk", "ndel", "vic")]
CHINESE = [
    "委员会",
    "审查",
    "年度",
    "报告",
    "批准",
    "修订",
    "预算",
    "成员",
    "新桥",
    "成本",
    "表示",
    "担忧",
    "要求",
    "进行",
    "独立",
    "审计",
    "工程",
    "三月",
    "开工",
    "沿河",
    "洪水",
    "两次",
    "延误",
    "季度",
    "承包商",
    "完成",
    "工作",
    "发现",
    "招标",
    "材料",
    "价格",
    "上涨",
    "市长",
    "承诺",
    "弥补",
    "缺口",
    "增加",
    "税收",
    "北区",
    "居民",
    "发起",
    "请愿",
    "收集",
    "签名",
    "最后",
    "投票",
    "议会",
    "决定",
    "严格",
    "监督",
    "继续",
    "项目",
    "的",
    "了",
    "在",
    "和",
]


@dataclass(frozen=True)
class Case:
    """One line of the table: `respond(rng, size)` writes a response of about `size` tokens behind the think block."""

    name: str
    data_source: str
    reward_mode: str | None
    truth: dict[str, Any]
    respond: Callable[[random.Random, int], str]
    original: tuple[float, float] | None  # scores/s at 1K and 16K; None: measured here, see `plain_math`
    goals: tuple[float, float] = (1.0, 1.0)  # times the original


def english(rng: random.Random, size: int) -> str:
    sentences, left = [], size
    while left > 0:
        length = min(left, rng.randint(12, 28))
        sentences.append(" ".join(rng.choice(WORDS if rng.random() < 0.7 else RARE) for _ in range(length)))
        left -= length
    return ". ".join(sentences) + "."


@lru_cache
def thoughts(size: int) -> str:
    return english(random.Random(size), size)


def chinese(rng: random.Random, size: int) -> str:
    return "".join(rng.choice(CHINESE) + ("，" if i % 9 == 8 else "。" if i % 23 == 22 else "") for i in range(size))


def items(n: int) -> list[str]:
    return [f"item {i} of the list" for i in range(n)]


def listed(rng: random.Random) -> str:
    """Three in four of the golds, in order, and strangers."""
    return "[Answer]\n" + "\n".join(f"item {i if rng.random() < 0.75 else i + 100} of the list" for i in range(20))


def rows(rng: random.Random) -> str:
    return "<answer>" + json.dumps({"data": [[f"name {i}", i, rng.randint(0, 3)] for i in range(60)]}) + "</answer>"


def thought(answer: Callable[[random.Random], str] | str) -> Callable[[random.Random, int], str]:
    """A think block of `size` tokens and the answer, in which "#" stands for a random number."""

    def respond(rng: random.Random, size: int) -> str:
        final = answer.replace("#", str(rng.randint(2, 99999))) if isinstance(answer, str) else answer(rng)
        return f"<think>{thoughts(size)}</think>{final}"

    return respond


def untagged(rng: random.Random, size: int) -> str:
    return "<think></think>" + english(rng, size).replace(". ", ".\n")


def english_summary(rng: random.Random, size: int) -> str:
    return "<think></think>" + english(rng, size)


def chinese_summary(rng: random.Random, size: int) -> str:
    return "<think></think>" + chinese(rng, size)


def longbench(name: str, reward_mode: str, docs: list[str], *rest: Any, **more: Any) -> Case:
    truth = {"doc_ids": docs, "golden_label": "", "summary": more.pop("language", "English")}
    return Case(name, "longbench_pro", reward_mode, truth, *rest, **more)


def math(
    name: str,
    gold: str,
    answer: Callable[[random.Random], str] | str,
    original: tuple[float, float] | None = None,
    goal: float = 2.0,
) -> Case:
    source = "math_longcot_math_verify"
    return Case(name, source, source, {"golden_label": gold}, thought(answer), original, (goal, goal))


def quadratic(rng: random.Random) -> str:
    """The factors of x^2+3x-4 times a number over that number, or another quadratic."""
    n = rng.randint(5, 99999)
    return rf"$\boxed{{\frac{{{n}(x+4)(x-1)}}{{{n}}}}}$" if rng.random() < 0.25 else rf"$\boxed{{x^2+{n}x-4}}$"


def plain_math(case: Case, response: str) -> bool:
    """The original's rule with nothing spared: the last 500 characters, and the gold parsed each time."""
    from math_verify import parse, verify

    found = parse(response[-500:], parsing_timeout=None)
    gold = case.truth["golden_label"]
    return len(found) > 1 and (
        found[1] == gold or verify(parse(rf"\boxed{{{gold}}}", parsing_timeout=None), found, timeout_seconds=None)
    )


def cases() -> Iterator[Case]:
    rng = random.Random(7)
    table = json.dumps({"data": [[f"name {i}", i, 1] for i in range(60)]})
    f1_mode, rouge_mode = "T5.1 Full-Sentence Citation Alignment", "T4.1 Global-Coverage Constrained Summary"
    yield Case("EM", "EM", "EM", {"golden_label": "Paris"}, thought("Paris"), (13215, 1286))
    yield longbench("Accuracy", "T3.2 Single-Hop Fact QA", ["paris"], thought("[Answer]\nParis"), (6464, 1037))
    yield Case(
        "selection",
        "selection",
        "selection",
        {"golden_label": "B"},
        thought("The correct answer is (B)"),
        (26616, 3064),
    )
    yield longbench("F1", f1_mode, items(20), thought(listed), (6269, 704))
    yield longbench("F1, no tag", f1_mode, items(20), untagged, (2081, 131))
    yield longbench(
        "SubEM", "T8.1 Structured Multi-Source Consistency Verification", items(20), thought(listed), (6378, 771)
    )
    yield longbench("NDCG", "T1.1 Global Cohesive Retrieval", items(20), thought(listed), (2494, 541), (3.0, 3.0))
    yield longbench("Pairwise", "T2.1 Global Timeline Reconstruction", items(20), thought(listed), (4748, 760))
    yield Case(
        "IoU",
        "multitableqa_pretraining",
        "multitableqa",
        {"golden_label": table},
        thought(rows),
        (1706, 410),
        (3.0, 3.0),
    )
    yield math("math, integer", "42", r"\boxed{42}", (443, 410))
    yield math("math, fraction", r"\frac{1}{2}", r"\boxed{\frac{3}{6}}", (173, 135))
    yield math("math, wrong", r"\frac{1}{2}", r"\boxed{\frac{#}{7}}", (161, 224))
    yield math("math, decimal", "3.14", lambda rng: rf"$\boxed{{{rng.uniform(3, 4):.2f}}}$")
    yield math("math, algebra", "x^2+3x-4", quadratic)
    yield math("math, surd", r"\frac{\sqrt{3}}{2}", r"$\boxed{\frac{\sqrt{#}}{2}}$")
    yield math("math, pair", "(1, 2)", r"$\boxed{(1, #)}$", goal=0.0)
    english_reference, chinese_reference = english(rng, REFERENCE_WORDS), chinese(rng, REFERENCE_WORDS)
    yield longbench("ROUGE-L, en", rouge_mode, [english_reference], english_summary, (0.97, 0.07), (200.0, 1000.0))
    yield longbench(
        "ROUGE-L, zh",
        rouge_mode,
        [chinese_reference],
        chinese_summary,
        (0.63, 0.03),
        (200.0, 1000.0),
        language="Chinese",
    )


def rate(case: Case, size: int, mode: Mode, seconds: float) -> tuple[float, float]:
    """Scores per second over fresh responses, ours and (0 where not measured) math-verify's; writing is not counted.

    The two score different responses: math-verify keeps the last formulas it parsed.
    """
    rng = random.Random(size)
    ours = theirs = 0.0
    for done in count(-1):  # the first, which loads libraries and fills caches, is not counted
        if ours >= seconds or ours + theirs >= 4 * seconds:
            return done / ours, done / theirs if theirs else 0.0
        response = case.respond(rng, size)
        start = time.process_time()
        _score(case, response, mode)
        spent = time.process_time() - start
        ours += spent if done >= 0 else 0.0
        if case.original is None:
            response = case.respond(rng, size)
            start = time.process_time()
            found = plain_math(case, response)
            spent = time.process_time() - start
            theirs += spent if done >= 0 else 0.0
            if found != _score(case, response, mode):
                raise SystemExit(f"error: {case.name}: math-verify and ours differ: {response[-80:]!r}")
    raise AssertionError("unreachable")


def _score(case: Case, response: str, mode: Mode) -> float:
    outcome = score(case.data_source, response, case.truth, {"reward_mode": case.reward_mode}, mode)
    if outcome.score is None:
        raise SystemExit(f"error: {case.name}: {outcome.reason}")
    return outcome.score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["compat", "strict"], default="compat")
    parser.add_argument("--seconds", type=float, default=1.0, help="scoring time a figure")
    options = parser.parse_args()
    table = Table(title=f"scores/s on one core, {options.mode}")
    for column in ("type", "answer", "original", "ours", "ratio", "goal", "met"):
        table.add_column(column, justify="left" if column in ("type", "met") else "right")
    for case in cases():
        for turn, ((label, size), goal) in enumerate(zip(SIZES.items(), case.goals, strict=True)):
            ours, theirs = rate(case, size, options.mode, options.seconds)
            original = case.original[turn] if case.original else theirs
            beside = f"{original:g}" if case.original else f"{original:,.0f}*"
            ratio = (f"{ours / original:,.1f}x", f"{goal:g}x" if goal else "-")
            met = "-" if not goal else "yes" if ours >= goal * original else "NO"
            table.add_row(case.name, label, beside, f"{ours:,.0f}", *ratio, met)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
