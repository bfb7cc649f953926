"""The n-grams of all benchmarks, on disk, shared between processes by memory mapping.

Of items every n-gram is kept with all the items that have it, and the run of its letters. Of contexts, which may be a
thousand times longer, at most `MOST_CONTEXT` are kept: where there are more, only those whose hash ends in zeros, so
that the share of a document's n-grams which a benchmark has is estimated from a sample of both.

Invariant: an index is written to a temporary folder and renamed; its name is a hash of all that it depends on.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from typing_extensions import TypedDict

from golongrl.data.construct.contamination.letters import Letters
from golongrl.data.construct.contamination.texts import BenchmarkFile, BenchmarkText, texts
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.grams import VERSION, Hashes, gram_hashes, token_hashes
from golongrl.data.construct.keys import digest
from golongrl.data.overlap import LEAST_WHOLE, LEAST_WHOLE_LETTERS, grams, tokens
from golongrl.json_files import read_json

# 64 M hashes are 0.5 GB, mapped once for all processes.
MOST_CONTEXT: Final = 64 << 20
# Characters to an n-gram, for deciding how many to keep before they are counted; fewer would keep too many.
_CHARACTERS: Final = 4
# Arrays that wait to be merged: bounds memory while an index is built.
_PENDING: Final = 16 << 20
# Hits of one text that are confirmed and reported.
_MOST_EVIDENCE: Final = 5
_META = "index.json"


class _IndexMeta(TypedDict):
    n: PositiveInt
    step: PositiveInt
    items: list[tuple[str, str, str, str]]
    lengths: list[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]]
    whole: dict[str, NonNegativeInt]
    benchmarks: list[str]


_INDEX: Final = TypeAdapter(_IndexMeta)
# The items of all benchmarks of the paper have 60 MB.
_MOST_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Hit:
    """An n-gram, or a whole short item, that a text shares with a benchmark's item."""

    benchmark: str
    item: str
    field: str
    evidence: str


