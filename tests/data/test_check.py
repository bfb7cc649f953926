"""The one check of rows, for `check`, `prepare` and `stats`: every fault of a file by row, never a traceback."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from golongrl.data import prepare
from golongrl.data.check import MOST_LISTED, Findings, checked_rows, problems
from golongrl.data.command import app
from golongrl.data.errors import DataError
from golongrl.errors import GolongrlError
from golongrl.recipe import load

RUN = CliRunner()
MATH = "math_longcot_math_verify"


def row(label="Paris", source="EM", mode="EM", content="Where?", **changes):
    truth = {"golden_label": label, "doc_ids": [], "summary": "English"}
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": content}],
        "ability": "",
        "reward_model": {"ground_truth": truth},
        "extra_info": {"reward_mode": mode, "question": "q"},
    } | changes


def lines_of(items, mode="T5.1 Full-Sentence Citation Alignment"):
    truth = {"doc_ids": items, "golden_label": "", "summary": "English"}
    return row(source="longbench_pro", mode=mode, reward_model={"ground_truth": truth})


def text(record):
    return record if isinstance(record, bytes) else json.dumps(record).encode()


def written(tmp_path, *records, first=b""):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(first + b"\n".join(text(record) for record in records) + b"\n")
    return path


ANSWERED = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Paris"}]
BAD = [
    (row(label=True), r"golden_label: expected a string or a list of strings$"),
    (row(label=[None, 1]), r"golden_label: expected a string or a list of strings$"),
    (row(extra_info=None), "extra_info: expected an object"),
    (row(prompt=[]), "prompt: it is empty"),
    (row(reward_model={"ground_truth": '{"golden_label": "x"}'}), "ground_truth: it is an object written as text"),
    (text(row(label=7)).replace(b"7", b"1e999"), "not JSON that can be read: the number 1e999 is too large"),
    (text(row(reward_model={"ground_truth": 7})).replace(b"7", b"-1e400"), "the number -1e400 is too large"),
    (text(row(more=[7])).replace(b"[7]", b"[1.0E+9999]"), r"the number 1\.0E\+9999 is too large"),
    (row(label="\u200b"), r"golden_label: empty \(invisible characters alone: '\\u200b'\)"),
    (row(label="\u200d \u2060\ufeff"), "golden_label: empty .invisible"),
    (row(label="\u3164"), "golden_label: empty .invisible"),
    (row(label="\x00\x1b"), "golden_label: empty .invisible"),
    (row(source=MATH, label=["2", "\u00ad"]), r"golden_label: empty \(invisible characters alone: '\\xad'\)"),
    (row(source=MATH, label=["2", ""]), "golden_label: empty$"),
    (lines_of(["\u200b", "\u200e\n"]), "doc_ids: empty .invisible"),
    (row(content="\u200b"), r"prompt\.0\.content: empty .invisible"),
    (row(content="\u2800\ufe0f"), r"prompt\.0\.content: empty .invisible"),
    (row(prompt=[{"role": "system", "content": "\u200b"}]), "every message is empty"),
    (row(prompt=ANSWERED), r"prompt\.1\.role: the last message is the assistant's"),
    (row(prompt=ANSWERED[1:]), r"prompt\.0\.role: the last message is the assistant's"),
    (
        row(source="multitableqa_pretraining", label='{"data": [["a"]], "data": [["b"]]}'),
        "the key data stands in one object twice",
    ),
    (
        row(source="multitableqa_pretraining", label='{"data": [["a"]], "x": {"y": 1, "y": 1}}'),
        "the key y stands in one object twice",
    ),
    (row(label=""), "golden_label: empty"),
    (row(label="  "), "golden_label: empty"),
    (row(source="selection", label="none of these"), "cannot be scored|earns 0"),
    (row(source=MATH, label="9^{9^{9}}"), "cannot be scored"),
    (row(source="multitableqa_pretraining", label='{"data": []}'), "earns 0|cannot be scored"),
    (row(source="multitableqa_pretraining", label="["), "not JSON"),
    (lines_of([" "]), "doc_ids: empty"),
    (lines_of(["one"], mode="T2.1 Global Timeline Reconstruction"), "earns 0|cannot be scored"),
    (lines_of(["one"], mode="T99 Nothing"), "no reward_mode 'T99 Nothing'"),
    (row(source="nowhere"), "unknown data_source 'nowhere'"),
    (row(content=""), r"prompt\.0\.content: empty"),
    (row(content=" \n"), r"prompt\.0\.content: empty"),
    (row(prompt=[{"role": "system", "content": ""}]), "every message is empty"),
    (row(prompt=[]), "prompt: "),
    (row(content=None), r"prompt\.0\.content"),
    (b"{", "not JSON"),
    (b"[" * 100_000, "nests too deeply"),
    (b'{"a": ' + b"1" * 5_000 + b"}", "not JSON"),
    (b'{"a": NaN}', "NaN is no JSON value"),
    (b'{"a": "\xff"}', "not UTF-8"),
    (b"[]", "expected an object, got list"),
    (b"null", "expected an object"),
    (text(row(content="bad \ud800")), "prompt: cannot be written as JSON"),
    (text(row(note="bad \ud800")), "note: cannot be written as JSON"),
]


@pytest.mark.parametrize("mode", ["compat", "strict"])
@pytest.mark.parametrize(("record", "expected"), BAD, ids=range(len(BAD)))
def test_a_bad_row_is_named_and_hides_no_other(tmp_path, record, expected, mode):
    path = written(tmp_path, row(content="one"), record, row(content="two"), record)
    found = list(problems(path, mode))
    assert [bool(problem) for problem in found] == [False, True, False, True]
    assert found[1].startswith(f"{path} row 2: ")
    assert re.search(expected, found[1]), found[1]
    result = RUN.invoke(app, ["check", str(path), "--mode", mode])
    assert isinstance(result.exception, DataError)
    assert "2 of 4 rows cannot be used" in str(result.exception)
    stats = RUN.invoke(app, ["stats", str(path)])
    assert stats.exception is None, stats.exception
    skipped = RUN.invoke(app, ["check", str(path), "--mode", mode, "--skip-bad"])
    assert skipped.exit_code == 0
    assert "row 2: " in skipped.output


@pytest.mark.parametrize("label", ["paris", " Paris", "PARIS\n", "Paris\u00a0"])
def test_golds_of_one_prompt_that_differ_by_case_or_spaces_alone_are_a_duplicate(tmp_path, label):
    path = written(tmp_path, row(label="Paris"), row(label=label))
    said = f"{path} row 2: the same prompt and gold answer, but for case and spaces, as {path} row 1"
    assert list(problems(path)) == [None, said]


def test_lines_that_end_with_cr_alone_are_said(tmp_path):
    path = tmp_path / "mac.jsonl"
    path.write_bytes(b"\r".join(json.dumps(row()).encode() for _ in range(2)) + b"\r")
    assert "lines end with CR alone, write LF" in next(iter(problems(path)))


def test_a_repeated_row_is_a_duplicate(tmp_path):
    path = written(tmp_path, row(), row(content="other"), row(), row(label="Lyon"))
    assert list(problems(path))[2] == f"{path} row 3: the same prompt and gold answer as {path} row 1"
    assert "1 of 4 rows cannot be used (1 duplicate)" in str(RUN.invoke(app, ["check", str(path)]).exception)


def test_blank_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = written(tmp_path, row(), b"", b"   ", row(content="two"), first=b"\xef\xbb\xbf")
    assert list(problems(path)) == [None, None]
    findings = Findings(str(path))
    assert [where for where, _ in checked_rows(path, "strict", findings)] == [f"{path} row 1", f"{path} row 4"]


@pytest.mark.parametrize("label", [42, 0.5, "42", ["42", "43"], [1, 2]])
def test_a_gold_answer_may_be_a_number_or_stand_alone(tmp_path, label):
    alone = row(source=MATH, content="alone", reward_model={"ground_truth": label})
    records = [row(source=MATH, label=label)] + ([alone] if not isinstance(label, list) else [])
    path = written(tmp_path, *records)
    assert list(problems(path, "strict")) == [None] * len(records)


def test_what_compat_cannot_score_is_found_in_compat_alone(tmp_path):
    path = written(tmp_path, row(source="selection", label="E"), row(source=MATH, label="北京"))
    assert all(list(problems(path, "compat")))
    assert list(problems(path, "strict")) == [None, None]


def test_the_list_is_bounded_and_counted(tmp_path):
    records = [row(label="", content=str(i)) for i in range(MOST_LISTED + 5)]
    path = written(tmp_path, *records, b"{")
    assert RUN.invoke(app, ["check", str(path)]).output.count("golden_label: empty") == MOST_LISTED + 5
    result = RUN.invoke(app, ["check", str(path), "--most", str(MOST_LISTED)])
    assert result.output.count("golden_label: empty") == MOST_LISTED
    assert "... and 6 more" in result.output
    assert f"{MOST_LISTED + 5} without a gold answer, 1 not JSON" in str(result.exception)


def recipe_of(path, *overrides):
    return load("quickstart", ["data.corpus=null", "data.validation_prompts=0", f"data.train={path}", *overrides])


def test_prepare_refuses_what_check_refuses_and_names_all_of_it(tmp_path, tiny_model):
    path = written(tmp_path, row(), row(label=""), b"{", row(source="nowhere"), row(content="good"))
    with pytest.raises(DataError) as caught:
        prepare(recipe_of(path), tmp_path / "out", tiny_model)
    message = str(caught.value)
    assert "3 of 5 rows cannot be used" in message
    assert "--skip-bad" in message
    for number in (2, 3, 4):
        assert f"{path} row {number}: " in message
    report = prepare(recipe_of(path, "data.bad_rows=skip"), tmp_path / "out", tiny_model)
    assert report.train.rows == 2
    assert sum(report.train.bad.values()) == 3
    assert "train: 3 rows left out: bad" in str(report)
    assert f"{path} row 3: not JSON" in str(report)
    assert prepare(recipe_of(path, "data.bad_rows=skip"), tmp_path / "out", tiny_model) == report


def test_a_row_that_the_template_refuses_is_named(tmp_path, tiny_model):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    template = "{% for m in messages %}{% if m.role == 'tool' %}{{ 1 / 0 }}{% endif %}{{ m.content }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template, "utf-8")
    tool = row(prompt=[{"role": "user", "content": "q"}, {"role": "tool", "content": "t"}])
    path = written(tmp_path, row(), tool)
    with pytest.raises(DataError, match=r"row 2: chat template: ZeroDivisionError"):
        prepare(recipe_of(path), tmp_path / "out", model)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row(content=f"number {i}") for i in range(200)]), path)
    return path


def survives(path):
    try:
        list(problems(path, "compat"))
        list(checked_rows(path, None, Findings("x")))
    except GolongrlError:
        pass


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), flips=st.integers(1, 30))
def test_flipped_bytes_in_parquet_end_in_lines(parquet, seed, flips):
    rng = random.Random(seed)
    data = bytearray(parquet.read_bytes())
    for _ in range(flips):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    damaged = parquet.with_name("damaged.parquet")
    damaged.write_bytes(data)
    survives(damaged)


def test_a_parquet_that_is_cut_short_ends_in_one_line(parquet):
    cut = parquet.with_name("cut.parquet")
    cut.write_bytes(parquet.read_bytes()[:-20])
    (found,) = problems(cut)
    assert found.startswith(f"data {cut}: not readable as parquet")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*row(), "x", "role", "content"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(
    st.lists(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), max_size=4),
    JSON,
    st.sampled_from(sorted(row())),
)
def test_any_file_of_lines_ends_in_lines(tmp_path_factory, lines, value, key):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join([*lines, json.dumps(row(**{key: value})).encode()]))
    survives(path)


def test_help_shows_the_row_format():
    shown = " ".join(RUN.invoke(app, ["check", "--help"]).output.split())
    for part in ("data_source", "reward_model", "golden_label", "doc_ids", "reward_mode", "golongrl data check"):
        assert part in shown


def test_a_gold_that_takes_too_long_is_named_and_the_others_are_checked(tmp_path):
    # As deep as a gold may be: seconds on any machine; the other gold is compared as text.
    path = written(tmp_path, row(source=MATH, label="(" * 39 + "x" + ")" * 39), row(content="two"))
    result = RUN.invoke(app, ["check", str(path), "--mode", "compat", "--gold-deadline", "0.2"])
    assert f"{path} row 1: reward_model.ground_truth.golden_label: cannot be scored" in result.output
    assert "not scored within 0.2 s" in result.output
    assert "1 of 2 rows cannot be used" in str(result.exception)


def test_a_long_prompt_is_named_with_its_length(tmp_path, monkeypatch):
    monkeypatch.setenv("GOLONGRL_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, row(content="one two three"), row(content="word " * 300))
    words = ["check", str(path), "--max-prompt-tokens", "200"]
    assert f"{path} row 2: prompt: 300 tokens, at most 200" in RUN.invoke(app, words).output
    for _ in range(2):
        result = RUN.invoke(app, [*words, "--model", "builtin:quickstart"])
        assert f"{path} row 2: prompt: " in result.output
        assert "1 of 2 rows cannot be used (1 too long)" in str(result.exception)
    (cache,) = (tmp_path / "cache" / "lengths").iterdir()
    assert len(json.loads(cache.read_text("utf-8"))) == 2
    monkeypatch.setattr("golongrl.data.chat.Chat.encode", None)  # lengths come from the cache
    assert f"{path} row 2: prompt: " in RUN.invoke(app, [*words, "--model", "builtin:quickstart"]).output


def test_joined_files_with_a_byte_order_mark_inside_are_read(tmp_path):
    path = written(tmp_path, row(), b"\xef\xbb\xbf" + text(row(content="two")), first=b"\xef\xbb\xbf")
    assert list(problems(path)) == [None, None]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("nested", [True, False])
def test_a_gold_that_is_no_finite_number_is_named(tmp_path, number, nested):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    record = row(reward_model={"ground_truth": {"golden_label": number} if nested else number})
    pq.write_table(pa.Table.from_pylist([record]), path)
    (line,) = problems(path)
    assert f"{path} row 1: reward_model.ground_truth" in line
    assert f": {number} is not a finite number" in line
