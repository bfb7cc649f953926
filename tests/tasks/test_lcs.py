"""The bit-parallel back-trace takes exactly the words that the textbook table and back-trace take."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.tasks import lcs


def textbook(x: Sequence[str], y: Sequence[str]) -> set[str]:
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    i, j, words = len(x), len(y), set()
    while i and j:
        if x[i - 1] == y[j - 1]:
            words.add(x[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


SENTENCES = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=14), min_size=1, max_size=6)


@pytest.mark.parametrize("budget", [lcs.MAX_ROW_BYTES, 1])
@settings(max_examples=150)
@given(references=SENTENCES, sentences=SENTENCES)
def test_union_of_common_words(budget: int, references: list[list[str]], sentences: list[list[str]]) -> None:
    text = lcs.index(sentences, {word for reference in references for word in reference})
    found: set[str] = set()
    for reference in references:
        lcs.add_common_words(reference, text, found, max_row_bytes=budget)
    assert found == set().union(*(textbook(r, s) for r in references for s in sentences))


def test_sentences_of_one_word_each_lose_their_order() -> None:
    text = lcs.index([[word] for word in "dbca"], set("abcd"))
    found: set[str] = set()
    lcs.add_common_words("abcd", text, found)
    assert found == set("abcd")


@settings(max_examples=100)
@given(reference=SENTENCES.map(lambda s: s[0]), sentence=SENTENCES.map(lambda s: s[0]))
def test_common_words_are_a_longest_common_subsequence(reference: list[str], sentence: list[str]) -> None:
    found = list(lcs.common_words(reference, lcs.index([sentence], set(reference))))[::-1]
    for whole in (reference, sentence):
        rest = iter(whole)
        assert all(word in rest for word in found)
    lengths = [0] * (len(sentence) + 1)
    for word in reference:
        diagonal = 0
        for j, other in enumerate(sentence, 1):
            diagonal, lengths[j] = lengths[j], diagonal + 1 if word == other else max(lengths[j], lengths[j - 1])
    assert len(found) == lengths[-1]


def test_a_bounded_memory_changes_nothing() -> None:
    x = [f"w{i * 7 % 31}" for i in range(900)]
    y = [f"w{i * 11 % 37}" for i in range(700)]
    text = lcs.index([y], set(x))
    found: set[str] = set()
    lcs.add_common_words(x, text, found, max_row_bytes=1)
    assert found == textbook(x, y)
