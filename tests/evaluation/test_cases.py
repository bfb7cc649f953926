"""The case file: what each scorer gives in each mode. `GOLONGRL_EVAL_CASES` names another file of the same kind."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from golongrl.data.construct.bands import band
from golongrl.data.overlap import hit
from golongrl.errors import GolongrlError
from golongrl.evaluation import aggregate, budget, judge, text, yarn
from golongrl.evaluation.benchmarks import (
    aime,
    bfcl_memory,
    corpusqa,
    docmath,
    gpqa,
    longbench_v2,
    longmemeval,
    mmlu_pro,
    mrcr,
    reading,
)
from golongrl.evaluation.benchmarks.longbench_v2 import LONGBENCH_V2
from golongrl.evaluation.kinds import Mode, Sample
from golongrl.evaluation.thought import strip_thought

CASES = Path(os.environ.get("GOLONGRL_EVAL_CASES") or Path(__file__).parent / "cases.jsonl")
# The case file's columns and our modes.
COLUMNS: Mapping[str, Mode] = {"official": "official", "original": "compat", "ours": "strict"}

Check = Callable[[dict[str, Any], Mode], Any]


def _choices(case: Mapping[str, Any], usual: int) -> int:
    found = re.search(r"n_choices=(\d+)", case["check"])
    return int(case.get("n_choices") or (found[1] if found else usual))


def _yarn(case: Mapping[str, Any]) -> Any:
    rotary = yarn.rotary(
        case["rope_parameters"], case.get("head_dim", 128), case.get("max_position_embeddings", 262_144)
    )
    return {
        "attention_factor": rotary.attention_factor,
        "inv_freq": {str(i): value for i, value in enumerate(rotary.inv_freq)},
    }


def _avg_at_k(problems: Mapping[str, list[float | None]], mode: Mode) -> dict[str, Any]:
    total = aggregate.by_label("x", [
        Sample(name, i, "failed" if score is None else "scored", score)
        for name, scores in problems.items()
        for i, score in enumerate(scores)
    ], mode).total  # fmt: skip
    return {"avg": total.value, "failed": total.failed, "n": total.samples}


def _longbench_v2(rows: list[tuple[str, str, float]], mode: Mode) -> dict[str, float]:
    """In percent with one decimal, as it is printed."""
    table = LONGBENCH_V2.aggregate([
        Sample(str(i), 0, "scored", float(score), {"difficulty": difficulty, "length": length, "domain": "x"})
        for i, (difficulty, length, score) in enumerate(rows)
    ], mode)  # fmt: skip
    return {row.group or "overall": round(100 * (row.value or 0.0), 1) for row in table.rows}


def _answer(case: Mapping[str, Any], mode: Mode, name: str = "text") -> str:
    """A reply without its thought; the cases that scorers are given may have one."""
    return strip_thought(case[name], mode=mode).answer


CHECKS: Mapping[tuple[str, str], Check] = {
    ("think", "strip_thought"): lambda case, mode: (
        strip_thought(case["text"], case.get("finish_reason", "stop"), case.get("thinking", True), mode=mode).answer
    ),
    ("mrcr", "score"): lambda case, mode: mrcr.score(
        _answer(case, mode, "response"), case["answer"], case["random_string_to_prepend"]
    ),
    ("longbench_v2", "extract_choice"): lambda case, mode: longbench_v2.extract_choice(_answer(case, mode), mode),
    ("longbench_qa", "extract_answer"): lambda case, mode: reading.extract_answer(_answer(case, mode), mode),
    ("longbench_qa", "token_f1"): lambda case, mode: text.token_f1(case["prediction"], case["gold"], mode),
    ("corpusqa", "extract_answer"): lambda case, mode: corpusqa.extract_answer(_answer(case, mode), mode),
    ("corpusqa", "domain"): lambda case, mode: corpusqa.domain(case["id"]),
    ("frames", "cover_exact_match"): lambda case, mode: text.cover_exact_match(_answer(case, mode), case["gold"], mode),
    ("docmath", "rule_score"): lambda case, mode: docmath.rule_score(
        _answer(case, mode), case["gold"], case["type"], mode
    ),
    ("mmlu_pro", "extract_choice"): lambda case, mode: mmlu_pro.extract_choice(
        _answer(case, mode), mode, _choices(case, 10)
    ),
    ("gpqa", "extract_choice"): lambda case, mode: gpqa.extract_choice(_answer(case, mode), mode, _choices(case, 4)),
    ("aime", "score"): lambda case, mode: aime.score(strip_thought(case["text"], mode=mode), case["gold"], mode),
    ("longmemeval", "judge_label"): lambda case, mode: longmemeval.judge_label(case["text"], mode),
    ("longmemeval", "category"): lambda case, mode: longmemeval.category(case["question_type"], case["question_id"]),
    ("decontaminate", "hit"): lambda case, mode: hit(case["benchmark_texts"], case["text"]),
    ("pass_rate", "band"): lambda case, mode: band(case["small"], case["large"]),
    ("pass_rate", "band with unscored rollouts"): lambda case, mode: band(
        case["small_passes"],
        case.get("large_passes"),
        unscored_small=case["small_unscored"],
        unscored_large=case.get("large_unscored", 0),
    ),
    ("bfcl_memory", "answer_contained"): lambda case, mode: bfcl_memory.answer_contained(
        _answer(case, mode), case["golds"], mode
    ),
    ("judge", "parse_verdict"): lambda case, mode: judge.parse_verdict(case["text"], mode),
    ("aggregate", "avg@k then mean over problems"): lambda case, mode: _avg_at_k(case["problems"], mode),
    ("aggregate", "pass@2 unbiased"): lambda case, mode: aggregate.pass_at_k(case["n"], case["c"], case["k"]),
    ("aggregate", "longmemeval task-averaged and overall"): lambda case, mode: aggregate.by_type(case["types"]),
    ("aggregate", "longbench v2"): lambda case, mode: _longbench_v2(case["rows"], mode),
    ("yarn", "rotary frequencies as transformers 5.10.4 computes them"): lambda case, mode: _yarn(case),
    ("budget", "fit"): lambda case, mode: budget.fit(case["prompt_tokens"], case["max_tokens"], case["context_length"]),
}


# The released search for copied text misses what it should find, so that only ours is built.
COLUMNS_OF = {"decontaminate": ("ours",)}


def _rows() -> list[Any]:
    lines = CASES.read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        pytest.param(row, column, id=f"{row['id']}-{column}")
        for row in rows
        for column in COLUMNS
        if row[column] != "n/a" and column in COLUMNS_OF.get(row["benchmark"], COLUMNS)
    ]


def _plain(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__slots__} if hasattr(value, "__slots__") else value


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(found, Mapping) and all(_same(found.get(key), value) for key, value in expected.items())
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return bool(found == expected) if isinstance(expected, bool) else found == expected
    return found is not None and found == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("row", "column"), _rows())
def test_case(row: dict[str, Any], column: str) -> None:
    expected = row[column]
    name = row["check"].partition("(")[0].strip()
    check = CHECKS[row["benchmark"], name]
    try:
        found = _plain(check({**row["input"], "check": row["check"]}, COLUMNS[column]))
    except GolongrlError as error:
        found = f"refused: {error}"
    assert _same(found, expected), f"{row['why']}: found {found!r}, expected {expected!r}"
