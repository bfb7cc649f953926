"""The stage `convert`: rows of public sets in, samples out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.conversion.readers import convert
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Conversion, LengthBin, Pipeline, SourceInput
from golongrl.data.construct.sources.files import UNREAD, pieces
from golongrl.data.construct.sources.readers import UnreadError
from golongrl.data.construct.sources.stage import records
from golongrl.data.construct.stage import CpuStage, Executor, Input, Made, Row, StageName, Work, refused
from golongrl.data.construct.tokens import Measure, measure_of

_ROWS = ("jsonl", "parquet", "hub")
# What a converted row has as its length bin when its context fits none of the pipeline's.
_OTHER = "other"


class ConvertStage(CpuStage):
    """Rows of public sets in, samples out."""

    name: ClassVar[StageName] = "convert"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.CONVERT
    # A piece is a block of rows already.
    shard_rows: ClassVar[int] = 1

    def __init__(self, pipeline: Pipeline, executor: Executor) -> None:
        super().__init__(executor)
        self._pipeline = pipeline

    def settings(self) -> Mapping[str, object]:
        bins = [one.model_dump(mode="json", exclude={"share"}) for one in self._pipeline.select.bins]
        return {"tokenizer": self._pipeline.tokenizer, "bins": bins}

    def inputs(self) -> Iterator[Input]:
        for place in self._pipeline.convert.inputs if self._pipeline.convert else ():
            yield from _pieces(place)

    def work(self) -> Work:
        return _Convert(measure_of(self._pipeline.tokenizer), self._pipeline.select.bins)


def _pieces(place: Conversion) -> Iterator[Input]:
    left = place.limit
    for piece in pieces(SourceInput(path=place.path, format=place.format, name=place.name, split=place.split)):
        if piece.row["kind"] == UNREAD:
            raise PipelineError(f"convert: {piece.row['path']}: {piece.row['detail']}")
        if piece.row["kind"] not in _ROWS:
            raise PipelineError(f"convert: {piece.row['path']}: expected jsonl or parquet")
        if left == 0:
            return
        most = None if left is None else min(left, _rows_in(piece.row))
        left = None if left is None or most is None else left - most
        yield Input(digest(piece.id, place.reader, most), {**piece.row, "reader": place.reader, "most": most})


def _rows_in(row: Row) -> int:
    if row["kind"] == "jsonl":
        return sum(1 for _ in records(row, SourceInput(path=row["path"])))
    return int(row["end"] - row["start"])


@dataclass(frozen=True, slots=True)
class _Convert:
    """Makes samples of blocks of rows."""

    measure: Measure
    bins: Sequence[LengthBin]

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        return [self._block(row) for row in rows]

    def _block(self, row: Row) -> Made:
        made: Made = []
        place = SourceInput.model_validate(row["place"])
        for number, record in records(row, place):
            if row["most"] is not None and len(made) == row["most"]:
                break
            made.append(self._sample(record, row, f"{row['origin']} row {number}"))
        return made or [refused("no rows", f"{row['origin']} holds none", source=row["source"])]

    def _sample(self, record: object, row: Row, where: str) -> dict[str, Any]:
        generator = f"{row['reader']}: {where}"
        if isinstance(record, UnreadError):
            return refused(record.reason, str(record), source=row["source"], generator=generator)
        sample = {**convert(row["reader"], record), "source": row["source"], "generator": generator}
        if "context" not in sample:
            return sample
        (n_tokens,) = self.measure.count([sample["context"]])
        inside = (one.name for one in self.bins if one.min_tokens <= n_tokens <= one.max_tokens)
        return {**sample, "length_bin": next(inside, _OTHER), "doc_ids": []}
