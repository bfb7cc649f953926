"""The n-grams of all benchmarks, on disk, shared between processes by memory mapping.

Of items every n-gram is kept with all the items that have it. Of contexts, which may be a thousand times longer, at
most `MOST_CONTEXT` are kept: where there are more, only those whose hash ends in zeros, so that the share of a
document's n-grams which a benchmark has is estimated from a sample of both.

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

from golongrl.data.construct.contamination.texts import BenchmarkFile, BenchmarkText, texts
from golongrl.data.construct.grams import VERSION, Hashes, gram_hashes, token_hashes
from golongrl.data.construct.keys import digest
from golongrl.data.overlap import LEAST_WHOLE, tokens

# 64 M hashes are 0.5 GB, mapped once for all processes.
MOST_CONTEXT: Final = 64 << 20
# Characters to an n-gram, for deciding how many to keep before they are counted; fewer would keep too many.
_CHARACTERS: Final = 4
# Arrays that wait to be merged: bounds memory while an index is built.
_PENDING: Final = 16 << 20
# Hits of one text that are confirmed and reported.
_MOST_EVIDENCE: Final = 5
_META = "index.json"


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
    whole: dict[str, int]  # the tokens of a short item -> the item
    contexts: Hashes  # sorted, without repeats
    context_owners: NDArray[np.int32]
    benchmarks: Sequence[str]
    unmatchable: int

    @classmethod
    def open(cls, folder: Path) -> "BenchmarkIndex":
        """Map an index into memory."""
        meta = json.loads((folder / _META).read_text("utf-8"))
        return cls(
            n=meta["n"], step=meta["step"], items=[tuple(item) for item in meta["items"]],
            whole=meta["whole"], benchmarks=meta["benchmarks"], unmatchable=meta["unmatchable"],
            **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS},
        )  # fmt: skip

    def hits(self, text: str) -> list[Hit]:
        """Every item that the text shares an n-gram with, or equals; each confirmed by text."""
        return self._confirmed(text, self._candidates(token_hashes(text)))

    def context_hits(self, text: str) -> tuple[int, list[Hit]]:
        """How many n-grams of a long text are an item's, too, and a few of these items."""
        hashed = token_hashes(text)
        found = self._candidates(hashed)
        places = {place for place, _ in found}
        return len(places), self._confirmed(text, found) if found else []

    def share(self, hashed: Hashes) -> tuple[float, str]:
        """The largest share of a document's n-grams (given its tokens' hashes) in the contexts of one benchmark."""
        _, grams = gram_hashes(hashed, self.n)
        sample = np.unique(grams[grams & np.uint64(self.step - 1) == 0])
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
        places, grams = gram_hashes(hashed, self.n)
        first = np.searchsorted(self.grams, grams, "left")
        last = np.searchsorted(self.grams, grams, "right")
        return [
            (int(places[at]), int(owner))
            for at in np.flatnonzero(last > first)
            for owner in self.owners[first[at] : last[at]]
        ]

    def _confirmed(self, text: str, candidates: Iterable[tuple[int, int]]) -> list[Hit]:
        words = tokens(text)
        hits: dict[int, Hit] = {}
        if len(words) < self.n and (item := self.whole.get(" ".join(words))) is not None:
            hits[item] = Hit(*self.items[item][:3], " ".join(words))
        for place, item in candidates:
            if item in hits or len(hits) >= _MOST_EVIDENCE:
                continue
            evidence = " ".join(words[place : place + self.n])
            if f" {evidence} " in f" {self.items[item][3]} ":
                hits[item] = Hit(*self.items[item][:3], evidence)
        return list(hits.values())


_ARRAYS: Final = ("grams", "owners", "contexts", "context_owners")


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
    if (place / _META).is_file():
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
        self._unmatchable = 0
        self._grams: list[tuple[Hashes, NDArray[np.int32]]] = []
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
            _, grams = gram_hashes(token_hashes(one.text), self._n)
            self._grams.append((grams, np.full(len(grams), number, np.int32)))
        elif len(words) >= LEAST_WHOLE:
            self._whole.setdefault(" ".join(words), number)
        else:
            self._unmatchable += 1
            return
        self._items.append((one.benchmark, one.item, one.field, " ".join(words)))

    def _context(self, text: str, benchmark: int) -> None:
        _, grams = gram_hashes(token_hashes(text), self._n)
        grams = np.unique(grams[grams & np.uint64(self._step - 1) == 0])
        self._contexts.append((grams, np.full(len(grams), benchmark, np.int32)))
        self._pending += len(grams)
        if self._pending > _PENDING:
            self._contexts = [_merged(self._contexts)]
            self._pending = 0

    def write(self, folder: Path) -> None:
        grams, owners = _joined(self._grams)
        order = np.lexsort((owners, grams))
        contexts, context_owners = _merged(self._contexts)
        np.save(folder / "grams.npy", grams[order])
        np.save(folder / "owners.npy", owners[order])
        np.save(folder / "contexts.npy", contexts)
        np.save(folder / "context_owners.npy", context_owners)
        meta = {
            "n": self._n, "step": self._step, "items": self._items, "whole": self._whole,
            "benchmarks": list(self._benchmarks), "unmatchable": self._unmatchable,
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
