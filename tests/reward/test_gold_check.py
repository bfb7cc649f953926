"""An answer that outlasts the deadline is wrong where the row's gold is scored in time; else it stays unscored."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from scoring_items import AppFactory, item

CASES = Path(os.environ.get("GOLONGRL_SCORE_CASES") or Path(__file__).parents[1] / "tasks" / "faults.jsonl")
FIELDS = ("data_source", "response", "ground_truth", "extra_info")


def outlasting() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in CASES.read_text("utf-8").splitlines() if line.strip()]
    return [row for row in rows if row["fault"].startswith("S7")]


async def test_an_answer_that_outlasts_the_deadline_is_wrong(running: AppFactory) -> None:
    rows = outlasting()
    items = [{"id": str(i)} | {name: row[name] for name in FIELDS} for i, row in enumerate(rows)]
    async with running(score=None, deadline_s=10.0) as (_, http):
        answer = await http.post("/v1/score", json={"mode": "strict", "items": items})
        results = answer.json()["results"]
    assert [result["score"] for result in results] == [row["right"] for row in rows], results


SUM = "\\sum_{k=1}^{10^{7}} k^{k}"


@pytest.mark.parametrize(
    ("mode", "gold"), [("compat", "5"), ("strict", ["5", {}])], ids=["compat", "a row that is itself at fault"]
)
async def test_otherwise_it_stays_unscored(running: AppFactory, mode: str, gold: Any) -> None:
    sent = {"id": "a", "data_source": "math_longcot_math_verify", "response": f"</think>\\boxed{{{SUM}}}"}
    items = [{**sent, "ground_truth": {"golden_label": gold}, "extra_info": {}}]
    async with running(score=None, deadline_s=1.0) as (_, http):
        (result,) = (await http.post("/v1/score", json={"mode": mode, "items": items})).json()["results"]
    assert (result["status"], result["score"]) == ("unscored", None)


async def test_a_function_of_another_shape_is_never_taken_for_a_gold(running: AppFactory) -> None:
    async with running(deadline_s=0.5) as (_, http):
        body = {"mode": "strict", "items": [item("HANG")]}
        (result,) = (await http.post("/v1/score", json=body)).json()["results"]
    assert result["status"] == "unscored"
