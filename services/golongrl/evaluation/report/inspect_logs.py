"""Logs that the viewer of inspect-ai opens: `inspect view`, and `inspect view bundle` for a static site.

inspect-ai is not imported: 0.3.285 cannot be installed beside what the operator needs, so its JSON format is written
here, and read by it in an environment of its own. One log for each model and benchmark, written sample by sample; the
question is in it, the long context is not.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from golongrl import files
from golongrl.errors import writing_to
from golongrl.evaluation.report import results
from golongrl.evaluation.store.journal import SampleEntry, read_record

FOLDER: Final = "inspect"
_VERSION: Final = 2
_SCORER: Final = "golongrl"


def write(out: Path) -> Path:
    """Write the logs of an evaluation; returns their folder.

    Raises:
        InputError: there is no evaluation in this folder.
    """
    found = results.collect(out)
    folder = out / FOLDER
    with writing_to(str(folder)):
        folder.mkdir(exist_ok=True)
        for point in found["points"]:
            for name, one in point["benchmarks"].items():
                if one["asked"]:
                    # The viewer lists files by the time in their names.
                    stem = f"{found['started'].replace(':', '-')}_{name}_{point['name']}"
                    _log(out, folder / f"{stem}.json", found, point["name"], name)
    return folder


def _log(out: Path, path: Path, found: Mapping[str, Any], point: str, name: str) -> None:
    (one,) = (item["benchmarks"][name] for item in found["points"] if item["name"] == point)
    course = results.read_course(out, point, name)
    assert course is not None
    entries = results.samples_of(out, point, course)
    head = _head(found, point, name, one, len(entries))
    with files.replacing(path) as staging, staging.open("w", encoding="utf-8", errors="replace") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1])
        file.write(', "samples": [')
        samples = _samples(results.journal_path(out, point, name), entries.values(), one["model"])
        for number, sample in enumerate(samples):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(sample, ensure_ascii=False))
        file.write("]}\n")


def _head(found: Mapping[str, Any], point: str, name: str, one: Mapping[str, Any], samples: int) -> dict[str, Any]:
    settings = one["settings"]
    metrics = {
        title: {"name": title, "value": value}
        for title, value in (("value", one["value"]), ("stderr", one["stderr"]), *one["figures"].items())
        if value is not None
    }
    return {
        "version": _VERSION,
        "status": "success",
        "eval": {
            "eval_id": f"{point}-{name}",
            "run_id": found["suite"],
            "created": found["started"],
            "task": name,
            "task_id": f"{point}-{name}",
            "task_version": 0,
            "task_args": {"mode": found["mode"], "judge": found["judge"], "point": point},
            "dataset": {"name": name, "samples": samples // max(1, settings["repeats"])},
            "model": one["model"] or found["target"],
            "config": {"epochs": settings["repeats"]},
            "packages": {"golongrl": found["version"]},
        },
        # Its reader of heads wants this key.
        "plan": {"name": name, "steps": [], "config": {}},
        "results": {
            "total_samples": one["expected"],
            "completed_samples": one["asked"],
            "scores": [{"name": _SCORER, "scorer": _SCORER, "metrics": metrics}],
        },
        "stats": {"started_at": found["started"], "completed_at": datetime.now(UTC).isoformat(timespec="seconds")},
    }


def _samples(journal: Path, entries: Iterable[SampleEntry], model: str) -> Iterator[dict[str, Any]]:
    for entry in entries:
        record = read_record(journal, entry)
        reply, sample = record["reply"], entry.sample
        content = f"<think>{reply['reasoning']}</think>\n{reply['text']}" if reply["reasoning"] else reply["text"]
        message = {"role": "assistant", "content": content, "source": "generate"}
        reason = {"length": "max_tokens"}.get(reply["finish_reason"], "stop")
        usage = {
            "input_tokens": entry.prompt_tokens,
            "output_tokens": entry.completion_tokens,
            "total_tokens": entry.prompt_tokens + entry.completion_tokens,
        }
        output = {"model": model, "choices": [{"message": message, "stop_reason": reason}], "usage": usage}
        # A sample without a score has no number in the viewer either, and says why.
        score = {
            "value": "unscored" if sample.score is None else sample.score,
            "answer": record["answer"],
            "explanation": entry.reason or ", ".join(sorted(sample.flags)) or None,
            "metadata": {"status": sample.status, "rule": sample.rule, **sample.parts},
        }
        yield {
            "id": record["key"],
            "epoch": sample.epoch + 1,
            "input": record["question"] or record["where"],
            "target": record["golds"],
            "messages": [{"role": "user", "content": record["question"] or record["where"]}, message],
            "output": output,
            "scores": {_SCORER: score},
            "metadata": {**sample.labels, "where": record["where"]},
            "total_time": entry.seconds,
        }
