"""Metrics of a list of lines against a list of golds: Accuracy, F1, SubEM, NDCG, Pairwise.

All are pure functions of normalised strings (see text.py) and give a float in [0, 1]. Each has its compat form, which
is the released reward code's, and where that form pays for something other than the answer, a strict one.
"""

from collections.abc import Sequence
from math import comb, log2


def accuracy(golds: Sequence[str], lines: Sequence[str]) -> float:
    """1 if the first line is the first gold. Further lines neither help nor harm."""
    return float(bool(lines) and golds[0] == lines[0])


def f1(golds: Sequence[str], lines: Sequence[str]) -> float:
    """F1 of the two sets. In compat an inner blank line is a (wrong) prediction; strict lines have none."""
    truth, guess = set(golds), set(lines)
    hits = len(truth & guess)
    if not hits:
        return 0.0
    precision, recall = hits / len(guess), hits / len(truth)
    return 2 * precision * recall / (precision + recall)


def sub_em(golds: Sequence[str], lines: Sequence[str]) -> float:
    """The share of golds, repeats counted, that equal some whole line. Listing every candidate therefore earns 1."""
    listed = set(lines)
    return sum(gold in listed for gold in golds) / len(golds)


def sub_em_strict(golds: Sequence[str], lines: Sequence[str]) -> float:
    """`sub_em` times min(1, G / D), with G distinct golds and D distinct lines.

    As many distinct lines as there are distinct golds are free; each one beyond them dilutes the score, so that 100
    candidates for 2 golds earn at most 0.02.
    """
    return sub_em(golds, lines) * min(1.0, len(set(golds)) / max(1, len(set(lines))))


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 2) for rank, gain in enumerate(gains))


def ndcg(golds: Sequence[str], lines: Sequence[str]) -> float:
    """NDCG@k with k = len(golds) and linear gains k, k-1, ..., 1.

    A repeated gold keeps its last gain, a repeated line its last rank, so ranks cannot tie. An item ends at its first
    NUL, as in the C library (trec_eval) behind the original; lines that differ behind it earn the gain each, so the
    sum is cut at 1.
    """
    k = len(golds)
    gain_of = {gold.partition("\0")[0]: k - i for i, gold in enumerate(golds)}
    # Later lines overwrite earlier ones: reversed twice, first-seen order is the order of last occurrences.
    ranking = list(dict.fromkeys(reversed(lines)))[::-1]
    ideal = _dcg(sorted(gain_of.values(), reverse=True))
    return min(1.0, _dcg([gain_of.get(line.partition("\0")[0], 0) for line in ranking[:k]]) / ideal)


def ndcg_strict(golds: Sequence[str], lines: Sequence[str]) -> float:
    """As `ndcg`, but an item is the whole line, and repeats keep their first gain and rank, as a reader would take
    them.
    """
    k = len(golds)
    gain_of = {gold: k - i for i, gold in reversed(list(enumerate(golds)))}
    ideal = _dcg(sorted(gain_of.values(), reverse=True))
    return _dcg([gain_of.get(line, 0) for line in list(dict.fromkeys(lines))[:k]]) / ideal


def _pairs_in_order(positions: Sequence[int]) -> int:
    """How many pairs i < j have positions[i] < positions[j], in O(n log n) by counting in a Fenwick tree."""
    rank = {p: r + 1 for r, p in enumerate(sorted(set(positions)))}
    tree = [0] * (len(rank) + 1)
    total = 0
    for position in positions:
        r = rank[position] - 1
        while r > 0:
            total += tree[r]
            r -= r & -r
        r = rank[position]
        while r < len(tree):
            tree[r] += 1
            r += r & -r
    return total


def pairwise(golds: Sequence[str], lines: Sequence[str]) -> float:
    """Gold pairs found in order over C(len(lines), 2). 0 for at most one gold or line, and for a quotient above 1.

    The position of a gold is its last line. The denominator is the prediction's: 2 of 10 items in order earn 1.
    """
    if len(golds) <= 1 or len(lines) <= 1:
        return 0.0
    last = {line: i for i, line in enumerate(lines)}
    value = _pairs_in_order([last[gold] for gold in golds if gold in last]) / comb(len(lines), 2)
    return value if value <= 1 else 0.0


def pairwise_strict(golds: Sequence[str], lines: Sequence[str]) -> float:
    """Gold pairs found in order over C(G, 2) for G distinct golds (at least two), times min(1, 2G / D) for D distinct
    lines.

    The position of a gold is its first line: repeats and strangers earn nothing, and leaving items out costs their
    pairs. As many strangers as golds are free; beyond that they dilute, so that listing every candidate pays less than
    choosing.
    """
    order = list(dict.fromkeys(golds))
    first = {line: i for i, line in reversed(list(enumerate(lines)))}
    in_order = _pairs_in_order([first[gold] for gold in order if gold in first]) / comb(len(order), 2)
    return in_order * min(1.0, 2 * len(order) / max(1, len(first)))
