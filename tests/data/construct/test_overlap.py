"""The definition of n-gram overlap, and that the hashes follow it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.grams import gram_hashes, token_hashes
from golongrl.data.overlap import grams, hit, tokens

LONG = [f"w{i}" for i in range(40)]
QUESTION = "In which year did the committee of the northern harbour towns first agree on a common tariff?"
CHINESE = "请根据以下文章回答问题公司二零二三年的营业收入是多少"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ".join(LONG[5:18]), True),
        (" ".join(LONG[5:17]), False),
        ("x w3 w4 w5 w6 w7 w8 w9, w10 w11 w12 w13 w14 w15 w16 w17 w18 w19", True),
        (" ".join(LONG[5:18]).upper(), True),
        ("-- ".join(LONG[5:18]), True),
        ("w5 w6\u200b w7 w8 w9 w10\u00ad w11 w12 w13 w1\u200b4 w15 w16 w17", True),
        (" ".join(LONG[5:17]) + " ｗ１７", True),
        (" ".join([*LONG[5:11], "x", *LONG[11:18]]), False),
        ("&nbsp;".join(LONG[5:18]), True),
        ("&#32;".join(LONG[5:18]).replace("w7", "&#119;7"), True),
        ("\r\n\t".join(LONG[5:18]), True),
        ("\u3000".join(LONG[5:18]), True),
        ("", False),
        (" ".join(reversed(LONG)), False),
    ],
)
def test_thirteen_words_in_a_row_are_a_hit_however_they_are_written(text, expected):
    assert hit([" ".join(LONG)], text) is expected


@pytest.mark.parametrize(
    "text",
    [
        QUESTION.replace("o", "\u043e").replace("a", "\u0430").replace("e", "\u0435"),
        QUESTION.replace("i", "\u0456").replace("o", "\u03bf"),
        QUESTION.upper().replace("H", "\u041d").replace("T", "\u0422").replace("A", "\u0391").replace("E", "\u0415"),
        QUESTION.replace(" ", "&nbsp;"),
    ],
)
def test_letters_that_look_the_same_are_the_same(text):
    assert text != QUESTION
    assert hit([QUESTION], text)
    assert hit([text], QUESTION)


@pytest.mark.parametrize(
    ("item", "text", "expected"),
    [
        ("who wrote the play hamlet", "Who wrote the play «Hamlet»?", True),
        ("who wrote the play hamlet", "Who wrote the play Hamlet first?", False),
        ("who wrote hamlet", "who wrote hamlet", False),  # four tokens say too little
        ("", "", False),
        ("", QUESTION, False),
        (QUESTION, "", False),
    ],
)
def test_a_short_item_is_a_hit_as_a_whole_only(item, text, expected):
    assert hit([item], text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("公司二零二三年的营业收入是多少元", True),
        ("公司，二零二三年的营业收入：是多少", True),
        ("营业收入是多少", False),
    ],
)
def test_a_chinese_character_is_a_token(text, expected):
    assert hit([CHINESE], text) is expected


def test_runs_of_few_different_words_say_nothing():
    assert not hit(["no no no " * 20], "no no no " * 20)
    assert not hit(["1 2 3 " * 20], "1 2 3 " * 20)
    assert hit(["1 2 3 4 " * 20], "1 2 3 4 " * 20)


def test_any_of_several_items_is_enough():
    assert hit(["nothing", QUESTION, " ".join(LONG)], f"Please answer: {QUESTION.lower()}")


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=40), st.integers(2, 14))
def test_the_hashes_are_those_of_the_runs_that_count(words, n):
    text = " ".join(words)
    expected = list(grams(tokens(text), n))
    places, hashes = gram_hashes(token_hashes(text), n)
    assert places.tolist() == [place for place, _ in expected]
    for (_, one), a in zip(expected, hashes, strict=True):
        for (_, two), b in zip(expected, hashes, strict=True):
            assert (one == two) == (a == b)


# The scripts of the two languages and their neighbours; polars and Python may know different versions of Unicode.
SIGNS = "aZ09_ß\u0130ﬁ½é\u0301Ωя\u200b\ufeff.,-'\n ·你好々〇カｶ１ｗ，。『』한\U00020000"


@given(st.text(SIGNS, max_size=60))
def test_polars_cuts_a_text_into_the_same_tokens(text):
    words = tokens(text)
    hashes = token_hashes(text)
    assert len(hashes) == len(words)
    assert len(set(words)) == len(np.unique(hashes))
