"""Corpora: sections, splits without overlap, and the lines that say what is wrong."""

import pytest

from golongrl.data.corpus import LEAST_TOKENS, PYTHON_REFERENCE, load_corpus
from golongrl.data.errors import DataError


def test_the_language_reference_is_cut_at_its_headings():
    corpus = load_corpus(PYTHON_REFERENCE)
    titles = {section.title for section in corpus.sections}
    assert 'The "with" statement'.strip('"') in titles
    assert corpus.tokens > 80_000
    assert len(corpus.names) == len(set(corpus.names)) == 240


def test_a_paragraph_lies_on_one_side_of_a_split():
    corpus = load_corpus(PYTHON_REFERENCE)
    train, held_out = corpus.split(0.1)
    ours = {p for s in train.sections for p in s.paragraphs}
    theirs = {p for s in held_out.sections for p in s.paragraphs}
    assert not ours & theirs
    assert len(ours) + len(theirs) == sum(len(s.paragraphs) for s in corpus.sections)
    assert 0.07 < held_out.tokens / corpus.tokens < 0.13


def test_a_folder_is_read_in_name_order_with_its_headings(tmp_path):
    (tmp_path / "b.md").write_text("# Second\n\n" + "gamma delta " * LEAST_TOKENS, "utf-8")
    (tmp_path / "a.txt").write_text("First\n=====\n\nalpha beta\n\nalpha beta\n", "utf-8")
    (tmp_path / "ignored.py").write_text("x", "utf-8")
    corpus = load_corpus(str(tmp_path))
    assert [section.title for section in corpus.sections] == ["First", "Second"]
    assert corpus.sections[0].paragraphs == ("alpha beta",)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (None, "", "no such folder"),
        ("empty.csv", "a", "no .txt, .md, .rst file"),
        ("short.txt", "one two three", f"at least {LEAST_TOKENS} are needed"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, name, text, expected):
    folder = tmp_path / "corpus"
    if name:
        folder.mkdir()
        (folder / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=expected) as caught:
        load_corpus(str(folder))
    assert str(folder) in str(caught.value)


def test_bytes_that_are_no_text_name_the_file(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"bad\.txt"):
        load_corpus(str(tmp_path))


def test_an_unknown_builtin_names_the_known_one():
    with pytest.raises(DataError, match=PYTHON_REFERENCE):
        load_corpus("builtin:nothing")