@dataclass(frozen=True)
class BenchmarkIndex:
    """Read access to an index."""

    n: int
    step: int
    items: Sequence[tuple[str, str, str, str]]  # benchmark, item, field, tokens joined by blanks
    grams: Hashes  # sorted
    owners: NDArray[np.int32]  # the item of each
    runs: Hashes  # of the letters of the n-grams, sorted among those of one length
    run_owners: NDArray[np.int32]
    lengths: Sequence[tuple[int, int, int]]  # a length of runs, and where those begin and end
    whole: dict[str, int]  # the tokens of a short item, and its letters without blanks -> the item
    contexts: Hashes  # sorted, without repeats
    context_owners: NDArray[np.int32]
    benchmarks: Sequence[str]

    @classmethod
    def open(cls, folder: Path) -> "BenchmarkIndex":
        """Map an index into memory.

        Raises:
            PipelineError: a file of it is gone or damaged.
        """
        otherwise = "not an index of benchmarks; delete the folder, and it is made again"
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        except (OSError, ValueError, EOFError) as error:
            raise PipelineError(f"{folder}: {otherwise} ({error})") from error
        if (meta := read_json(folder / _META, _MOST_BYTES, _INDEX, otherwise, PipelineError)) is None:
            raise PipelineError(f"{folder}: {otherwise} (it has no {_META})")
        return cls(**meta, **arrays)

    def hits(self, text: str) -> list[Hit]:
        """Every item that the text shares an n-gram with, or its letters, or equals; each confirmed by text."""
        found = self._confirmed(text, self._candidates(token_hashes(text)))
        return found or self._spelt(Letters(tokens(text)))

    def context_hits(self, text: str) -> tuple[int, list[Hit]]:
        """How many n-grams of a long text are an item's, too, and a few of these items."""
        hashed = token_hashes(text)
        found = self._candidates(hashed)
        places = {place for place, _ in found}
        return len(places), self._confirmed(text, found) if found else []

    def share(self, hashed: Hashes) -> tuple[float, str]:
        """The largest share of a document's n-grams (given its tokens' hashes) in the contexts of one benchmark."""
        _, own = gram_hashes(hashed, self.n)
        sample = np.unique(own[own & np.uint64(self.step - 1) == 0])
        if not len(sample) or not len(self.contexts):
            return 0.0, ""
        at = np.searchsorted(self.contexts, sample)
        inside = at < len(self.contexts)
        same = np.zeros(len(sample), bool)
        same[inside] = self.contexts[at[inside]] == sample[inside]
        if not same.any():
            return 0.0, ""
        counts = np.bincount(self.context_owners[at[same]], minlength=len(self.benchmarks))
        return float(same.sum()) / len(sample), self.benchmarks[int(counts.argmax())]

    def _candidates(self, hashed: Hashes) -> list[tuple[int, int]]:
        """(place of the n-gram in the text, item) of every equal hash."""
        places, own = gram_hashes(hashed, self.n)
        first = np.searchsorted(self.grams, own, "left")
        last = np.searchsorted(self.grams, own, "right")
        return [
            (int(places[at]), int(owner))
            for at in np.flatnonzero(last > first)
            for owner in self.owners[first[at] : last[at]]
        ]

    def _confirmed(self, text: str, candidates: Iterable[tuple[int, int]]) -> list[Hit]:
        words = tokens(text)
        hits: dict[int, Hit] = {}
        if len(words) < self.n and (item := self.whole.get(" ".join(words))) is not None:
            hits[item] = self._hit(item, " ".join(words))
        for place, item in candidates:
            if item in hits or len(hits) >= _MOST_EVIDENCE:
                continue
            evidence = " ".join(words[place : place + self.n])
            if f" {evidence} " in f" {self.items[item][3]} ":
                hits[item] = self._hit(item, evidence)
        return list(hits.values())

    def _spelt(self, letters: Letters) -> list[Hit]:
        """Items of which a text has the letters with other boundaries between its words."""
        if (item := self.whole.get(letters.text)) is not None:
            return [self._hit(item, self.items[item][3])]
        hits: dict[int, Hit] = {}
        starts, ends = letters.candidates()
        for length, first, last in self.lengths:
            places = np.flatnonzero(starts[:-length] & ends[length:])
            hashed = letters.hashes(places, np.full(len(places), length))
            among = self.runs[first:last]
            low = first + np.searchsorted(among, hashed, "left")
            high = first + np.searchsorted(among, hashed, "right")
            for at in np.flatnonzero(high > low):
                run = letters.text[places[at] : places[at] + length]
                for item in map(int, self.run_owners[low[at] : high[at]]):
                    words = self.items[item][3].split(" ")
                    gram = next((gram for _, gram in grams(words, self.n) if "".join(gram) == run), None)
                    if gram is not None and item not in hits and len(hits) < _MOST_EVIDENCE:
                        hits[item] = self._hit(item, " ".join(gram))
        return list(hits.values())

    def _hit(self, item: int, evidence: str) -> Hit:
        return Hit(*self.items[item][:3], evidence)


_ARRAYS: Final = ("grams", "owners", "runs", "run_owners", "contexts", "context_owners")


@lru_cache(maxsize=2)
def open_index(folder: Path) -> BenchmarkIndex:
    """The index in a folder; a process opens it once."""
    return BenchmarkIndex.open(folder)


