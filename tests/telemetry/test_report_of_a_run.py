"""The report of a whole run: from all of its files, bounded, private, and with nothing in it that a browser runs."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl import cli, files
from golongrl.errors import InputError, one_line
from golongrl.recipe import dump, load
from golongrl.telemetry import history, journal, report
from golongrl.telemetry.journal import SAMPLES, TIMELINE
from golongrl.telemetry.report import compare, groups
from golongrl.telemetry.report.gather import MOST, Thinned, Totals, gather, timeline
from golongrl.telemetry.report.timeline import meaning
from golongrl.telemetry.run_info import RunInfo

RECORDED = json.loads((Path(__file__).parents[1] / "recordings" / "quickstart" / "record.json").read_text())
EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"

# A frame as wide as a phone: a window cannot be that narrow. It tells whether the title is the page's own, how many
# figures were drawn, and whether anything is wider than its place.
FRAME = """<iframe id="f" src="report.html" style="width:WIDTHpx;height:900px"></iframe><script>
onload = () => setTimeout(() => {
  const it = document.getElementById("f").contentDocument, root = it.documentElement;
  const fits = plot => plot.querySelector("svg").getBoundingClientRect().width <= plot.clientWidth;
  document.body.dataset.told = [it.title.startsWith("GoLongRL"), root.dataset.drawn,
    root.scrollWidth <= root.clientWidth, [...it.querySelectorAll(".plot")].every(fits)].join(" ");
}, 20000);
</script>"""


def write_run(folder: Path, steps: int, worker: str = "rollout-0", text: str = "What is 1 + 1?") -> None:
    """The files of a run of so many steps, each with all that a real record has."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load("quickstart")
    (folder / "recipe.yaml").write_text(dump(recipe))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            record = {**RECORDED, history.STEP: step, history.REWARD: step / steps, f"groups_from/{worker}": 9.0}
            file.write(json.dumps(record) + "\n")
    with (folder / SAMPLES).open("w") as file:
        for step in range(1, steps + 1):
            spread = {"step": step, "kind": "batch", "pass_rates": [1] * 10, "advantages": [2] * 12,
                      "tasks": {"T1": [0.0, 0.5, 1.0]}}  # fmt: skip
            answer = {"reward": 0.5, "status": "scored", "reason": "", "tokens": 9, "finish": "stop",
                      "versions": [[3, 0, 9]], "text": text * 50}  # fmt: skip
            group = {"step": step, "kind": "group", "why": "worst", "uid": "0-1", "task": text, "metric": "EM",
                     "worker": worker, "reward": 0.5, "of": 8, "prompt_tokens": 80, "prompt": text * 50,
                     "responses": [answer] * 4}  # fmt: skip
            file.write("".join(json.dumps(line) + "\n" for line in (spread, group, group)))
    with (folder / TIMELINE).open("w") as file:
        for tick in range(4 * steps):
            change = {"at": 1e9 + tick, "who": ("learner", worker)[tick % 2], "version": str(tick // 8),
                      "is": ("updating", "generating", "waiting", "waiting: full")[tick % 4]}  # fmt: skip
            file.write(json.dumps(change) + "\n")


def page_of(folder: Path) -> str:
    recipe = load("quickstart")
    return report.write(folder, recipe, dump(recipe)).read_text("utf-8")


def test_a_thousand_steps_are_less_than_three_megabytes_and_all_of_them_count(tmp_path: Path) -> None:
    write_run(tmp_path, 1000)
    page = page_of(tmp_path)
    assert len(page.encode()) < 3_000_000
    assert "<b>1000</b><span>optimizer steps" in page
    assert "9000" in page  # groups of the worker, over all steps
    for heading in ("Validation", "Queue", "Who waited for whom", "Spread", "Sample groups", "Recipe"):
        assert f"<h2>{heading}</h2>" in page


def test_a_report_with_text_of_prompts_is_private(tmp_path: Path) -> None:
    write_run(tmp_path, 2)
    page_of(tmp_path)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o600


@given(st.integers(0, 3000))
@settings(max_examples=30, deadline=None)
def test_a_series_is_bounded_and_keeps_mean_maximum_and_order(steps: int) -> None:
    thinned = Thinned(most=20)
    for step in range(1, steps + 1):
        thinned.add(step, {"x": float(step), "staleness/max": float(step)})
    points = thinned.points()
    assert len(points) <= 40
    assert [step for step, _ in points] == sorted({step for step, _ in points})
    if steps:
        assert points[-1][0] == steps
        assert points[-1][1]["staleness/max"] == steps
        assert points[0][1]["x"] == (1 + points[0][0]) / 2
    if steps <= 40:
        assert len(points) == steps


def test_totals_are_of_all_steps_and_workers_are_bounded() -> None:
    totals = Totals()
    for step in range(1, 201):
        totals.add({history.STEP: step, history.REWARD: float(step), f"groups_from/w{step}": 1.0, "staleness/max": 1.0})
    assert (totals.steps, totals.first, list(totals.last)) == (200, [1, 2, 3, 4, 5], [196, 197, 198, 199, 200])
    assert len(totals.groups_from) == 40


def test_a_step_that_was_computed_again_counts_once(tmp_path: Path) -> None:
    lines = [{history.STEP: step, "x": step} for step in (1, 2, 3, 2, 3, 4)]
    lines[3]["x"] = 20
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"training/glob')
    found = gather(tmp_path)
    assert found.history.series("x") == [1, 20, 3, 4]
    assert found.totals.steps == 4


def changes(*found: tuple[float, str, str, str]) -> list[dict[str, Any]]:
    return [{"at": at, "who": who, "is": state, "version": version} for at, who, state, version in found]


def test_the_timeline_has_spans_marks_and_shares() -> None:
    found = timeline(
        changes(
            (0, "learner", "waiting", "1"),
            (0, "w", "generating", "1"),
            (4, "w", "adopting", "1"),
            (5, "w", "generating", "2"),
            (6, "learner", "updating", "2"),
            (7, "w", "silent", ""),
            (9, "w", "quarantined", "2"),
            (10, "w", "generating", "2"),
        )
    )
    assert ("w", "generating", 0.0, 4.0) in found.spans
    assert ("learner", "updating", 6.0, 10.0) in found.spans
    assert [mark[1] for mark in found.marks] == ["took version 2", "lost its weights", "quarantined"]
    assert found.shares["learner"] == {"waiting": 6.0, "updating": 4.0}


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "at": st.floats() | st.text(max_size=3),
                "who": st.sampled_from(["learner", "reward", "a", "b"]) | st.integers(),
                "is": st.sampled_from(["generating", "silent", "gone", "idle", "waiting: full"]) | st.none(),
                "version": st.sampled_from(["", "1", "2"]),
            },
        ),
        max_size=60,
    )
)
@settings(deadline=None)
def test_a_timeline_of_anything_is_bounded_and_drawn(found: list[dict[str, Any]]) -> None:
    drawn = timeline(found, most=10)
    assert len(drawn.spans) <= 10 + 44
    assert all(end > begin >= drawn.begin for _, _, begin, end in drawn.spans)
    assert all(len(meaning(state)) == 2 for _, state, _, _ in drawn.spans)


