"""The output folder of an evaluation: who may write into it, and what it belongs to.

Invariants: one process at a time writes; a folder is continued only with the same questions to the same model, because
samples of two settings in one mean would be of neither. What changes no score (limits, deadlines) may differ.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NotRequired, TextIO

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from golongrl import __version__, files
from golongrl.errors import InputError, writing_to
from golongrl.evaluation.kinds import Mode
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.suite import Suite
from golongrl.json_files import read_json
from golongrl.reading import file_sha256

RECORD: Final = "evaluation.json"
_LOCK: Final = ".lock"
# What may differ between two commands on one folder.
_FREE: Final = ("limits", "data", "target.api_key_variable", "target.engine", "target.sglang_venv",
                "target.engine_arguments", "target.gpus", "target.place", "judge")  # fmt: skip
_JUDGE: Final = ("place", "model", "temperature", "retry_temperature", "max_tokens", "attempts")
# Bytes of each end of a file of weights.
_CHUNK: Final = 1 << 20
# A record has a suite and the revisions of its data.
_MOST_BYTES: Final = 64 << 20
_AND_OTHERS: Final = ConfigDict(strict=True, extra="allow")


@with_config(_AND_OTHERS)
class _Target(TypedDict):
    name: str


@with_config(_AND_OTHERS)
class _Identity(TypedDict):
    target: _Target
    data: dict[str, Any]


@with_config(_AND_OTHERS)
class _SuiteRecord(TypedDict):
    name: str
    mode: Mode
    benchmarks: list[str]


@with_config(_AND_OTHERS)
class _JudgeRecord(TypedDict):
    place: NotRequired[str | None]
    model: NotRequired[str | None]


@with_config(_AND_OTHERS)
class EvaluationRecord(TypedDict):
    """What the commands read of a folder's record."""

    version: str
    started: str
    identity: _Identity
    suite: _SuiteRecord
    judge: NotRequired[_JudgeRecord | None]
    judged_by: NotRequired[str | None]


_RECORD: Final = TypeAdapter(EvaluationRecord)


@contextmanager
def claimed(out: Path) -> Iterator[files.Made]:
    """The folder, locked by this process. If the block fails, a new one goes, unless it is kept before (`Made.keep`).

    Raises:
        InputError: another process writes into it, or it holds other files.
    """
    _refuse_foreign(out)
    with files.locked_folder(out, _LOCK, partial(_lock, out)) as made:
        # Again: another process may have had the folder until now.
        _refuse_foreign(out)
        files.sweep_staged(out)
        files.sweep_staged(out, 0, RECORD)
        for point in (out / "points").glob("*"):
            files.sweep_staged(point, 0)
        yield made


def _refuse_foreign(out: Path) -> None:
    with writing_to(f"--out {out}"):
        place = files.look(out, (RECORD,), harmless=(_LOCK,))
    if not place.free and place.state is not files.PlaceState.OWN:
        raise InputError(f"--out {out}: {place.why_not('of an evaluation')}; choose another folder")


def _lock(out: Path, path: Path) -> TextIO:
    try:
        with writing_to(f"--out {out}"):
            return files.lock(path)
    except files.LockHeldError as error:
        raise InputError(f"--out {out}: another evaluation writes into it ({error})") from error


def identity(suite: Suite, target: Mapping[str, Any], data: DataFiles) -> dict[str, Any]:
    """What the samples of a folder depend on."""
    tree = suite.model_dump(mode="json")
    for path in _FREE:
        section, _, key = path.partition(".")
        if key:
            del tree[section][key]
        else:
            del tree[section]
    return {"suite": tree, "target": dict(target), "data": {name: _sums(paths) for name, paths in data.paths.items()}}


def judge_identity(suite: Suite) -> dict[str, Any]:
    """Who judges, and how."""
    section = suite.judge.model_dump(mode="json")
    return {key: section[key] for key in _JUDGE}