def build(files: Sequence[BenchmarkFile], n: int, folder: Path) -> Path:
    """The folder of the index of these files, below `folder`; built if it is not there.

    Raises:
        PipelineError: a file is damaged.
    """
    place = folder / digest(VERSION, n, MOST_CONTEXT, [(one.benchmark, one.path.name, one.content) for one in files])
    if place.is_dir():
        return place
    staging = place.with_suffix(".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    size = sum(one.path.stat().st_size for one in files)
    step = 1
    while size / _CHARACTERS / step > MOST_CONTEXT:
        step *= 2
    _Builder(n, step).run(text for file in files for text in texts(file)).write(staging)
    staging.rename(place)
    return place


class _Builder:
    def __init__(self, n: int, step: int) -> None:
        self._n, self._step = n, step
        self._items: list[tuple[str, str, str, str]] = []
        self._whole: dict[str, int] = {}
        self._grams: list[tuple[Hashes, NDArray[np.int32]]] = []
        self._runs: list[tuple[Hashes, NDArray[np.int32]]] = []
        self._run_lengths: list[NDArray[np.int64]] = []
        self._contexts: list[tuple[Hashes, NDArray[np.int32]]] = []
        self._pending = 0
        self._benchmarks: dict[str, int] = {}

    def run(self, found: Iterable[BenchmarkText]) -> "_Builder":
        for one in found:
            number = self._benchmarks.setdefault(one.benchmark, len(self._benchmarks))
            if one.kind == "item":
                self._item(one)
            else:
                self._context(one.text, number)
        return self

    def _item(self, one: BenchmarkText) -> None:
        words = tokens(one.text)
        number = len(self._items)
        if len(words) >= self._n:
            places, hashed = gram_hashes(token_hashes(one.text), self._n)
            self._grams.append((hashed, np.full(len(hashed), number, np.int32)))
            _, runs, lengths = Letters(words).gram_runs(places, self._n)
            self._runs.append((runs, np.full(len(runs), number, np.int32)))
            self._run_lengths.append(lengths)
        elif len(words) >= LEAST_WHOLE:
            self._whole.setdefault(" ".join(words), number)
            if len(letters := "".join(words)) >= LEAST_WHOLE_LETTERS:
                self._whole.setdefault(letters, number)
        else:
            return
        self._items.append((one.benchmark, one.item, one.field, " ".join(words)))

    def _context(self, text: str, benchmark: int) -> None:
        _, hashed = gram_hashes(token_hashes(text), self._n)
        hashed = np.unique(hashed[hashed & np.uint64(self._step - 1) == 0])
        self._contexts.append((hashed, np.full(len(hashed), benchmark, np.int32)))
        self._pending += len(hashed)
        if self._pending > _PENDING:
            self._contexts = [_merged(self._contexts)]
            self._pending = 0

    def write(self, folder: Path) -> None:
        hashed, owners = _joined(self._grams)
        order = np.lexsort((owners, hashed))
        runs, run_owners = _joined(self._runs)
        lengths = np.concatenate([np.empty(0, np.int64), *self._run_lengths])
        by_length = np.lexsort((run_owners, runs, lengths))
        known, counts = np.unique(lengths, return_counts=True)
        ends = np.cumsum(counts)
        contexts, context_owners = _merged(self._contexts)
        np.save(folder / "grams.npy", hashed[order])
        np.save(folder / "owners.npy", owners[order])
        np.save(folder / "runs.npy", runs[by_length])
        np.save(folder / "run_owners.npy", run_owners[by_length])
        np.save(folder / "contexts.npy", contexts)
        np.save(folder / "context_owners.npy", context_owners)
        meta = {
            "n": self._n, "step": self._step, "items": self._items, "whole": self._whole,
            "lengths": np.stack([known, ends - counts, ends], axis=1).tolist(),
            "benchmarks": list(self._benchmarks),
        }  # fmt: skip
        (folder / _META).write_text(json.dumps(meta, ensure_ascii=False), "utf-8")


def _joined(parts: Sequence[tuple[Hashes, NDArray[np.int32]]]) -> tuple[Hashes, NDArray[np.int32]]:
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    return np.concatenate([hashes for hashes, _ in parts]), np.concatenate([owners for _, owners in parts])


def _merged(parts: Sequence[tuple[Hashes, NDArray[np.int32]]]) -> tuple[Hashes, NDArray[np.int32]]:
    """Sorted, each hash once with its first owner."""
    hashes, owners = _joined(parts)
    kept, first = np.unique(hashes, return_index=True)
    return kept, owners[first]
