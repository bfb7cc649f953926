"""Running a pipeline's stages in their order, in one folder, so that it can be killed and started again at any time.

Invariants: one process at a time works in the folder; a stage starts only when the ones before it have ended with the
settings that the pipeline has now; the folder is new, empty or an earlier construction's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from golongrl import files
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.keys import digest
from golongrl.data.construct.load import dump
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.progress import EVERY_S, told
from golongrl.data.construct.registry import stages
from golongrl.data.construct.stage import Executor, Input, Made, PipelineStage, Plan, Row, StageName, StageShard, plan
from golongrl.data.construct.table import StageManifest, StageTable, rows_at
from golongrl.data.construct.tables import ORDER, PIPELINE, Tables

LOCK = ".lock"
# Between two looks at what is waited for. A look at an unchanged folder reads a few manifests.
_LOOK_S = 5.0

Say = Callable[[str], None]


def construct(
    pipeline: Pipeline,
    out: Path,
    executor: Executor,
    say: Say,
    *,
    only: StageName | None = None,
    dry_run: bool = False,
    wait_s: float = 0.0,
    metrics: DataMetrics | None = None,
    pool_jobs: Mapping[str, str] | None = None,
) -> None:
    """Run the pipeline's stages, or one of them; what is there already is kept.

    Args:
        executor: runs the stages that need no model.
        say: called with lines for a person.
        only: this stage alone; those before it have to have ended.
        dry_run: say what would be done and what it would cost, and write nothing.
        wait_s: with `only`: how long to wait until the stages before have ended and no other process works here.
        metrics: told how far it is.
        pool_jobs: suspended Jobs of Kubernetes with engines for the pass rate, by the model: small, large.

    Raises:
        PipelineError: the pipeline has no such stage, a stage before it has not ended, the folder is in use, or no row
            is left to train on.
    """
    tables = Tables(out, pipeline)
    metrics = metrics or DataMetrics()
    chosen = stages(pipeline, tables, executor, metrics, pool_jobs)
    if only is not None and only not in [stage.name for stage in chosen]:
        raise PipelineError(f"--stage {only}: the pipeline {pipeline.name} has no section {only}")
    if dry_run:
        _forecast(chosen, tables, say, only)
        return
    deadline = time.monotonic() + wait_s
    before = [stage for stage in chosen if only is not None and ORDER.index(stage.name) < ORDER.index(only)]
    if wait_s:
        _wait_for(before, tables, say, deadline)
    with _folder(out, say, deadline) as made:
        for stage in before:
            _ended(stage, tables.table(stage.name))
        files.write_text(out / PIPELINE, dump(pipeline))
        made.keep()
        for stage in chosen:
            if only is None or stage.name == only:
                run_stage(stage, tables.table(stage.name), say, metrics)
        if only in (None, "decontaminate"):
            _refuse_empty(chosen, tables)


def _refuse_empty(chosen: Sequence[PipelineStage], tables: Tables) -> None:
    """Raise with what the last stage that got rows made of them, when no row is left to train on."""
    making = [tables.table(stage.name) for stage in chosen if stage.name != "diagnose"]
    if not making or making[-1].needed().kept:
        return
    table, manifest = next(((one, had) for one in reversed(making) if (had := one.needed()).rows_in), (None, None))
    if table is None or manifest is None:
        raise PipelineError(f"{tables.out}: no rows to train on, because nothing came in")
    detail = next((f" ({row['detail']})" for row in table.rows(["detail"], kept=False) if row["detail"]), "")
    raise PipelineError(f"{tables.out}: no rows to train on: {manifest.line()}{detail}")


def run_stage(
    stage: PipelineStage, table: StageTable, say: Say, metrics: DataMetrics | None = None, tell_s: float = EVERY_S
) -> StageManifest:
    """Make what is missing of a stage's table; every `tell_s` seconds a line says how far it is.

    Raises:
        PipelineError: a stage before it has not ended, or a row cannot be made.
    """
    metrics = metrics or DataMetrics()
    metrics.plans(stage.name)
    with told(say, metrics.line, tell_s):
        return _run_stage(stage, table, say, metrics)


def _run_stage(stage: PipelineStage, table: StageTable, say: Say, metrics: DataMetrics) -> StageManifest:
    table.folder.mkdir(parents=True, exist_ok=True)
    table.clean()
    planned = _plan(stage)
    names = [shard.file for shard in planned.shards]
    manifest = table.manifest()
    if manifest and manifest.digest == planned.digest and manifest.shards == names and table.whole(manifest):
        metrics.begins(stage.name, planned.rows_in, planned.rows_in)
        say(f"{manifest.line()} (unchanged)")
    else:
        _make(stage, table, planned, metrics)
        table.write_verdicts(planned.digest, list(stage.settle(lambda columns: _kept(table, names, columns))))
        kept, reasons = table.count(names, planned.digest)
        rows = kept + sum(reasons.values())
        settings = dict(stage.settings())
        manifest = StageManifest(
            stage=stage.name,
            version=stage.version,
            settings=settings,
            digest=planned.digest,
            rows_in=planned.rows_in,
            rows=rows,
            kept=kept,
            refused=dict(reasons),
            shards=names,
        )
        if not manifest.balanced:
            raise PipelineError(f"stage {stage.name}: {planned.rows_in} rows in, but {rows} made; this is a defect")
        table.write_manifest(manifest)
        say(manifest.line())
    for line in stage.finish():
        say(line)
    metrics.ended(stage.name, manifest.kept, manifest.refused)
    return manifest


def _plan(stage: PipelineStage) -> Plan:
    return plan(stage.name, stage.version, stage.settings(), stage.inputs(), stage.shard_rows)


def _kept(table: StageTable, names: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    for number, row in table.numbered(names, columns, {}):
        if row["reason"] is None:
            yield number, row


def _make(stage: PipelineStage, table: StageTable, planned: Plan, metrics: DataMetrics) -> None:
    """Write the shards that are not there, with the rows that an earlier run has made taken from its shards."""
    missing = [shard for shard in planned.shards if not table.has(shard.file)]
    earlier = table.made([shard.file for shard in planned.shards]) if missing else {}
    todo: list[StageShard] = []
    whole = {shard.file: shard for shard in missing}
    metrics.begins(stage.name, planned.rows_in, planned.rows_in - sum(len(shard.keys) for shard in missing))

    def done(part: StageShard, made: Sequence[Made]) -> None:
        shard = whole[part.file]
        fresh = dict(zip(part.keys, made, strict=True))
        written: list[dict[str, Any]] = []
        for key in shard.keys:
            if key in fresh:
                written += [_framed(stage, key, number, row) for number, row in enumerate(fresh[key])]
            else:
                path, numbers = earlier[key]
                written += rows_at(path, numbers)
        table.write_shard(shard.file, written)
        metrics.made(len(shard.keys))

    for shard in missing:
        pairs = [pair for pair in zip(shard.inputs, shard.keys, strict=True) if pair[1] not in earlier]
        part = StageShard(shard.index, shard.file, tuple(one for one, _ in pairs), tuple(key for _, key in pairs))
        if pairs:
            todo.append(part)
        else:
            done(part, [])
    stage.run(todo, done)


def _framed(stage: PipelineStage, key: str, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("reason") is None:
        return {**row, "id": stage.identify(row), "key": key}
    # What was refused is never an input, so its id says only which row it is.
    return {**row, "id": digest("refused", key, number), "key": key}


def _ended(stage: PipelineStage, table: StageTable) -> None:
    """Refuse to continue from a stage that was made with other settings.

    Raises:
        PipelineError: so.
    """
    manifest = table.needed()
    if digest(manifest.version, manifest.settings) != digest(stage.version, dict(stage.settings())):
        raise PipelineError(
            f"{table.folder}: made with other settings of {stage.name}, or by another version; run that stage first"
        )


def _wait_for(before: Sequence[PipelineStage], tables: Tables, say: Say, deadline: float) -> None:
    """Return when each of these stages has ended with the inputs and settings of now, one after the other.

    Raises:
        PipelineError: one has not at the deadline.
    """
    for stage in before:
        table = tables.table(stage.name)
        seen: StageManifest | None = None
        said = False
        while True:
            manifest = table.manifest()
            # Planning reads the inputs, so it is done once for each manifest.
            if manifest is not None and manifest != seen and manifest.digest == _plan(stage).digest:
                break
            seen = manifest
            if time.monotonic() > deadline:
                raise PipelineError(
                    f"{table.folder}: waited for the stage {stage.name}, which has not ended with the present inputs "
                    "and settings; look at its process"
                )
            if not said:
                say(f"waiting for the stage {stage.name}")
                said = True
            time.sleep(_LOOK_S)


def _forecast(chosen: Sequence[PipelineStage], tables: Tables, say: Say, only: StageName | None) -> None:
    """What is missing and what it would cost, as far as the stages before it have ended."""
    known = True
    inputs = 0
    manifest: StageManifest | None = None
    for stage in chosen:
        table = tables.table(stage.name)
        todo: list[Input] | None = None
        if known:
            planned = _plan(stage)
            inputs = planned.rows_in
            earlier = table.made([])
            todo = [
                one
                for shard in planned.shards
                for one, key in zip(shard.inputs, shard.keys, strict=True)
                if key not in earlier
            ]
            manifest = table.manifest()
            known = manifest is not None and manifest.digest == planned.digest
        if only is None or stage.name == only:
            missing = f"{inputs} inputs, {len(todo)} to do" if todo is not None else "the stage before has not ended"
            say(f"{stage.name}: {missing}")
            for line in stage.forecast(inputs, todo).lines:
                say(f"  {line}")
        inputs = manifest.kept if known and manifest is not None else stage.expected(inputs)


@contextmanager
def _folder(out: Path, say: Say, deadline: float) -> Iterator[files.Made]:
    _refuse_foreign(out)
    with files.locked_folder(out, LOCK, lambda _: _lock(out, say, deadline)) as made:
        # Again: another process may have had the folder until now.
        _refuse_foreign(out)
        files.sweep_staged(out)
        yield made


def _refuse_foreign(out: Path) -> None:
    place = files.look(out, (PIPELINE,), harmless=(LOCK,))
    if not (place.free or place.state is files.PlaceState.OWN):
        raise PipelineError(f"--out {out}: {place.why_not('of a construction')}; choose another folder")


def _lock(out: Path, say: Say, deadline: float) -> TextIO:
    said = False
    while True:
        try:
            return files.lock(out / LOCK)
        except files.LockHeldError as error:
            if time.monotonic() > deadline:
                raise PipelineError(f"--out {out}: another process constructs data in this folder ({error})") from error
        if not said:
            say(f"waiting for the process that constructs data in {out}")
            said = True
        time.sleep(_LOOK_S)
