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


TRADITIONAL = "請根據以下文章回答問題公司二零二三年的營業收入是多少"
WORDS = QUESTION.split()

# The whole question, in writings that a person reads and a search for words does not.
DISGUISES = {
    "letters with blanks": " ".join(QUESTION.replace(" ", "")),
    "letters with blanks, wider between words": "   ".join(map(" ".join, WORDS)),
    "some words spelt out": " ".join(" ".join(word) if len(word) > 6 else word for word in WORDS),
    "underscores": "_".join(WORDS),
    "points": ".".join(WORDS),
    "slashes and bars": "/".join(WORDS[:8]) + "|" + "|".join(WORDS[8:]),
    "no blanks": "".join(WORDS),
    "no blanks, inside other words": "Pleaseanswerthis" + "".join(WORDS) + "andsayitshortly",
    "camel case": "".join(map(str.capitalize, WORDS)),
    "hyphens at the end of lines": QUESTION.replace("committee", "com-\nmittee").replace("harbour", "har-\n  bour"),
    "emphasis inside words": QUESTION.replace("committee", "com**mit**tee").replace("year", "_y_ear"),
    "tags inside words": QUESTION.replace("mit", "<b>mit</b>").replace("iff", '<span class="x">iff</span>'),
    "zero width": "\u200b".join(QUESTION),
    "full width": "".join(chr(ord(one) + 0xFEE0) if one.isalpha() else one for one in QUESTION),
    "mathematical letters": "".join(chr(0x1D41A + ord(one) - 97) if "a" <= one <= "z" else one for one in QUESTION),
}


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES)
def test_boundaries_between_words_hide_nothing(text):
    assert hit([QUESTION], text)
    assert hit([QUESTION], f"Please answer: {text}\nIn one word.")


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (CHINESE, TRADITIONAL),
        (TRADITIONAL, CHINESE),
        (CHINESE, " ".join(TRADITIONAL)),
        (CHINESE, "，".join(TRADITIONAL)),
        ("头发与干燥的面条里面有后台", "頭髮與乾燥的麵條裡面有後臺"),
        ("为什么众人说台湾的里程", "爲什麼衆人說臺灣的里程"),
        ("who wrote the play hamlet", "w h o w r o t e t h e p l a y h a m l e t"),
        ("who wrote the play hamlet", "Who_wrote_the_play_Hamlet"),
        ("who wrote the play hamlet", "WhoWroteThePlayHamlet?"),
    ],
)
def test_short_items_and_both_writings_of_chinese_are_found(item, text):
    assert hit([item], text)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        # Twelve words, and a thirteenth that only begins like the item's or ends like it.
        (" ".join(LONG[:20]), " ".join(LONG[5:17]) + " w17x"),
        (" ".join(LONG[:20]), "xw5 " + " ".join(LONG[6:18])),
        (QUESTION, " ".join(WORDS[:12])),
        (QUESTION, " ".join(" ".join(WORDS[:12]))),
        (QUESTION, "".join(WORDS[:12])),
        (QUESTION, " ".join([*WORDS[:6], "not", *WORDS[6:]])),
        (QUESTION, "".join([*WORDS[:6], "not", *WORDS[6:]])),
        # Lists of numbers.
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "12 34 56 78 91 01 11 21 31 41 5"),
        ("1 2 3 4 5", "12345"),
        ("a b c d e f g h i j k l m n o p", "abcdefghijklmnop"),
        ("who wrote the play hamlet", "Who_wrote_the_play_Hamlet_first"),
        (CHINESE, "後臺裡面有乾燥的麵條與頭髮"),
        ("x < b and c > d so that e < f and g > h holds for all of them", "x d so that e h holds"),
        ("", "_ _ _ _ _"),
        ("_____ _____", "_____"),
    ],
)
def test_what_only_resembles_an_item_is_no_hit(item, text):
    assert not hit([item], text)


def test_underscores_are_no_letters():
    assert tokens("the name_of_it __init__") == ["the", "name", "of", "it", "init"]


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
