"""Documents of every kind of file, and the reason for each that is left out."""

import io
import json
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.grams import token_hashes
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.run import run_stage
from golongrl.data.construct.sources import quality
from golongrl.data.construct.sources.readers import FileText, read_file
from golongrl.data.construct.sources.similar import duplicates, signature
from golongrl.data.construct.sources.stage import SourcesStage
from golongrl.data.construct.table import StageManifest
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here, Processes

PROSE = topics["try"]
OTHER = topics["with"]
CHINESE = "\n\n".join(
    f"第{number}节\n\n港口管理处在{1950 + number}年公布了新的税率，商人们对此意见不一，会议因此延长了{number}天。" * 3
    for number in range(1, 12)
)
GERMAN = "Der Rat der Stadt trat am Morgen zusammen, und die Kaufleute warteten vor dem Tor auf die Entscheidung. " * 30


def pipeline(folder: Path, **sources: object) -> Pipeline:
    place = {"path": str(folder), "licence": "CC0-1.0", **sources.pop("place", {})}
    tree = {
        "name": "small",
        "sources": {"inputs": [place], "min_tokens": 50, **sources},
        "select": {"tasks": {"T1": 1}, "bins": [{"name": "short", "max_tokens": 1000}]},
    }
    return Pipeline.model_validate_json(json.dumps(tree))


def sources(folder: Path, out: Path, **settings: object) -> tuple[list[dict], StageManifest]:
    chosen = pipeline(folder, **settings)
    tables = Tables(out, chosen)
    manifest = run_stage(SourcesStage(chosen, tables, Here()), tables.table("sources"), lambda _: None)
    assert manifest.balanced
    return list(tables.table("sources").rows(kept=False)), manifest


def reasons(rows: list[dict]) -> dict[str, str | None]:
    return {row["origin"]: row["reason"] for row in rows}


def a_pdf(text: str) -> bytes:
    """A PDF of one page, written by hand: pypdf reads, but does not set type."""
    lines = "".join(f"({line}) Tj T* " for line in text.replace("(", "").replace(")", "").replace("\\", "").split("\n"))
    content = f"BT /F1 10 Tf 12 TL 20 800 Td {lines}ET".encode("latin-1", "replace")
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 900]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj%s\nendobj\n" % (number, body))
    start = out.tell()
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out.write(
        b"xref\n0 6\n0000000000 65535 f \n" + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start
    )
    return out.getvalue()


