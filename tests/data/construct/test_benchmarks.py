"""The texts of benchmarks: the whole evaluation suite, any folder, and an index that misses nothing it was given."""

import json
import os
import shutil
import subprocess
import sys
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.construct.contamination import index as indexing
from golongrl.data.construct.contamination.index import build, open_index
from golongrl.data.construct.contamination.texts import BenchmarkFile, absent, benchmark_files, texts
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.grams import token_hashes
from golongrl.data.construct.models import Decontaminate
from golongrl.data.overlap import grams, hit, tokens
from golongrl.evaluation.registry import selected
from support.eval_data import write_eval_data


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """(settings, folder of the index) of the whole suite, made of tiny tables."""
    folder = write_eval_data(tmp_path_factory.mktemp("suite"))
    chosen = Decontaminate(suite=str(folder))
    return chosen, build(benchmark_files(chosen), 13, tmp_path_factory.mktemp("index"))


def test_every_benchmark_of_the_evaluation_is_looked_for(suite):
    chosen, _ = suite
    assert absent(chosen) == []
    files = benchmark_files(chosen)
    assert {one.benchmark for one in files} == {benchmark.name for benchmark in selected("paper")}
    for file in files:
        assert any(text.kind == "item" for text in texts(file)), file


def test_every_item_of_the_suite_is_found_in_another_writing(suite):
    chosen, folder = suite
    index = open_index(folder)
    looked_at = 0
    for file in benchmark_files(chosen):
        for one in texts(file):
            words = tokens(one.text)
            if one.kind == "item" and len(words) >= 5 and hit([one.text], one.text.upper()):
                assert index.hits(one.text.upper()), one
                looked_at += 1
    assert looked_at > 50
    assert index.hits("A question that no benchmark asks about the harbour of a town in the north.") == []


def test_a_benchmark_that_is_not_there_is_an_error_or_is_named(tmp_path):
    write_eval_data(tmp_path)
    for path in tmp_path.glob("frames*"):
        path.unlink()
    with pytest.raises(PipelineError, match=r"frames.*golongrl eval fetch"):
        benchmark_files(Decontaminate(suite=str(tmp_path)))
    without = Decontaminate(suite=str(tmp_path), suite_missing="note")
    assert absent(without) == ["frames"]
    assert "frames" not in {one.benchmark for one in benchmark_files(without)}
    with pytest.raises(PipelineError, match="unknown suite or benchmark"):
        benchmark_files(Decontaminate(suite=str(tmp_path), suite_name="papre"))


def test_fields_are_contexts_by_name_or_length_and_options_are_items(tmp_path):
    row = {
        "question": "What is asked here?",
        "choices": ["one option", "another option"],
        "Context": "a document",
        "paragraphs": [{"title": "Head", "body": "text of a paragraph"}],
        "input": "word " * 2000,
        "number": 3,
        "nothing": None,
    }
    (tmp_path / "b.jsonl").write_text(json.dumps(row), "utf-8")
    (tmp_path / "book.txt").write_text("A whole book.", "utf-8")
    files = benchmark_files(Decontaminate(benchmarks=(str(tmp_path),)))
    assert [one.benchmark for one in files] == ["b", "book"]
    kinds = {(one.field, one.text[:20].strip(), one.kind) for file in files for one in texts(file)}
    assert kinds == {
        ("question", "What is asked here?", "item"),
        ("choices", "one option", "item"),
        ("choices", "another option", "item"),
        ("context", "a document", "context"),
        ("paragraphs.title", "Head", "context"),
        ("paragraphs.body", "text of a paragraph", "context"),
        ("input", "word word word word", "context"),
        ("text", "A whole book.", "context"),
    }


@pytest.mark.parametrize(("name", "content"), [("b.jsonl", "no json"), ("b.parquet", "PAR1"), ("b.csv", 'a\n"')])
def test_a_damaged_benchmark_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(PipelineError, match=name):
        build(benchmark_files(Decontaminate(benchmarks=(str(tmp_path),))), 13, tmp_path / "index")


def test_a_changed_benchmark_has_another_index(tmp_path):
    file = tmp_path / "b.jsonl"
    folders = []
    for text in ("one two three four five six", "one two three four five seven"):
        file.write_text(json.dumps({"question": text}), "utf-8")
        folders.append(build(benchmark_files(Decontaminate(benchmarks=(str(file),))), 13, tmp_path / "index"))
        assert open_index(folders[-1]).hits(text)
    assert folders[0] != folders[1]
    assert not open_index(folders[0]).hits("one two three four five seven")


@pytest.mark.parametrize("name", ["index.json", "grams.npy", "owners.npy", "contexts.npy"])
@pytest.mark.parametrize("content", [None, b"", b"[5]", b"\x93NUMPY"])
def test_a_damaged_index_is_named_and_made_again_without_its_folder(tmp_path, name, content):
    file = tmp_path / "b.jsonl"
    file.write_text(json.dumps({"question": "one two three four five six"}), "utf-8")
    files = benchmark_files(Decontaminate(benchmarks=(str(file),)))
    folder = build(files, 13, tmp_path / "index")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert build(files, 13, tmp_path / "index") == folder
    with pytest.raises(PipelineError, match=f"{folder}.*: not an index of benchmarks; delete the folder"):
        open_index(folder)
    shutil.rmtree(folder)
    assert open_index(build(files, 13, tmp_path / "index")).hits("one two three four five six")