def _sums(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [{"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths]


def keep(out: Path, mine: Mapping[str, Any], judge: Mapping[str, Any], suite: Suite) -> None:
    """Write the folder's record, or see that it is the same.

    Raises:
        InputError: the folder holds samples of another identity; the message names the first difference.
    """
    path = out / RECORD
    before = read(out) if path.is_file() else None
    if before and (difference := _difference(before["identity"], mine)):
        raise InputError(
            f"--out {out}: its samples were made with {difference}; choose another --out, or run with the same settings"
        )
    judged_by = before.get("judge") if before else None
    both = judged_by and judged_by.get("place") and judge.get("place")
    if both and (difference := _difference(judged_by, judge, "judge")):
        raise InputError(f"--out {out}: it was judged with {difference}; choose another --out, or judge as before")
    record = {
        "version": __version__,
        "started": before["started"] if before else datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": mine,
        "judge": judge if judge.get("place") else judged_by or judge,
        "suite": suite.model_dump(mode="json"),
        "judged_by": before.get("judged_by") if before else None,
    }
    _write(out, record)


def keep_judge(out: Path, model: str) -> None:
    """Write down which model the judge's endpoint serves, or see that it is the same.

    Raises:
        InputError: another one has judged.
    """
    record = read(out)
    if (before := record.get("judged_by")) not in (None, model):
        raise InputError(f"--out {out}: {before} has judged, now {model} is served; choose another --out")
    _write(out, {**record, "judged_by": model})


def _asked(course: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": course["model"], "asked": {**course["asked"], "repeats": None}}


def _write(out: Path, record: Mapping[str, Any]) -> None:
    with writing_to(f"--out {out}"):
        files.write_text(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def refuse_another_course(out: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """An endpoint may serve another model than before, or in another context.

    Args:
        before: what is written down of a benchmark's samples.
        now: the same of the questions that are about to be asked.

    Raises:
        InputError: both have another model, or ask otherwise; more or fewer repeats are no difference.
    """
    if before is not None and (difference := _difference(_asked(before), _asked(now))):
        raise InputError(
            f"--out {out}: its samples of {now['benchmark']} were made with {difference}; choose another --out, or ask "
            "the same model in the same context"
        )


def keep_weights(out: Path, point: str, folder: Path) -> None:
    """Write down which weights a point is, or see that they are the same.

    Raises:
        InputError: the point's samples are of other weights.
    """
    path = out / "points" / point / "weights.json"
    mine = fingerprint(folder)
    with writing_to(f"--out {out}"):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, json.dumps(mine) + "\n")
        elif path.read_bytes() != f"{json.dumps(mine)}\n".encode():
            raise InputError(f"--out {out}: {point} has samples of other weights than {folder}; choose another --out")


def fingerprint(folder: Path) -> dict[str, list[Any]]:
    """Size and a checksum of both ends of each file of weights: other weights differ everywhere, and a whole 60 GB
    would take minutes to read.
    """
    found = {}
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("model_world_size_*.pt")]):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(_CHUNK))
            file.seek(max(0, size - _CHUNK))
            digest.update(file.read(_CHUNK))
        found[path.name] = [size, digest.hexdigest()]
    return found


def read(out: Path) -> EvaluationRecord:
    """The folder's record.

    Raises:
        InputError: there is none, or it is damaged.
    """
    record = read_json(out / RECORD, _MOST_BYTES, _RECORD, "not the record of an evaluation")
    if record is None:
        raise InputError(f"{out}: no evaluation in this folder (it has no {RECORD})")
    return record


def _difference(before: Any, now: Any, path: str = "") -> str:
    """`key: old, now new` of the first difference, or nothing."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            if found := _difference(before.get(key), now.get(key), f"{path}.{key}" if path else str(key)):
                return found
        return ""
    return "" if before == now else f"{path.removeprefix('suite.')} {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