def test_every_kind_of_file_becomes_a_document(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    page = (
        "<html><head><title>A page</title><style>p{}</style></head><body><nav>Home</nav><main><h1>Head</h1>"
        + "".join(f"<p>{part}</p>" for part in PROSE.split("\n\n"))
        + "<ul><li><p>first item</p></li><li>second item</li></ul><pre># a comment\nrun it\n</pre>"
        + "<table><tr><th>name</th><th>size</th></tr><tr><td>a</td><td>1</td></tr></table></main></body></html>"
    )
    (folder / "page.html").write_text(page.replace("<listcomp>", ""), "utf-8")
    (folder / "plain.txt").write_text("\ufeff" + OTHER.replace("\n", "\r\n"), "utf-8")
    (folder / "wide.txt").write_bytes(topics["import"].encode("utf-16"))
    (folder / "mark.md").write_text(f"---\nlicense: MIT\ntitle: 'Marked'\n---\n# Head\n\n{topics['class']}", "utf-8")
    (folder / "paper.pdf").write_bytes(a_pdf(topics["lambda"] + topics["yield"]))
    rows = [{"text": topics["for"], "license": "Apache-2.0", "title": "For"}, {"text": CHINESE}]
    (folder / "rows.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), "utf-8")
    pq.write_table(pa.table({"text": [topics["del"] + topics["global"], topics["while"] * 2]}), folder / "more.parquet")
    found, _ = sources(folder, tmp_path / "out", max_repeated_lines=0.6, near_duplicate=None)
    by_origin = {row["origin"]: row for row in found}
    assert {origin: row["reason"] for origin, row in by_origin.items()} == dict.fromkeys(
        ["mark.md", "more.parquet row 1", "more.parquet row 2", "page.html", "paper.pdf", "plain.txt",
         "rows.jsonl row 1", "rows.jsonl row 3", "wide.txt"]
    )  # fmt: skip
    assert by_origin["page.html"]["title"] == "A page"
    assert by_origin["page.html"]["text"].startswith("# Head\n")
    assert "| name | size |\n| a | 1 |" in by_origin["page.html"]["text"]
    assert "\n- first item\n" in by_origin["page.html"]["text"]
    assert "\n    # a comment\n    run it\n" in by_origin["page.html"]["text"]
    assert "Home" not in by_origin["page.html"]["text"]
    assert "p{}" not in by_origin["page.html"]["text"]
    assert "\r" not in by_origin["plain.txt"]["text"]
    assert by_origin["plain.txt"]["text"] == OTHER.strip().replace("\n\n\n", "\n\n")
    assert (by_origin["mark.md"]["licence"], by_origin["mark.md"]["title"]) == ("MIT", "Marked")
    assert "lambda" in by_origin["paper.pdf"]["text"]
    assert by_origin["rows.jsonl row 1"]["licence"] == "Apache-2.0"
    assert by_origin["rows.jsonl row 3"]["lang"] == "Chinese"
    assert by_origin["rows.jsonl row 3"]["n_tokens"] > 1000


def test_every_reason_is_named_and_the_other_files_are_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    files: dict[str, bytes] = {
        "a good.txt": PROSE.encode(),
        "b same.txt": PROSE.encode().replace(b"\n", b"\r\n"),
        "c near.txt": PROSE.replace("exception", "exemption", 3).encode(),
        "d short.txt": b"Too short.",
        "e german.txt": GERMAN.encode() + "\n".join(f"Absatz {n} der Akte." for n in range(200)).encode(),
        "f bytes.txt": b"\xff\xfa" * 400,
        "g numbers.txt": b"".join(b"%d %d\n" % (n, n * n) for n in range(400)),
        "h lines.txt": b"the end of the line is here and there, as it was on that day\n" * 100,
        "i broken.txt": ("\ufffd" + OTHER).encode() * 1 + b"",
        "j scan.pdf": a_pdf(""),
        "k broken.pdf": b"%PDF-1.4 nothing",
        "l empty.txt": b"",
        "m empty.html": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "i broken.txt").write_text(OTHER.replace("e", "\ufffd"), "utf-8")
    (folder / "n rows.jsonl").write_text('{"body": "x"}\nno json\n[]\n' + json.dumps({"text": topics["for"]}), "utf-8")
    found, manifest = sources(folder, tmp_path / "out")
    assert reasons(found) == {
        "a good.txt": None,
        "b same.txt": "duplicate",
        "c near.txt": "near duplicate",
        "d short.txt": "too short",
        "e german.txt": "another language",
        "f bytes.txt": "not UTF-8",
        "g numbers.txt": "few letters",
        "h lines.txt": "repeated lines",
        "i broken.txt": "broken encoding",
        "j scan.pdf": "no text",
        "k broken.pdf": "not readable",
        "l empty.txt": "too short",
        "m empty.html": "too short",
        "n rows.jsonl row 1": "not of the format",
        "n rows.jsonl row 2": "not JSON",
        "n rows.jsonl row 3": "not of the format",
        "n rows.jsonl row 4": None,
    }
    assert manifest.kept == 2
    assert manifest.rows == 17
    assert all(row["detail"] for row in found if row["reason"])


@pytest.mark.parametrize("row", [{"text": PROSE + "\ud800"}, {"text": PROSE, "title": "\udfff"}])
def test_half_of_a_character_costs_only_its_row(tmp_path, row):
    (tmp_path / "in").mkdir()
    lines = [json.dumps(row), json.dumps({"text": OTHER + "\U0001f600"})]
    (tmp_path / "in" / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    found, _ = sources(tmp_path / "in", tmp_path / "out")
    assert reasons(found) == {"rows.jsonl row 1": "not Unicode", "rows.jsonl row 2": None}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"place": {"licence": None}}, "licence unknown"),
        ({"place": {"licence": None}, "unknown_licence": "keep"}, None),
        ({"licences": ["MIT", "cc0-1.0"]}, None),
        ({"licences": ["MIT"]}, "licence not accepted"),
        ({"max_file_bytes": 10}, "too large"),
    ],
)
def test_a_licence_is_needed_and_a_size_kept(tmp_path, settings, expected):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(PROSE, "utf-8")
    found, _ = sources(tmp_path / "in", tmp_path / "out", **settings)
    assert reasons(found) == {"a.txt": expected}