words = st.lists(st.sampled_from([f"w{n}" for n in range(12)]), max_size=30)


@settings(max_examples=40)
@given(st.lists(words, min_size=1, max_size=4), words, st.integers(3, 7))
def test_the_index_hits_exactly_what_the_definition_hits(tmp_path_factory, items, text, n):
    folder = tmp_path_factory.mktemp("b")
    rows = [json.dumps({"question": " ".join(item)}) for item in items]
    (folder / "b.jsonl").write_text("\n".join(rows), "utf-8")
    file = BenchmarkFile("b", folder / "b.jsonl", "".join(rows))
    index = open_index(build([file], n, folder))
    assert bool(index.hits(" ".join(text))) == hit([" ".join(item) for item in items], " ".join(text), n)


# Long enough for its letters to count, and words of which some begin like others.
PARTS = ["harbour", "harbourtown", "town", "a", "north", "northern", "ern", "税", "律"]
spelt = st.lists(st.sampled_from(PARTS), max_size=24)


@settings(max_examples=60)
@given(
    st.lists(spelt, min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 24),
    st.sampled_from(["", " ", "_", "-", ". "]), st.booleans(), st.integers(5, 8),
)  # fmt: skip
def test_the_index_follows_the_definition_for_letters_too(tmp_path_factory, items, which, start, end, gap, blanks, n):
    folder = tmp_path_factory.mktemp("b")
    rows = [json.dumps({"question": " ".join(item)}) for item in items]
    (folder / "b.jsonl").write_text("\n".join(rows), "utf-8")
    index = open_index(build([BenchmarkFile("b", folder / "b.jsonl", "".join(rows))], n, folder))
    text = gap.join(items[which % len(items)][start:end])
    text = " ".join(text) if blanks else text
    assert bool(index.hits(text)) == hit([" ".join(item) for item in items], text, n)


def test_no_question_of_real_documents_is_taken_for_another(tmp_path):
    """Sentences of one half of the language reference as a benchmark, those of the other half as data."""
    found = {" ".join(one.split()) for text in topics.values() for one in text.split(". ") if 60 < len(one) < 400}
    sentences = sorted(found)
    file = tmp_path / "b.jsonl"
    file.write_text("\n".join(json.dumps({"question": one}) for one in sentences[::2]), "utf-8")
    index = open_index(build(benchmark_files(Decontaminate(benchmarks=(str(file),))), 13, tmp_path / "index"))
    assert all(index.hits(" ".join(one.replace(" ", ""))) for one in sentences[:40:2] if hit([one], one))
    by_words = 0
    for one in sentences[1:400:2]:
        mine = {gram for _, gram in grams(tokens(one))}
        hits = index.hits(one)
        assert all(tuple(each.evidence.split()) in mine or len(tokens(one)) < 13 for each in hits), one
        by_words += bool(hits)
    assert by_words < 100


def test_the_share_of_a_document_is_estimated_from_a_sample_where_contexts_are_large(tmp_path, monkeypatch):
    book = [f"w{number}" for number in range(40_000)]
    (tmp_path / "b.jsonl").write_text(json.dumps({"context": " ".join(book)}), "utf-8")
    files = benchmark_files(Decontaminate(benchmarks=(str(tmp_path / "b.jsonl"),)))
    half = token_hashes(" ".join([*book[:10_000], *(f"x{number}" for number in range(10_000))]))
    whole = open_index(build(files, 13, tmp_path / "index"))
    assert whole.step == 1
    assert whole.share(half)[0] == pytest.approx(0.5, abs=0.002)
    monkeypatch.setattr(indexing, "MOST_CONTEXT", 10_000)
    sampled = open_index(build(files, 13, tmp_path / "index"))
    assert sampled.step > 1
    assert len(sampled.contexts) < len(whole.contexts) / 4
    assert sampled.share(half) == (pytest.approx(0.5, abs=0.05), "b")
    assert sampled.share(token_hashes("another text")) == (0.0, "")
    assert np.all(np.diff(whole.contexts.astype(object)) > 0)


def test_an_index_is_the_same_in_every_process(tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": " ".join(f"w{n}" for n in range(30))}), "utf-8")
    code = (
        "import sys; from pathlib import Path\n"
        "from golongrl.data.construct.contamination.index import build\n"
        "from golongrl.data.construct.contamination.texts import benchmark_files\n"
        "from golongrl.data.construct.models import Decontaminate\n"
        "found = benchmark_files(Decontaminate(benchmarks=(sys.argv[1],)))\n"
        "print((build(found, 13, Path(sys.argv[2])) / 'grams.npy').read_bytes().hex())"
    )
    made = set()
    for number in range(2):
        command = [sys.executable, "-c", code, str(tmp_path / "b.jsonl"), str(tmp_path / str(number))]
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        made.add(done.stdout)
    assert len(made) == 1