@pytest.mark.parametrize("name", [EVIL, "</script><script>document.title='run'</script>", "'\"><svg onload=x>"])
def test_no_string_of_any_file_is_markup(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, 3, worker=name, text=name)
    lines = [{history.STEP: 4, history.REWARD: 1.0, f"timing_s/{name}": 1.0, f"reward_by_type/{name}": 0.5,
              f"val_by_type/{name}": 0.5, "val/mean": 0.5}]  # fmt: skip
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("\n".join(map(json.dumps, lines)))
    RunInfo(name, name, machine=name, started=name, pid=1, pid_started=0, state="done").write(tmp_path)
    assert name not in page_of(tmp_path)
    other = tmp_path / "b"
    write_run(other, 2, worker=name)
    sides = (
        compare.Side(tmp_path, load("quickstart", [f"model.path={json.dumps(name)}"])),
        compare.Side(other, load("quickstart")),
    )
    assert name not in compare.write(*sides, tmp_path / "compare.html").read_text()


@pytest.mark.full
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_draws_every_figure_in_its_place_and_runs_nothing_of_the_run(tmp_path: Path, width: int) -> None:
    write_run(tmp_path, 20, worker=EVIL, text=EVIL)
    page = page_of(tmp_path)
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"),
        *("--virtual-time-budget=60000", f"--window-size={width + 100},1000", f"--user-data-dir={tmp_path}/profile"),
        f"file://{tmp_path}/frame.html",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True).stdout
    told = re.search(r'data-told="([^"]*)"', dom)
    assert told is not None
    figures = page.count('class="figure"')
    assert told[1] == f"true {figures} true true"