def test_a_long_document_is_cut_between_paragraphs(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "book.txt").write_text(PROSE, "utf-8")
    found, _ = sources(tmp_path / "in", tmp_path / "out", max_tokens=500, near_duplicate=None)
    assert len(found) > 3
    assert all(row["n_tokens"] <= 500 for row in found)
    kept = [row["text"] for row in found if row["reason"] is None]
    assert len(kept) > 3
    whole = "".join(PROSE.split())
    places = [whole.index("".join(part.split())) for part in kept]
    assert places == sorted(places)


def test_a_new_file_is_the_only_one_that_is_read_again(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("try", "with", "for"):
        (folder / f"{name}.txt").write_text(topics[name], "utf-8")
    first, _ = sources(folder, tmp_path / "out")
    read = []

    def seen(path: Path, kind: str) -> FileText:
        read.append(path.name)
        return read_file(path, kind)

    monkeypatch.setattr("golongrl.data.construct.sources.stage.read_file", seen)
    (folder / "class.txt").write_text(topics["class"], "utf-8")
    second, _ = sources(folder, tmp_path / "out")
    assert read == ["class.txt"]
    assert len(second) == len(first) + 1
    (folder / "with.txt").write_text(topics["with"] + "\nChanged.", "utf-8")
    sources(folder, tmp_path / "out")
    assert read == ["class.txt", "with.txt"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such file or folder"),
        (lambda folder: folder.mkdir(), "no file in this folder"),
        (lambda folder: folder.write_text("x"), "is not read"),
    ],
)
def test_an_input_without_documents_is_named(tmp_path, make, message):
    folder = tmp_path / "in.docx"
    make(folder)
    with pytest.raises(PipelineError, match=message) as caught:
        sources(folder, tmp_path / "out")
    assert str(folder) in str(caught.value)


def a_parquet(path: Path, rows: int) -> bytes:
    pq.write_table(
        pa.Table.from_pylist([{"text": f"Section {n}. {PROSE}"} for n in range(rows)]), path, row_group_size=1
    )
    return path.read_bytes()


@pytest.mark.parametrize("executor", [Here(), Processes(1)], ids=["here", "processes"])
def test_a_damaged_parquet_costs_only_what_it_hides(tmp_path, executor):
    folder = tmp_path / "in"
    folder.mkdir()
    whole = a_parquet(folder / "pages.parquet", 3)
    with pq.ParquetFile(folder / "pages.parquet") as reader:
        column = reader.metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    end = start + column.total_compressed_size
    (folder / "pages.parquet").write_bytes(whole[:start] + b"\xff" * (end - start) + whole[end:])
    (folder / "cut.parquet").write_bytes(whole[:-20])
    (folder / "good.txt").write_text(PROSE, "utf-8")
    chosen = pipeline(folder, near_duplicate=None)
    tables = Tables(tmp_path / "out", chosen)
    run_stage(SourcesStage(chosen, tables, executor), tables.table("sources"), lambda _: None)
    assert reasons(list(tables.table("sources").rows(kept=False))) == {
        "good.txt": None,
        "pages.parquet row 1": None,
        "pages.parquet row 2": "not readable",
        "cut.parquet": "not readable",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, "English"),
        (CHINESE, "Chinese"),
        (GERMAN, None),
        ("港の商人は、毎年の春に新しい船を待っていました。" * 20, None),
        ("1 2 3 4", None),
        ("", None),
    ],
)
def test_languages(text, expected):
    assert quality.language(text) == expected


@given(st.text(max_size=400), st.integers(1, 50))
def test_pieces_hold_all_of_the_text_and_are_no_longer_than_asked(text, most):
    pieces = list(quality.parts(text, most))
    assert all(len(piece) <= most for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_similarity_of_signatures_follows_the_share_of_words():
    words = [f"w{n}" for n in range(2000)]
    texts = [" ".join(words), " ".join([*words[:1900], *(f"x{n}" for n in range(100))]), " ".join(words[::-1])]
    signatures = list(enumerate(signature(token_hashes(text)) for text in texts))
    ((number, other, similarity),) = duplicates(signatures, 0.7)
    assert (number, other) == (1, 0)
    assert 0.8 < similarity <= 1.0
    assert list(duplicates(signatures, 1.0)) == []
    assert list(duplicates([(0, b""), (1, b"")], 0.5)) == []


@given(st.text(st.sampled_from("a \t\n\r\u00a0"), max_size=30))
def test_normal_text_has_no_blanks_at_the_ends_of_lines_and_one_blank_line_at_most(text):
    normal = quality.normalise(text)
    assert all(line == line.rstrip() for line in normal.split("\n"))
    assert "\n\n\n" not in normal
    assert normal.split() == text.split()
    assert quality.normalise(normal) == normal
