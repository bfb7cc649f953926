"""Write a small dataset in the format that `data.train` reads: `python make_rows.py rows.parquet [--rows 64]`.

One row is one prompt:

    data_source    its scorer: EM, selection, math_longcot_math_verify, multitableqa_pretraining or longbench_pro
    prompt         chat messages
    ability        free text, shown in statistics
    reward_model   ground_truth: golden_label (the answer), doc_ids (a list of them, where the metric wants one),
                   summary (the language, English or Chinese)
    extra_info     reward_mode (the task within longbench_pro), question
"""

import argparse
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

THINK = "Think between <think> and </think>, then answer."


def retrieval(chance: random.Random) -> dict[str, Any]:
    """T1, exact match: find the code of a room."""
    codes = {f"room {i}": str(chance.randrange(100, 1000)) for i in range(1, 9)}
    room = chance.choice(sorted(codes))
    lines = "\n".join(f"The code of {name} is {code}." for name, code in codes.items())
    question = f"What is the code of {room}? Answer with the number alone."
    return row("EM", lines, question, codes[room], mode="EM")


def choice(chance: random.Random) -> dict[str, Any]:
    """T2, accuracy: which of four values is the largest."""
    values = chance.sample(range(10, 99), 4)
    options = "\n".join(f"({letter}) {value}" for letter, value in zip("ABCD", values, strict=True))
    gold = "ABCD"[values.index(max(values))]
    question = f"Which is the largest?\n{options}\nAnswer: The correct answer is (X)"
    return row("selection", "Four values were measured.", question, gold, mode="selection")


def arithmetic(chance: random.Random) -> dict[str, Any]:
    """T4, math_verify: a sum over the context."""
    sold = [chance.randrange(2, 20) for _ in range(5)]
    lines = "\n".join(f"On day {day} the shop sold {count} lamps." for day, count in enumerate(sold, 1))
    question = "How many lamps were sold? Put the number into \\boxed{}."
    return row("math_longcot_math_verify", lines, question, str(sum(sold)), mode="math")


def row(source: str, context: str, question: str, gold: str, mode: str) -> dict[str, Any]:
    """A row in the dataset's format."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"{context}\n\n{question}\n{THINK}"}],
        "ability": mode,
        "reward_model": {"ground_truth": {"doc_ids": [], "golden_label": gold, "summary": "English"}},
        "extra_info": {"reward_mode": mode, "question": question},
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where to write, as parquet")
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    chance = random.Random(0)
    kinds = (retrieval, choice, arithmetic)
    rows = [kinds[i % len(kinds)](chance) for i in range(options.rows)]
    pq.write_table(pa.Table.from_pylist(rows), options.file)
    print(f"{options.file}: {len(rows)} rows")


if __name__ == "__main__":
    main()