def test_two_runs_are_compared_in_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, lr in ((one, "0.001"), (two, "0.002")):
        write_run(folder, 5)
        (folder / "recipe.yaml").write_text(dump(load("quickstart", [f"learner.lr={lr}"])))
    cli.report(one, two)
    assert capsys.readouterr().out.strip() == str(one / "compare-two.html")
    page = (one / "compare-two.html").read_text()
    assert "<tr><td>learner.lr</td><td>0.001</td><td>0.002</td></tr>" in page
    assert "GoLongRL · one and two" in page
    assert len(page) < 3_000_000
    (one / "compare-two.html").write_text("mine")
    with pytest.raises(InputError, match=r"its compare-two.html was not written by this command"):
        cli.report(one, two)
    with pytest.raises(InputError, match="no run in this folder"):
        cli.report(one, tmp_path / "three")


@pytest.mark.parametrize("name", ["metrics.jsonl", SAMPLES, TIMELINE, f"{SAMPLES}.1", "report.html", "run.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Callable[[Path], None]
) -> None:
    write_run(tmp_path, 2)
    wanted = journal.older(tmp_path / SAMPLES) if name.endswith(".1") else tmp_path / name
    wanted.unlink(missing_ok=True)
    make(wanted)
    with pytest.raises(SystemExit) as ended, one_line():
        cli.report(tmp_path)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(wanted) in said
    assert "written" not in said, "it was reading"


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, 2)

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "write_private", refuse)
    with pytest.raises(InputError, match=r"report .*report\.html: cannot be written: Permission denied"):
        page_of(tmp_path)


@pytest.mark.parametrize("value", [None, 1.5, "x", [], {}, [None], {"a": 1}, 10**30, -1, 10**400, float("inf"), True])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((SAMPLES, key) for key in ("step", "pass_rates", "tasks", "reward", "responses", "uid", "of")),
        (SAMPLES, "responses.0.versions"), (SAMPLES, "responses.0.reward"),
        *((TIMELINE, key) for key in ("at", "who", "is", "version")),
        ("metrics.jsonl", history.STEP), ("metrics.jsonl", history.REWARD),
    ],
)  # fmt: skip
def test_a_damaged_value_costs_its_record(tmp_path: Path, name: str, key: str, value: object) -> None:
    write_run(tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    first, *inner = key.split(".")
    for record in lines[len(lines) // 2 :]:
        if first in record:
            spot, last = (record, first) if not inner else (record[first][int(inner[0])], inner[1])
            spot[last] = value
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in lines))
    found = gather(tmp_path)
    assert found.totals.steps in (1, 2)
    made = groups.section(found.groups) + str(len(found.timeline.spans))
    assert "0-1" in made or key == "uid" or key == "step"


@pytest.mark.parametrize(("name", "key"), [(TIMELINE, "who"), (TIMELINE, "version"), (SAMPLES, "uid")])
def test_half_a_character_costs_no_report(tmp_path: Path, name: str, key: str) -> None:
    write_run(tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    (tmp_path / name).write_text("".join(json.dumps({**record, key: "half \ud800"}) + "\n" for record in lines))
    page_of(tmp_path).encode()


def test_a_series_has_at_most_twice_as_many_points_as_a_screen_needs() -> None:
    assert MOST <= 400
