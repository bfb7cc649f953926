"""`--encoded=WORD` stands for the argument WORD, wherever an argument may stand."""

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.learner.words import decoded


@given(st.text())
def test_whatever_is_encoded_comes_back(word: str) -> None:
    assert decoded(f"--encoded={quote_plus(word)}") == word


@pytest.mark.parametrize("word", ["--port=9", "a b", "%41", "+", "--encode=x", ""])
def test_other_arguments_stay(word: str) -> None:
    assert decoded(word) == word
